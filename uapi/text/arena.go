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
