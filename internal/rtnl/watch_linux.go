package rtnl

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Watch tells when routes may have changed, and asks for them. Its methods are safe for concurrent use.
type Watch struct {
	*Conn

	events  *Events
	changed chan struct{}
	closing sync.Once
	closed  chan struct{}
	ended   sync.WaitGroup // the listener
}

const (
	// routing are the groups that hear of what decides routes in IPv4: links, addresses, routes, rules.
	routing = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV4_RULE

	// settle is how long a change may take: the kernel tells that a link goes down before it takes its routes away, and
	// of IPv4's it doesn't tell at all.
	settle = 100 * time.Millisecond

	// rest is added to that between two tellings: together they are a second.
	rest = time.Second - settle
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
		var head [1]byte // all that is told of is a change
		w.listen(func() error { _, _, err := events.Next(head[:]); return err }, events.Drain)
	})
	return w, nil
}

// Changed returns a channel that receives soon after a change, and at most once a second; it is always the same, and
// closed by Close. What nobody has received yet stands for all changes until then.
func (w *Watch) Changed() <-chan struct{} { return w.changed }

// Close ends the Watch: its goroutine has ended when it returns. It may be called more than once.
func (w *Watch) Close() {
	w.closing.Do(func() { close(w.closed) })
	w.events.Close()
	w.Conn.Close()
	w.ended.Wait()
}

// listen tells of changes until Close. next waits for a message and drain throws away what else there is. What comes while
// it pauses isn't read: it waits in the socket's buffer, or is lost, which next says as well. So a storm costs little, and
// its end is always told.
func (w *Watch) listen(next func() error, drain func()) {
	defer close(w.changed)
	for next() == nil && w.pause(settle) {
		drain()
		select {
		case w.changed <- struct{}{}:
		default:
		}
		if !w.pause(rest) {
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
