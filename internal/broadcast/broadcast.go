// Package broadcast publishes events to any number of subscribers, without ever waiting for one of them.
//
// Concurrency: all methods of a [Topic] and a [Subscription] are safe for concurrent use. Publish takes no lock and
// allocates nothing while nobody has subscribed, so that a packet path may call it; with subscribers it takes the topic's
// lock for a moment.
//
// Overflow: each subscription holds a bounded number of events. One that is full loses the newest, and counts it.
package broadcast

import (
	"sync"
	"sync/atomic"
)

// A Topic is where events of type E are published. The zero Topic has no subscribers.
type Topic[E any] struct {
	subscribers atomic.Int32 // len(open), for Publish to read without the lock

	mu     sync.Mutex // guards what follows, and sending on the subscriptions' channels
	open   map[*Subscription[E]]struct{}
	closed bool
}

// A Subscription receives the events published since it was made.
type Subscription[E any] struct {
	topic  *Topic[E]
	events chan E
	lost   atomic.Uint64
}

// Subscribe returns a subscription that holds at most size events, one at least. After the topic was closed its channel
// is closed from the beginning.
func (t *Topic[E]) Subscribe(size int) *Subscription[E] {
	s := &Subscription[E]{topic: t, events: make(chan E, max(size, 1))}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		close(s.events)
		return s
	}
	if t.open == nil {
		t.open = make(map[*Subscription[E]]struct{})
	}
	t.open[s] = struct{}{}
	t.subscribers.Store(int32(len(t.open)))
	return s
}

// Publish gives the event to every subscription that has room for it. It never waits.
func (t *Topic[E]) Publish(event E) {
	if t.subscribers.Load() == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for s := range t.open {
		select {
		case s.events <- event:
		default:
			s.lost.Add(1)
		}
	}
}

// Close closes every subscription's channel, behind what it holds. It may be called more than once; what is published
// afterwards is lost.
func (t *Topic[E]) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for s := range t.open {
		close(s.events)
	}
	t.open = nil
	t.subscribers.Store(0)
}

// Events returns the channel of the events, always the same. It is closed when the subscription or its topic is.
func (s *Subscription[E]) Events() <-chan E { return s.events }

// Lost returns how many events were lost because the subscription was full.
func (s *Subscription[E]) Lost() uint64 { return s.lost.Load() }

// Close ends the subscription and closes its channel, behind what it holds. It may be called more than once.
func (s *Subscription[E]) Close() {
	t := s.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.open[s]; ok {
		delete(t.open, s)
		t.subscribers.Store(int32(len(t.open)))
		close(s.events)
	}
}
