// Package index is the receiver-index table: from the 32-bit number that a peer puts into every message to the session or
// handshake that it stands for, read without a lock. Whitepaper §5.4.2, §5.4.3.
//
// Any goroutine may look up at any time. What changes the table is called by one goroutine at a time; the caller holds
// the lock. Indices are random: an attacker can neither guess which are in use nor choose one, and so can't make searches
// slow. A table has at most 2³¹ entries; a device has a few for each peer.
package index

import (
	"math/bits"
	"sync/atomic"
)

// A Table maps indices to values. The zero Table is empty, ready, and holds no memory. It must not be copied.
type Table[V any] struct {
	slots atomic.Pointer[[]slot[V]] // a power of two of them; nil: empty
	inUse int                       // the indices in use
	keys  int                       // the slots with a key, of an index in use or a deleted one
}

// A slot's key is written once, from 0: a reader that has seen the key may load the value without checking the key again.
// When the index is deleted the value becomes nil and the key stays; the slot is freed when the table is rebuilt, which
// readers see whole or not at all.
type slot[V any] struct {
	key   atomic.Uint32     // 0: free, and where a search ends
	value atomic.Pointer[V] // nil: deleted
}

// Bounds of the table's size. Searches stay short while five slots of eight at most have a key. A rebuilt table has
// between two and four slots for each entry, so the next rebuild comes after at least an eighth of its slots in changes:
// on average a change costs rebuilding about eight slots.
const (
	minSlots = 8
	perEntry = 2
	sparse   = 8 // more slots for each entry than this, and the table is rebuilt, smaller
)

func tooFull(keys, slots int) bool { return keys > slots/2+slots/8 }

// home is where the search for i begins in a table of n slots. The multiplication spreads indices that have some bits in
// common.
func home(i uint32, n int) int {
	return int(i * 0x9e3779b1 >> (32 - uint(bits.TrailingZeros32(uint32(n)))))
}

// find returns the slot that holds the key i, or else the free one where the search ended.
func find[V any](slots []slot[V], i uint32) (s *slot[V], found bool) {
	for h := home(i, len(slots)); ; h++ {
		s = &slots[h&(len(slots)-1)]
		switch s.key.Load() {
		case 0: // first, for no index is 0
			return s, false
		case i:
			return s, true
		}
	}
}

// Lookup returns the value of index i, or nil. It may be called from any goroutine and allocates nothing.
func (t *Table[V]) Lookup(i uint32) *V {
	p := t.slots.Load()
	if p == nil {
		return nil
	}
	s, found := find(*p, i)
	if !found {
		return nil // not the slot's value: another index may be stored meanwhile
	}
	return s.value.Load()
}

// Len returns how many indices are in use. Like what changes the table, it is called by one goroutine at a time.
func (t *Table[V]) Len() int { return t.inUse }

// maxDraws bounds the search for an unused index. Even with half of all indices in use, so many failures in a row don't
// happen unless the source of randomness is broken.
const maxDraws = 1 << 10

// Insert gives v, which is not nil, an index that is random, not zero and not in use, and returns it. From then on Lookup
// finds it.
func (t *Table[V]) Insert(v *V, random func() uint32) uint32 {
	if v == nil {
		panic("index: BUG: Insert of nil")
	}
	for range maxDraws {
		i := random()
		if i == 0 || t.Lookup(i) != nil {
			continue
		}
		t.put(i, v)
		return i
	}
	panic("index: BUG: the source of randomness repeats itself")
}

func (t *Table[V]) put(i uint32, v *V) {
	p := t.slots.Load()
	if p == nil || tooFull(t.keys+1, len(*p)) {
		t.rebuild(t.inUse + 1)
		p = t.slots.Load()
	}
	s, found := find(*p, i)
	s.value.Store(v)
	if !found { // else the index comes back to the slot it was deleted from
		s.key.Store(i) // after the value, which readers take once they see the key
		t.keys++
	}
	t.inUse++
}

// Replace gives index i, if it is in use, to v, and reports whether it was. The index is never without a value.
func (t *Table[V]) Replace(i uint32, v *V) bool {
	if v == nil {
		panic("index: BUG: Replace by nil")
	}
	s := t.slotOf(i)
	if s == nil {
		return false
	}
	s.value.Store(v)
	return true
}

// Delete frees index i if it still belongs to v, and reports whether it did.
func (t *Table[V]) Delete(i uint32, v *V) bool {
	s := t.slotOf(i)
	if s == nil || s.value.Load() != v {
		return false
	}
	s.value.Store(nil)
	t.inUse--
	if n := len(*t.slots.Load()); t.inUse == 0 || n > minSlots && n > t.inUse*sparse {
		t.rebuild(t.inUse)
	}
	return true
}

// slotOf returns the slot of i, or nil when i is not in use.
func (t *Table[V]) slotOf(i uint32) *slot[V] {
	p := t.slots.Load()
	if p == nil {
		return nil
	}
	s, found := find(*p, i)
	if !found || s.value.Load() == nil {
		return nil
	}
	return s
}

// rebuild publishes a table with the entries of the present one and room for n in all. Readers that still search the
// old one find what was there when they began.
func (t *Table[V]) rebuild(n int) {
	old := t.slots.Load()
	t.keys = t.inUse
	if n == 0 {
		t.slots.Store(nil)
		return
	}
	size := max(minSlots, 1<<bits.Len(uint(n*perEntry-1)))
	slots := make([]slot[V], size)
	if old != nil {
		for j := range *old {
			s := &(*old)[j]
			if v := s.value.Load(); v != nil {
				to, _ := find(slots, s.key.Load())
				to.value.Store(v)
				to.key.Store(s.key.Load())
			}
		}
	}
	t.slots.Store(&slots)
}
