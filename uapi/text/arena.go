package text

import "net/netip"

// An arena allocates values several at a time, as a request of many peers has several optional values for each. It begins
// with one value, so that a small request takes little memory.
type arena[T any] struct {
	free []T
	size int // of the last allocation, in values
}

// arenaMax is how many values are allocated at once, at most.
const arenaMax = 256

// put returns a pointer to a copy of v.
func (a *arena[T]) put(v T) *T {
	if len(a.free) == 0 {
		a.size = min(max(2*a.size, 1), arenaMax)
		a.free = make([]T, a.size)
	}
	p := &a.free[0]
	*p, a.free = v, a.free[1:]
	return p
}

// A prefixArena does the same for lists of prefixes.
type prefixArena struct {
	free []netip.Prefix
	size int // of the last allocation, in prefixes
}

// put returns a copy of list that has no spare capacity, or nil for an empty list.
func (a *prefixArena) put(list []netip.Prefix) []netip.Prefix {
	n := len(list)
	if n == 0 {
		return nil
	}
	if len(a.free) < n {
		a.size = min(max(2*a.size, 4), arenaMax)
		a.free = make([]netip.Prefix, max(a.size, n))
	}
	kept := a.free[:n:n]
	a.free = a.free[n:]
	copy(kept, list)
	return kept
}

// A prefixList collects the prefixes of one list. It grows by pieces, which are put together once: an array that is
// replaced by a larger one again and again would make a long list take three times its size.
type prefixList struct {
	full [][]netip.Prefix // pieces without room
	last []netip.Prefix
	n    int // prefixes in all
}

// pieceMax is the most prefixes in a piece, one megabyte of them.
const pieceMax = 1 << 15

// add appends one prefix.
func (l *prefixList) add(p netip.Prefix) {
	if len(l.last) == cap(l.last) {
		if l.last != nil {
			l.full = append(l.full, l.last)
		}
		l.last = make([]netip.Prefix, 0, min(max(2*cap(l.last), 8), pieceMax))
	}
	l.last = append(l.last, p)
	l.n++
}

// clear empties the list.
func (l *prefixList) clear() {
	if l.full != nil {
		l.full, l.last = nil, nil
	}
	l.last, l.n = l.last[:0], 0
}

// take empties the list, and returns what was in it without spare capacity: from the arena if it is short.
func (l *prefixList) take(a *prefixArena) []netip.Prefix {
	defer l.clear()
	if l.full == nil {
		return a.put(l.last)
	}
	all := make([]netip.Prefix, 0, l.n)
	for _, piece := range l.full {
		all = append(all, piece...)
	}
	return append(all, l.last...)
}
