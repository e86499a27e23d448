package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"

	"throughline/packet"
)

// TestMain lets the test's binary be the program, so that what the program tells an operator can be seen whole.
func TestMain(m *testing.M) {
	if os.Getenv("THROUGHLINE_BE_THE_PROGRAM") == "1" {
		os.Args = append([]string{"throughline"}, os.Args[1:]...)
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestWrongCalls(t *testing.T) {
	for want, args := range map[string][]string{
		"which interface":            {},
		`no flag "-x"`:               {"-x"},
		`no flag "--verbose"`:        {"--verbose", "wg0"},
		"one interface at a time":    {"wg0", "wg1"},
		`no flag "-ff"`:              {"-ff", "wg0"},
		"run 'throughline --help' f": {"-f"},
	} {
		err := run(args, new(bytes.Buffer))
		if err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, errUsage) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
		if err != nil && strings.Contains(oneLine(err), "\n") {
			t.Errorf("%q: more than one line: %v", args, err)
		}
	}
}

func TestWordsOnStdout(t *testing.T) {
	for _, c := range []struct{ arg, want string }{
		{"--version", "throughline " + version},
		{"--help", "WG_TUN_FD"},
		{"-h", "usage: throughline"},
		{"help", "usage: throughline"},
	} {
		var out bytes.Buffer
		if err := run([]string{c.arg}, &out); err != nil || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: %q, %v; want %q", c.arg, out.String(), err, c.want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	for _, c := range []struct {
		env    map[string]string
		level  slog.Level
		chatty bool
		tun    int
		uapi   int
		off    packet.Offload
		cipher string
		wrong  string
	}{
		{env: map[string]string{}, level: slog.LevelError, tun: -1, uapi: -1},
		{env: map[string]string{"LOG_LEVEL": "verbose"}, level: slog.LevelDebug, chatty: true, tun: -1, uapi: -1},
		{env: map[string]string{"LOG_LEVEL": "debug"}, level: slog.LevelDebug, chatty: true, tun: -1, uapi: -1},
		{env: map[string]string{"LOG_LEVEL": "error"}, level: slog.LevelError, chatty: true, tun: -1, uapi: -1},
		{env: map[string]string{"LOG_LEVEL": "silent"}, level: silent, tun: -1, uapi: -1},
		{env: map[string]string{tunFD: "0", uapiFD: "2"}, level: slog.LevelError, tun: 0, uapi: 2},
		{env: map[string]string{offloadsOff: "tso,gso"}, level: slog.LevelError, tun: -1, uapi: -1, off: packet.TSO | packet.GSO},
		{env: map[string]string{offloadsOff: "uso, tcp-gro, udp-gro gro"}, level: slog.LevelError, tun: -1, uapi: -1, off: packet.USO | packet.TCPGRO | packet.UDPGRO | packet.GRO},
		{env: map[string]string{offloadsOff: "all"}, level: slog.LevelError, tun: -1, uapi: -1, off: packet.AllOffloads},
		{env: map[string]string{offloadsOff: "tso,everything"}, wrong: `THROUGHLINE_OFFLOADS_OFF: "everything" is no offload: use `},
		{env: map[string]string{cipherName: "xcrypto"}, level: slog.LevelError, tun: -1, uapi: -1, cipher: "xcrypto"},
		{env: map[string]string{cipherName: "rot13"}, wrong: `THROUGHLINE_CIPHER is "rot13", which isn't among this machine's: use `},
		{env: map[string]string{"LOG_LEVEL": "info"}, level: slog.LevelError, chatty: true, tun: -1, uapi: -1},
		{env: map[string]string{tunFD: "60000"}, wrong: tunFD},
		{env: map[string]string{tunFD: "-1"}, wrong: tunFD},
		{env: map[string]string{tunFD: "x"}, wrong: tunFD},
		{env: map[string]string{uapiFD: "99999999999"}, wrong: uapiFD},
	} {
		for _, name := range []string{"LOG_LEVEL", tunFD, uapiFD, offloadsOff, cipherName} {
			t.Setenv(name, c.env[name])
		}
		d, err := daemonFromEnvironment("wg0")
		if c.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%v: %v, want %q", c.env, err, c.wrong)
			}
			continue
		}
		if err != nil {
			t.Errorf("%v: %v", c.env, err)
		} else if d.level != c.level || d.chatty != c.chatty || d.tunFD != c.tun || d.uapiFD != c.uapi || d.host.Off != c.off || d.host.Address.IsValid() || d.cipher != c.cipher || d.name != "wg0" {
			t.Errorf("%v: %+v", c.env, d)
		}
	}
}
