package netstack

import (
	"sync"
	"sync/atomic"
)

// A share bounds the memory of the send buffers of a stack's TCP connections. It counts the connections whose programs wait
// for space in their buffers, as those buffers are full. One such connection may fill its buffer up to the limit of each;
// with a hundred of them, each gets less. That costs no speed, as together they have enough bytes in flight. Idle connections
// don't count.
type share struct {
	all, least, most int64 // in bytes: for all connections together, and for one at least and at most

	waiting atomic.Int64 // connections whose programs wait for space
	limit   atomic.Int64 // how many bytes one may buffer now: most, or half of that, or a quarter, and so on

	mu  sync.Mutex // held while limit changes
	set func(limit int)
}

// shares is how many full connections may each buffer as much as one alone.
const shares = 16

// leastShare is what a connection may always buffer, in bytes: a super-packet.
const leastShare = 64 << 10

// init sets the limit to most, in bytes, where it stays until more than shares connections wait. set is called whenever it
// changes, one call at a time.
func (s *share) init(most int, set func(limit int)) {
	s.all, s.least, s.most, s.set = shares*int64(most), min(leastShare, int64(most)), int64(most), set
	s.limit.Store(s.most)
}

// wait counts a connection whose program begins to wait.
func (s *share) wait() {
	if n := s.waiting.Add(1); s.tooMany(n) {
		s.adjust()
	}
}

// done ends what a call of wait began.
func (s *share) done() {
	if n := s.waiting.Add(-1); s.tooFew(n) {
		s.adjust()
	}
}

// tooMany reports whether n connections that wait could buffer more than all, so that the limit must be lowered.
func (s *share) tooMany(n int64) bool { l := s.limit.Load(); return n*l > s.all && l > s.least }

// tooFew reports whether the limit can be raised. There is a factor of two between lowering and raising it, so that small
// changes of n don't change it.
func (s *share) tooFew(n int64) bool { l := s.limit.Load(); return n*l < s.all/4 && l < s.most }

// adjust changes the limit to fit the number of connections that wait.
func (s *share) adjust() {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.limit.Load()
	for {
		// A goroutine that changes waiting after this look sees the limit as it is stored here, and calls adjust itself.
		l, n := s.limit.Load(), s.waiting.Load()
		switch {
		case s.tooMany(n):
			s.limit.Store(max(l/2, s.least))
			continue
		case s.tooFew(n):
			s.limit.Store(min(l*2, s.most))
			continue
		case l != before:
			s.set(int(l))
		}
		return
	}
}
