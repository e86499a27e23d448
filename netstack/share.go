package netstack

import (
	"sync"
	"sync/atomic"
)

// A share divides what a stack's TCP connections keep to be sent among those that keep the most: the ones whose programs
// wait for room. One that waits alone may have it all, up to its own limit; of a hundred each gets less, which costs no
// speed, for together they keep as many bytes on the way. Connections at rest take no part.
type share struct {
	all, least, most int64 // bytes: together, one at least, one at most

	waiting atomic.Int64 // connections that wait for room
	limit   atomic.Int64 // what one may have now: most, or half of that, and so on

	mu  sync.Mutex // held while limit changes
	set func(limit int)
}

// shares is how many connections may keep all that one may keep alone.
const shares = 16

// leastShare is the least that a connection keeps: a super-packet.
const leastShare = 64 << 10

// init makes a share of what shares connections keep with most each. The limit is most until many wait; set is called
// whenever it changes, one call at a time.
func (s *share) init(most int, set func(limit int)) {
	s.all, s.least, s.most, s.set = shares*int64(most), min(leastShare, int64(most)), int64(most), set
	s.limit.Store(s.most)
}

// wait counts a connection that begins to wait.
func (s *share) wait() {
	if n := s.waiting.Add(1); s.over(n) {
		s.adjust()
	}
}

// done counts one that waits no more.
func (s *share) done() {
	if n := s.waiting.Add(-1); s.under(n) {
		s.adjust()
	}
}

func (s *share) over(n int64) bool { l := s.limit.Load(); return n*l > s.all && l > s.least }

// under leaves a factor of two between narrowing and widening, so that the limit rests while numbers don't.
func (s *share) under(n int64) bool { l := s.limit.Load(); return n*l < s.all/4 && l < s.most }

func (s *share) adjust() {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.limit.Load()
	for {
		// Who changed waiting after this look sees the limit as it is stored here, and calls adjust itself.
		l, n := s.limit.Load(), s.waiting.Load()
		switch {
		case s.over(n):
			s.limit.Store(max(l/2, s.least))
			continue
		case s.under(n):
			s.limit.Store(min(l*2, s.most))
			continue
		case l != before:
			s.set(int(l))
		}
		return
	}
}
