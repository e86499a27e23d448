// Package idle keeps the time in which nothing moved: on a connection and the other side of it, or on a UDP session.
//
// A [Clock] and a [Watch] may be used by any number of goroutines; noting that something moved is one atomic store. A Clock
// has no timer of its own: its users look at it when their reads end, or have a Watch look, which has one.
//
// Limits: a limit of 0 is none; a limit is noticed at most 30 seconds late.
package idle

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// WriteTimeout is the least time that the far end of a connection has to take one write, however short the limit is.
const WriteTimeout = time.Minute

// maxTick bounds how late idleness is seen by those that look at a Clock every Tick.
const maxTick = 30 * time.Second

// ErrIdle ends what was idle for its limit.
var ErrIdle = errors.New("idle for too long")

// A Clock measures how long nothing has moved, against a limit.
type Clock struct {
	start time.Time
	limit atomic.Int64 // a time.Duration; 0: none
	last  atomic.Int64 // when something moved, since start
	held  atomic.Int32
}

// New returns a clock that counts from now. Limit 0 stands for none.
func New(limit time.Duration) *Clock {
	c := &Clock{start: time.Now()}
	c.limit.Store(int64(limit))
	return c
}

// Limit returns how long nothing may move; 0: for ever.
func (c *Clock) Limit() time.Duration { return time.Duration(c.limit.Load()) }

// Moved notes that something moved now.
func (c *Clock) Moved() { c.MovedAt(time.Now()) }

// MovedAt is Moved where the time is known.
func (c *Clock) MovedAt(now time.Time) { c.last.Store(int64(now.Sub(c.start))) }

// Deadline returns when the limit will be reached if nothing moves; the zero time without a limit.
func (c *Clock) Deadline() time.Time {
	limit := c.Limit()
	if limit == 0 {
		return time.Time{}
	}
	return c.start.Add(time.Duration(c.last.Load()) + limit)
}

// Idle returns for how long nothing has moved.
func (c *Clock) Idle() time.Duration { return time.Since(c.start) - time.Duration(c.last.Load()) }

// Expired reports whether nothing has moved for the limit.
func (c *Clock) Expired() bool {
	d := c.Deadline()
	return !d.IsZero() && !time.Now().Before(d)
}

// Tick returns how often to look whether a clock has expired: a few times in each limit. 0 without a limit.
func (c *Clock) Tick() time.Duration { return min(c.Limit()/4, maxTick) }

// WriteDeadline returns until when a write that begins now may take; the zero time without a limit.
func (c *Clock) WriteDeadline(now time.Time) time.Time {
	limit := c.Limit()
	if limit == 0 {
		return time.Time{}
	}
	return now.Add(max(limit, WriteTimeout))
}

// Hold keeps a Watch from seeing idleness until Release: something is under way that has a deadline of its own.
func (c *Clock) Hold() { c.held.Add(1) }

// Release ends a Hold, and notes that something moved.
func (c *Clock) Release() {
	c.Moved()
	c.held.Add(-1)
}

// A Watch calls a function once its clock has expired.
type Watch struct {
	clock   *Clock
	expired func()
	mu      sync.Mutex
	timer   *time.Timer
	ended   bool
}

// Watch has expired called once, in a goroutine of its own, when the clock has expired and isn't held.
func (c *Clock) Watch(expired func()) *Watch {
	w := &Watch{clock: c, expired: expired}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(c.Limit(), w.look)
	return w
}

// look runs when the clock may have expired.
func (w *Watch) look() {
	w.mu.Lock()
	limit := w.clock.Limit()
	left := time.Until(w.clock.Deadline())
	if w.clock.held.Load() > 0 {
		left = limit
	}
	switch {
	case w.ended || limit == 0:
	case left > 0:
		w.timer.Reset(left)
	default:
		w.ended = true
		defer w.expired()
	}
	w.mu.Unlock()
}

// Shorten lets nothing move for no longer than this from now on, if the limit isn't shorter already.
func (w *Watch) Shorten(limit time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if old := w.clock.Limit(); w.ended || old != 0 && old <= limit {
		return
	}
	w.clock.Moved()
	w.clock.limit.Store(int64(limit))
	w.timer.Reset(limit)
}

// Stop ends the watch. The function isn't called any more, but may be running.
func (w *Watch) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.timer.Stop()
}
