// Package deadline is the deadline of a socket: a moment that can be changed while calls wait for it.
//
// All of it is safe for concurrent use. There is no limit to how many calls wait; a Deadline has one timer at most.
package deadline

import (
	"context"
	"sync"
	"time"
)

// A Deadline is the deadline of a socket's reading or writing. The zero Deadline never passes.
type Deadline struct {
	mu    sync.Mutex // guards what follows
	timer *time.Timer
	gone  chan struct{} // closed when the deadline has passed; nil until somebody waits for it or sets it
	past  bool          // gone is closed
	sets  uint64        // counts the calls of Set, so that a timer that couldn't be stopped any more does nothing
}

// Passed returns a channel that is closed once the deadline has passed.
func (d *Deadline) Passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gone == nil {
		d.gone = make(chan struct{})
	}
	return d.gone
}

// Set changes the deadline; the zero time means none. It also applies to calls that are waiting already.
func (d *Deadline) Set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sets++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if d.gone == nil || d.past {
		d.gone, d.past = make(chan struct{}), false
	}
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		close(d.gone)
		d.past = true
		return
	}
	this := d.sets
	d.timer = time.AfterFunc(left, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.sets == this {
			close(d.gone)
			d.past = true
		}
	})
}

// WithContext makes the deadline pass when ctx ends. The function it returns undoes that.
func (d *Deadline) WithContext(ctx context.Context) (undo func() bool) {
	if at, ok := ctx.Deadline(); ok {
		d.Set(at)
	}
	return context.AfterFunc(ctx, func() { d.Set(time.Unix(1, 0)) })
}
