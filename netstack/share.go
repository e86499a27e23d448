package netstack

import (
	"sync"
	"sync/atomic"
)

// A share bounds the send buffers of a stack's TCP connections together. It counts the connections whose programs wait for
// space in their buffers, for these are the full ones. One alone may fill its buffer up to its own limit; of a hundred each
// gets less, which costs no speed, for together they have as many bytes in flight. Idle connections don't count.
type share struct {
	all, least, most int64 // bytes: of all connections together, of one at least, of one at most

	waiting atomic.Int64 // connections whose programs wait for space
	limit   atomic.Int64 // bytes that one may buffer now: most, or half of that, and so on

	mu  sync.Mutex // held while limit changes
	set func(limit int)
}

// shares is how many connections may each buffer as much as one alone.
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

// done takes back a call of wait.
func (s *share) done() {
	if n := s.waiting.Add(-1); s.tooFew(n) {
		s.adjust()
	}
}

func (s *share) tooMany(n int64) bool { l := s.limit.Load(); return n*l > s.all && l > s.least }

// tooFew leaves a factor of two between lowering and raising the limit, so that small changes of n don't move it.
func (s *share) tooFew(n int64) bool { l := s.limit.Load(); return n*l < s.all/4 && l < s.most }

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
