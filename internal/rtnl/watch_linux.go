package rtnl

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Watch notifies of what may change routes, and looks routes up. Its methods are safe for concurrent use.
type Watch struct {
	*Conn

	events  *Events
	changed chan struct{}
	closing sync.Once
	closed  chan struct{}
	ended   sync.WaitGroup // the listener
}

const (
	// routing are the groups that are notified of what decides routes in IPv4: links, addresses, routes, rules.
	routing = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV4_RULE

	// settle is how long a change may take: the kernel notifies that a link goes down before it removes its routes, and
	// of the removal of IPv4's it doesn't notify at all.
	settle = 100 * time.Millisecond

	// spacing is added to that between two notifications: together they are a second.
	spacing = time.Second - settle
)

// NewWatch opens a Watch.
func NewWatch() (*Watch, error) {
	c, err := Dial()
	if err != nil {
		return nil, err
	}
	events, err := Listen(routing)
	if err != nil {
		c.Close()
		return nil, err
	}
	w := &Watch{Conn: c, events: events, changed: make(chan struct{}, 1), closed: make(chan struct{})}
	w.ended.Go(func() {
		var head [1]byte // of a notification only that there was one counts
		w.listen(func() error { _, _, err := events.Next(head[:]); return err }, events.Drain)
	})
	return w, nil
}

// Changed returns a channel that receives soon after a change, and at most once a second; it is always the same, and
// closed by Close. One that wasn't received yet stands for all changes until it is.
func (w *Watch) Changed() <-chan struct{} { return w.changed }

// Close ends the Watch: its goroutine has ended when it returns. It may be called more than once.
func (w *Watch) Close() {
	w.closing.Do(func() { close(w.closed) })
	w.events.Close()
	w.Conn.Close()
	w.ended.Wait()
}

// listen sends to changed until Close. next waits for a message and drain throws away what else there is. What comes while
// it pauses isn't read: it stays in the socket's buffer, or is lost, which next reports as well. So a storm costs little,
// and the change that ends it is always notified.
func (w *Watch) listen(next func() error, drain func()) {
	defer close(w.changed)
	for next() == nil && w.pause(settle) {
		drain()
		select {
		case w.changed <- struct{}{}:
		default:
		}
		if !w.pause(spacing) {
			return
		}
	}
}

// pause waits, and reports whether the Watch is still open.
func (w *Watch) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-w.closed:
		return false
	case <-t.C:
		return true
	}
}
