package loglimit

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"throughline/internal/mono"
)

// A book is a logger's lines, and the clock of a Log that writes there.
type book struct {
	*Log
	lines bytes.Buffer
	now   mono.Time
}

func newBook(level slog.Level) *book {
	b := &book{now: mono.Time(time.Hour)}
	b.Log = New(slog.New(slog.NewTextHandler(&b.lines, &slog.HandlerOptions{Level: level})), func() mono.Time { return b.now })
	return b
}

func (b *book) count(of string) int { return strings.Count(b.lines.String(), of) }

func TestOneSubject(t *testing.T) {
	b := newBook(slog.LevelDebug)
	for range 10_000 { // a second
		b.Debug(7, "replayed", "peer", "x")
		b.now += mono.Time(100 * time.Microsecond)
	}
	if n := b.count("msg=replayed peer=x"); n != Burst {
		t.Errorf("%d lines in a second, want the burst of %d:\n%s", n, Burst, &b.lines)
	}
	b.Debug(7, "replayed", "peer", "x") // a token came back
	if !strings.HasSuffix(b.lines.String(), " peer=x left_out=9995\n") {
		t.Errorf("the next line doesn't say how many were left out:\n%s", &b.lines)
	}
	b.Debug(8, "replayed", "peer", "y")
	if n := b.count("peer=y\n"); n != 1 {
		t.Errorf("another subject has %d lines, and nothing left out, want 1:\n%s", n, &b.lines)
	}
	b.now += mono.Time(time.Hour)
	before := b.count("\n")
	for range 100 {
		b.Debug(7, "replayed", "peer", "x")
	}
	if n := b.count("\n") - before; n != Burst {
		t.Errorf("%d lines after an hour, want %d", n, Burst)
	}
}

func TestWarningsComeOnceAPause(t *testing.T) {
	b := newBook(slog.LevelDebug)
	for range 60 * 100 {
		b.Warn(7, "loop")
		b.Error(7, "broken")
		b.now += mono.Time(10 * time.Millisecond)
	}
	if w, e := b.count("level=WARN"), b.count("level=ERROR"); w != 2 || e != 2 {
		t.Errorf("%d warnings and %d errors in a minute, want 2 of each:\n%s", w, e, &b.lines)
	}
}

// However many subjects there are, a message has its bound; and it starves no other.
func TestSubjectsWithoutNumber(t *testing.T) {
	b := newBook(slog.LevelDebug)
	for i := range uint64(100_000) { // ten seconds
		b.Debug(i, "one of many")
		b.now += mono.Time(100 * time.Microsecond)
	}
	if n := b.count("one of many"); n > MessageBurst+10*MessagesPerSecond+1 || n < 10*MessagesPerSecond {
		t.Errorf("%d lines in ten seconds, want %d and %d a second", n, MessageBurst, MessagesPerSecond)
	}
	b.Debug(1, "another")
	if b.count("another") != 1 {
		t.Error("a flood of one message silenced another")
	}
}

func TestBelowTheLevel(t *testing.T) {
	b := newBook(slog.LevelInfo)
	err := errors.New("no")
	if n := testing.AllocsPerRun(100, func() { b.Failed("send", err) }); n != 0 {
		t.Errorf("%v allocations for a line that isn't logged", n)
	}
	if b.Debug(1, "x"); b.lines.Len() != 0 || len(b.messages) != 0 {
		t.Errorf("it logged %s", &b.lines)
	}
	b = newBook(slog.LevelDebug)
	if b.Failed("send", err); b.count("level=DEBUG msg=send error=no\n") != 1 {
		t.Errorf("it logged %s", &b.lines)
	}
}

func TestAtOnce(t *testing.T) {
	l := New(slog.New(slog.NewTextHandler(io.Discard, nil)), func() mono.Time { return 1 })
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 1000 {
				l.Warn(1, "at once")
			}
		})
	}
	all.Wait()
	if m := l.messages["at once"]; m.leftOut != 3999 {
		t.Errorf("%d were left out, want %d", m.leftOut, 3999)
	}
}
