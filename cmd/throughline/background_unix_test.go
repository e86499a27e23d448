//go:build unix

package main

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReadyIsAPipe checks that the number of a descriptor that isn't a pipe is refused: a descriptor that the daemon opens
// later may get that number.
func TestReadyIsAPipe(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	const free = 999
	if isOpen(free) {
		t.Skip("descriptor", free, "is open")
	}
	d := &daemon{environment: &environment{tunFD: -1, uapiFD: -1}, name: "a-name-that-is-too-long"}
	for _, fd := range []int{-1, 1, free, int(null.Fd())} {
		t.Setenv(readyFD, strconv.Itoa(fd))
		if err := d.background(); err == nil || !strings.Contains(err.Error(), readyFD) {
			t.Errorf("descriptor %d: %v", fd, err)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	given, err := unix.Dup(int(w.Fd())) // the daemon's from here on
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(readyFD, strconv.Itoa(given))
	if err := d.background(); err != errReported {
		t.Errorf("a pipe: %v", err)
	}
	said := make([]byte, 100)
	if n, _ := r.Read(said); n == 0 || strings.HasPrefix(string(said[:n]), ready) {
		t.Errorf("said %q", said[:n])
	}
}
