package text

import "net/netip"

// A slab hands out pointers to values that are allocated some at a time: a request of many peers has several optional
// values for each. It begins small, so that a small request stays small.
type slab[T any] struct {
	free []T
	size int
}

const slabMax = 256

func (s *slab[T]) put(v T) *T {
	if len(s.free) == 0 {
		s.size = min(max(2*s.size, 1), slabMax)
		s.free = make([]T, s.size)
	}
	p := &s.free[0]
	*p, s.free = v, s.free[1:]
	return p
}

// A prefixSlab does the same for lists of prefixes.
type prefixSlab struct {
	free []netip.Prefix
	size int
}

// put returns a copy of list with no room behind it; nil for none.
func (s *prefixSlab) put(list []netip.Prefix) []netip.Prefix {
	n := len(list)
	if n == 0 {
		return nil
	}
	if len(s.free) < n {
		s.size = min(max(2*s.size, 4), slabMax)
		s.free = make([]netip.Prefix, max(s.size, n))
	}
	kept := s.free[:n:n]
	s.free = s.free[n:]
	copy(kept, list)
	return kept
}
