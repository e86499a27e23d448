// Package loglimit bounds how often a received packet, or one read from a TUN, can make a program log.
//
// A line is known by its message and by what it is about, a peer for example. Of each such pair [Burst] lines are written
// at once, and then one a [Pause]; warnings and errors one a [WarnPause], without a burst. Of each message, whatever it
// is about, [MessageBurst] lines are written at once and [MessagesPerSecond] a second then. A line that is left out is
// counted, and the next of the same message that is written says how many were, as left_out.
//
// Concurrency: a Log may be used from any goroutine. Its lock is a leaf, held for moments: not while a line is written.
//
// Limits: messages are constants of the program, so they bound its memory together with [Subjects]: so many subjects of
// a message are told apart. One beyond takes another's place, which is then known no more, and begins anew: all together they
// write no more lines than the message's own bound lets them.
package loglimit

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"throughline/internal/mono"
)

// What is written.
const (
	Burst     = 5                // lines of one message about one subject at once
	Pause     = time.Second      // between those that follow
	WarnPause = 30 * time.Second // between warnings and errors of one message about one subject

	MessageBurst      = 50 // lines of one message at once
	MessagesPerSecond = 20 // of those that follow

	Subjects = 256 // subjects of one message that are told apart
)

// A Log writes lines to a logger, as often as is allowed.
type Log struct {
	to    *slog.Logger
	clock func() mono.Time

	mu       sync.Mutex // guards what follows
	messages map[string]*message
}

// A message is what is known of the lines with one message.
type message struct {
	all      bucket
	subjects [Subjects]struct {
		about uint64
		bucket
	}
	leftOut int
}

// A bucket of tokens is the moment at which it will be full.
type bucket struct{ fullAt mono.Time }

// has reports whether there is a token, of burst that come back one every pause.
func (b bucket) has(now mono.Time, burst int, pause time.Duration) bool {
	return max(b.fullAt, now).Add(pause) <= now.Add(time.Duration(burst)*pause)
}

func (b *bucket) take(now mono.Time, pause time.Duration) { b.fullAt = max(b.fullAt, now).Add(pause) }

// New returns a Log that writes to a logger. The clock must not go back.
func New(to *slog.Logger, clock func() mono.Time) *Log {
	return &Log{to: to, clock: clock, messages: make(map[string]*message)}
}

// Debug logs a message about a subject, 0 for none, at debug level.
func (l *Log) Debug(about uint64, msg string, args ...any) { l.log(slog.LevelDebug, about, msg, args) }

// Failed logs at debug level that something failed. It allocates nothing when that level isn't logged.
func (l *Log) Failed(what string, err error) {
	if l.to.Enabled(context.Background(), slog.LevelDebug) {
		l.log(slog.LevelDebug, 0, what, []any{"error", err})
	}
}

// Warn logs a message about a subject, 0 for none, as a warning.
func (l *Log) Warn(about uint64, msg string, args ...any) { l.log(slog.LevelWarn, about, msg, args) }

// Error logs a message about a subject, 0 for none, as an error.
func (l *Log) Error(about uint64, msg string, args ...any) { l.log(slog.LevelError, about, msg, args) }

func (l *Log) log(level slog.Level, about uint64, msg string, args []any) {
	if !l.to.Enabled(context.Background(), level) {
		return
	}
	burst, pause := Burst, Pause
	if level >= slog.LevelWarn {
		burst, pause = 1, WarnPause
	}
	leftOut, ok := l.allow(about, msg, burst, pause)
	if !ok {
		return
	}
	if leftOut > 0 {
		args = append(slices.Clip(args), "left_out", leftOut)
	}
	l.to.Log(context.Background(), level, msg, args...)
}

// allow reports whether a line may be written, and how many were left out before it.
func (l *Log) allow(about uint64, msg string, burst int, pause time.Duration) (leftOut int, ok bool) {
	now := l.clock()
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.messages[msg]
	if m == nil {
		m = new(message)
		l.messages[msg] = m
	}
	s := &m.subjects[about%Subjects]
	const refill = time.Second / MessagesPerSecond
	if !m.all.has(now, MessageBurst, refill) || s.about == about && !s.has(now, burst, pause) {
		m.leftOut++
		return 0, false
	}
	if s.about != about {
		s.about, s.fullAt = about, 0
	}
	m.all.take(now, refill)
	s.take(now, pause)
	leftOut, m.leftOut = m.leftOut, 0
	return leftOut, true
}
