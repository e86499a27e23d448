package main

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
)

// TestMain lets the test's binary be the program, so that tests see all of what it prints.
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
		"no interface is named":      {},
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

func TestHelpAndVersion(t *testing.T) {
	for _, c := range []struct{ arg, want string }{
		{"--version", "throughline " + version() + " go"},
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
