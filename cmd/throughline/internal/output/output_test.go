package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

func lost(n int) string { return fmt.Sprintf("%d lost\n", n) }

func wait(t *testing.T, w *Writer) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := w.Wait(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Fatal("still not written")
	}
	return err
}

func TestOrder(t *testing.T) {
	var to strings.Builder
	w := New(&to, lost)
	var want strings.Builder
	for i := range 1000 {
		fmt.Fprintf(w, "line %d\n", i)
		fmt.Fprintf(&want, "line %d\n", i)
	}
	if err := wait(t, w); err != nil || to.String() != want.String() {
		t.Errorf("%v, and %d bytes, want %d", err, to.Len(), want.Len())
	}
}

// TestNobodyReads writes to a pipe that isn't read at first: no write waits, the newest lines are lost, and that is said.
func TestNobodyReads(t *testing.T) {
	r, to := io.Pipe()
	w := New(to, lost)
	line := strings.Repeat("x", 1023) + "\n"
	const lines = 10 * most / 1024
	for range lines {
		if n, err := io.WriteString(w, line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait, and nobody reads: %v", err)
	}
	got := make(chan string)
	go func() {
		all, _ := io.ReadAll(r)
		got <- string(all)
	}()
	if err := wait(t, w); err != nil {
		t.Error(err)
	}
	io.WriteString(w, "last\n")
	wait(t, w)
	to.Close()
	all := <-got
	kept, said := 0, 0
	for l := range strings.Lines(all) {
		var n int
		switch _, err := fmt.Sscanf(l, "%d lost\n", &n); {
		case l == line:
			kept++
		case err == nil:
			said += n
		case l != "last\n":
			t.Errorf("it wrote %.50q", l)
		}
	}
	if kept+said != lines || !strings.HasSuffix(all, " lost\nlast\n") {
		t.Errorf("%d of %d lines, %d are said to be lost, and at the end %q", kept, lines, said, all[max(0, len(all)-30):])
	}
	if kept < most/1024 || kept > 2*most/1024 { // those that are being written wait no longer
		t.Errorf("%d lines were kept", kept)
	}
}

// A broken writer fails at first.
type broken struct {
	strings.Builder
	fails int
}

func (b *broken) Write(p []byte) (int, error) {
	if b.fails--; b.fails >= 0 {
		return 0, io.ErrClosedPipe
	}
	return b.Builder.Write(p)
}

func TestErrors(t *testing.T) {
	to := &broken{fails: 1}
	w := New(to, lost)
	io.WriteString(w, "first\n")
	<-w.Failed()
	io.WriteString(w, "second\n")
	if err := wait(t, w); err != io.ErrClosedPipe || to.String() != "second\n" {
		t.Errorf("%v, and %q", err, to.String())
	}
}
