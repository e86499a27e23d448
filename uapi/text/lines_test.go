package text

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
)

var errBroken = errors.New("broken")

// readerOf returns a reader of s that fails at its end.
func readerOf(s string) *bufio.Reader {
	return bufio.NewReader(io.MultiReader(strings.NewReader(s), iotest.ErrReader(errBroken)))
}

func TestReadOperation(t *testing.T) {
	long := strings.Repeat("x", 3*maxLine)
	for text, want := range map[string]string{
		"get=1\n": Get, "set=1\n": Set, "\n\nget=1\n": Get, "get=2\n": "", "GET=1\n": "", "get=1\r\n": "", "x\n": "", long + "\n": "",
	} {
		r := readerOf(text + "next")
		if got, err := ReadOperation(r); got != want || err != nil {
			t.Errorf("%.20q: %q, %v, want %q", text, got, err, want)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "next" {
			t.Errorf("%.20q: %.20q is left to read", text, rest)
		}
	}
	for _, text := range []string{"", "\n", "\n\n"} {
		if _, err := ReadOperation(readerOf(text)); err != errBroken {
			t.Errorf("%q: %v", text, err)
		}
		if _, err := ReadOperation(bufio.NewReader(strings.NewReader(text))); err != io.EOF {
			t.Errorf("%q: %v", text, err)
		}
	}
	if op, err := ReadOperation(bufio.NewReader(strings.NewReader("get=1"))); op != "" || err != nil {
		t.Errorf("cut short: %q, %v", op, err)
	}
}

func TestReadEnd(t *testing.T) {
	long := strings.Repeat("x", 3*maxLine)
	const bad = "uapi: line 1: no line is expected here"
	for text, want := range map[string]string{"\n": "<nil>", "x\n\n": bad, "x\n" + long + "\ny\n\n": bad, long + "\n\n": bad, "x\n": "broken", "": "broken"} {
		r := readerOf(text + "next")
		if !strings.HasSuffix(text, "\n\n") && text != "\n" {
			r = readerOf(text)
		}
		if err := ReadEnd(r); fmt.Sprint(err) != want {
			t.Errorf("%.20q: %v, want %s", text, err, want)
		}
		if rest, _ := io.ReadAll(r); want != "broken" && string(rest) != "next" {
			t.Errorf("%.20q: %.20q is left to read", text, rest)
		}
	}
	if err := ReadEnd(bufio.NewReader(strings.NewReader("x\n"))); err != io.ErrUnexpectedEOF {
		t.Errorf("cut short: %v", err)
	}
}

func TestErrno(t *testing.T) {
	for _, tc := range []struct {
		err      error
		negative bool
		want     string
	}{
		{nil, true, "errno=0\n\n"},
		{syscall.EINVAL, true, "errno=-22\n\n"},
		{syscall.EINVAL, false, "errno=22\n\n"},
		{fmt.Errorf("x: %w", syscall.EPERM), true, "errno=-1\n\n"},
		{&ParseError{Errno: syscall.EIO}, true, "errno=-5\n\n"},
		{errBroken, true, "errno=-22\n\n"},
		{syscall.Errno(0), true, "errno=-22\n\n"},
	} {
		var b bytes.Buffer
		if err := WriteErrno(&b, tc.err, tc.negative); err != nil || b.String() != tc.want {
			t.Errorf("%v: %q, %v, want %q", tc.err, b.String(), err, tc.want)
		}
		answer, err := ReadErrno(bufio.NewReader(&b))
		if err != nil || (answer == nil) != (tc.err == nil) || answer != nil && !errors.Is(answer, errnoOf(tc.err)) {
			t.Errorf("%v came back as %v, %v", tc.err, answer, err)
		}
	}
	for _, text := range []string{"", "\n", "errno=0\n", "errno=0\nx\n\n", "errno\n\n", "x=0\n\n", "errno=\n\n", "errno=-\n\n", "errno=--1\n\n",
		"errno=0x1\n\n", "errno=4294967296\n\n", strings.Repeat("x", 3*maxLine) + "\n\n"} {
		if answer, err := ReadErrno(readerOf(text)); err == nil {
			t.Errorf("%.20q was read as %v", text, answer)
		}
	}
}

func TestLineAtTheLimit(t *testing.T) {
	for n, want := range map[int]string{maxLine: badMark, maxLine + 1: longLine} {
		_, err := ReadConfig(bufio.NewReaderSize(strings.NewReader("fwmark="+strings.Repeat("0", n-len("fwmark=\n")-1)+"x\n\n"), 4*maxLine))
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("a line of %d bytes: %v", n, err)
		}
	}
}
