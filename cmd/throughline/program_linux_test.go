package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestProgramFailsInOneLine runs the program in ways that fail whatever the privileges, in the foreground and in the
// background: one line on stderr, exit status 1, nothing on stdout.
func TestProgramFailsInOneLine(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		env  string
		want string
	}{
		{args: nil, want: "no interface is named"},
		{args: []string{"--nonsense"}, want: `no flag "--nonsense"`},
		{args: []string{"-f", "a-name-that-is-too-long"}, want: "at most 15 bytes"},
		{args: []string{"a-name-that-is-too-long"}, want: "at most 15 bytes"},
		{args: []string{"-f", "wg0"}, env: tunFD + "=99", want: tunFD + ` is "99"`},
		{args: []string{"wg0"}, env: uapiFD + "=99", want: uapiFD + ` is "99"`},
		{args: []string{"wg0"}, env: tunFD + "=0", want: "descriptor 0"},
		{args: []string{"wg0"}, env: readyFD + "=1", want: readyFD},
	} {
		cmd := exec.Command(self, c.args...)
		cmd.Env = append(os.Environ(), "THROUGHLINE_BE_THE_PROGRAM=1", c.env)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok || exit.ExitCode() != 1 {
			t.Errorf("%q %s: %v, want exit status 1", c.args, c.env, err)
		}
		printed := stderr.String()
		if strings.Count(printed, "\n") != 1 || !strings.HasPrefix(printed, "throughline: ") || !strings.Contains(printed, c.want) {
			t.Errorf("%q %s: printed %q, want one line with %q", c.args, c.env, printed, c.want)
		}
		if stdout.Len() != 0 {
			t.Errorf("%q: on stdout: %q", c.args, stdout.String())
		}
	}
}
