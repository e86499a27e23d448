package main

import (
	"log/slog"
	"strings"
	"testing"

	"throughline/packet"
)

func TestEnvironment(t *testing.T) {
	for _, c := range []struct {
		env    map[string]string
		level  slog.Level
		logs   bool
		tun    int
		uapi   int
		off    packet.Offload
		cipher string
		front  bool
		wrong  string
	}{
		{env: map[string]string{}, level: slog.LevelError, tun: -1, uapi: -1},
		{env: map[string]string{logLevel: "verbose"}, level: slog.LevelDebug, logs: true, tun: -1, uapi: -1},
		{env: map[string]string{logLevel: "debug"}, level: slog.LevelDebug, logs: true, tun: -1, uapi: -1},
		{env: map[string]string{logLevel: "error"}, level: slog.LevelError, logs: true, tun: -1, uapi: -1},
		{env: map[string]string{logLevel: "silent"}, level: silent, tun: -1, uapi: -1},
		{env: map[string]string{inForeground: "1"}, level: slog.LevelError, tun: -1, uapi: -1, front: true},
		{env: map[string]string{inForeground: "0"}, level: slog.LevelError, tun: -1, uapi: -1},
		{env: map[string]string{tunFD: "0", uapiFD: "2"}, level: slog.LevelError, tun: 0, uapi: 2},
		{env: map[string]string{offloadsOff: "tso,gso"}, level: slog.LevelError, tun: -1, uapi: -1, off: packet.TSO | packet.GSO},
		{env: map[string]string{offloadsOff: "uso, tcp-gro, udp-gro gro"}, level: slog.LevelError, tun: -1, uapi: -1, off: packet.USO | packet.TCPGRO | packet.UDPGRO | packet.GRO},
		{env: map[string]string{offloadsOff: "all"}, level: slog.LevelError, tun: -1, uapi: -1, off: packet.AllOffloads},
		{env: map[string]string{offloadsOff: "tso,everything"}, wrong: `THROUGHLINE_OFFLOADS_OFF: "everything" is no offload: use `},
		{env: map[string]string{implementation: "xcrypto"}, level: slog.LevelError, tun: -1, uapi: -1, cipher: "xcrypto"},
		{env: map[string]string{formerName: "xcrypto"}, level: slog.LevelError, tun: -1, uapi: -1, cipher: "xcrypto"},
		{env: map[string]string{implementation: "portable", formerName: "xcrypto"}, level: slog.LevelError, tun: -1, uapi: -1, cipher: "portable"},
		{env: map[string]string{formerName: "rot13"}, wrong: `THROUGHLINE_CIPHER is "rot13"`},
		{env: map[string]string{implementation: "rot13"}, wrong: `THROUGHLINE_CIPHER_IMPLEMENTATION is "rot13", which this machine doesn't have: use `},
		{env: map[string]string{logLevel: "info"}, level: slog.LevelError, logs: true, tun: -1, uapi: -1},
		{env: map[string]string{tunFD: "60000"}, wrong: tunFD},
		{env: map[string]string{tunFD: "-1"}, wrong: tunFD},
		{env: map[string]string{tunFD: "x"}, wrong: tunFD},
		{env: map[string]string{uapiFD: "99999999999"}, wrong: uapiFD},
	} {
		for _, name := range []string{logLevel, inForeground, tunFD, uapiFD, offloadsOff, implementation, formerName} {
			t.Setenv(name, c.env[name])
		}
		e, err := readEnvironment()
		if c.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%v: %v, want %q", c.env, err, c.wrong)
			}
			continue
		}
		if err != nil {
			t.Errorf("%v: %v", c.env, err)
		} else if e.level != c.level || e.logInBackground != c.logs || e.tunFD != c.tun || e.uapiFD != c.uapi || e.host.Off != c.off || e.host.Address.IsValid() || e.cipher != c.cipher || e.foreground != c.front || e.levelSet != (c.env[logLevel] != "") {
			t.Errorf("%v: %+v", c.env, e)
		}
		var notices strings.Builder
		e.printNotices(&notices)
		want := ""
		if c.env[formerName] != "" {
			want = "throughline: THROUGHLINE_CIPHER is the former name of THROUGHLINE_CIPHER_IMPLEMENTATION: use that one\n"
		}
		if notices.String() != want {
			t.Errorf("%v: notices %q", c.env, &notices)
		}
	}
}

// TestEnvironmentIsDocumented checks that --help has every variable that operators set.
func TestEnvironmentIsDocumented(t *testing.T) {
	for _, name := range []string{logLevel, inForeground, tunFD, uapiFD, offloadsOff, implementation} {
		if !strings.Contains(usage, "\n  "+name+"=") {
			t.Errorf("--help doesn't have %s", name)
		}
	}
}
