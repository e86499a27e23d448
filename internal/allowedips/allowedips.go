// Package allowedips is the cryptokey routing table: longest-prefix match from an inner address to the peer that may
// use it, read without a lock. Whitepaper §2.
//
// A [Table] is an atomic pointer to a trie that is never changed once published. Any goroutine may look up at any time;
// a reader sees a table as it was before an edit or after it, nothing between. Writers edit a private copy, an [Edit],
// and commit it; the caller sees to it that there is one Edit at a time. The table holds one value for a prefix, and
// knows only which value has a prefix, not which prefixes a value has: the values keep that themselves, or a [ListEdit] for
// them.
//
// The trie is github.com/gaissmai/bart.
//
// Limits: none of its own. How many prefixes there are is for the caller to limit.
package allowedips

import (
	"net/netip"
	"sync/atomic"

	"github.com/gaissmai/bart"
)

// A Table maps prefixes to values, which are pointers to peers. The zero Table is empty and ready. It must not be copied.
type Table[V comparable] struct {
	trie atomic.Pointer[trie[V]] // nil: empty
}

// A cell hides the methods of V from the trie: bart would use V's Clone or Equal.
type cell[V comparable] struct{ v V }

// bart.Fast finds an address in about two thirds of the time of bart.Table. Its nodes are 256 bytes larger: that is
// nothing where all prefixes lie in one block, and 30 to 80 bytes a prefix where they are scattered over all of IPv4.
type trie[V comparable] = bart.Fast[cell[V]]

// Lookup returns the value of the longest prefix that contains a. An IPv4-mapped address is an IPv6 address like any
// other, and a zone is not looked at. It may be called from any goroutine and allocates nothing.
func (t *Table[V]) Lookup(a netip.Addr) (V, bool) {
	p := t.trie.Load()
	if p == nil {
		var none V
		return none, false
	}
	c, ok := p.Lookup(a)
	return c.v, ok
}

// Begin returns an Edit of the table as it is now.
func (t *Table[V]) Begin() *Edit[V] {
	base := t.trie.Load()
	e := &Edit[V]{table: t, base: base, now: base}
	if base == nil {
		e.now, e.private = new(trie[V]), true
	}
	return e
}

// An Edit is a number of changes to a Table that happen at once, when they are committed, or not at all: an Edit that is
// dropped changes nothing. It belongs to one goroutine, and it is over when it is committed.
//
// An Edit begins by copying the paths it changes, which is best for a few prefixes of many, and changes to a private copy
// of the whole, which is best for many.
type Edit[V comparable] struct {
	table   *Table[V]
	base    *trie[V] // what the table held when the Edit began
	now     *trie[V] // with the changes
	private bool     // now shares nothing with base
	steps   int      // the changes made by copying paths
}

// copyAfter is how many entries of the table one change by copying paths is worth: where neighbours are dense, a path's
// last node alone has up to 256, each copied. By copying the whole once about as much was spent as that costs, an Edit
// costs at most about twice the cheaper of the two, without knowing how many changes will come.
const copyAfter = 256

func (e *Edit[V]) open() {
	if e.table == nil {
		panic("allowedips: BUG: an Edit is used after Commit")
	}
}

// step makes e.now ready for one more change, and reports whether it is to be made in place.
func (e *Edit[V]) step() (inPlace bool) {
	if e.private {
		return true
	}
	if e.steps++; e.steps*copyAfter > e.now.Size() {
		e.now, e.private = e.now.Clone(), true
	}
	return e.private
}

// Insert makes v the value of the prefix p, and returns the value that it had before, which may be v itself. p is masked
// to its length; a prefix within the IPv4-mapped addresses stands for the IPv4 prefix in it. An invalid prefix is
// ignored.
func (e *Edit[V]) Insert(p netip.Prefix, v V) (old V, had bool) {
	e.open()
	p = canonical(p)
	c, had := e.now.Get(p)
	if !p.IsValid() || had && c.v == v {
		return c.v, had
	}
	if e.step() {
		e.now.Insert(p, cell[V]{v})
	} else {
		e.now = e.now.InsertPersist(p, cell[V]{v})
	}
	return c.v, had
}

// Delete removes the prefix p if it is v's, and reports whether it was. p is understood as by Insert.
func (e *Edit[V]) Delete(p netip.Prefix, v V) bool {
	e.open()
	p = canonical(p)
	if c, had := e.now.Get(p); !had || c.v != v {
		return false
	}
	if e.step() {
		e.now.Delete(p)
	} else {
		e.now = e.now.DeletePersist(p)
	}
	return true
}

// Commit publishes the changes, all at once, and ends the Edit.
func (e *Edit[V]) Commit() {
	e.open()
	next := e.now
	if next.Size() == 0 {
		next = nil
	}
	if !e.table.trie.CompareAndSwap(e.base, next) {
		panic("allowedips: BUG: two Edits at a time")
	}
	*e = Edit[V]{}
}

// canonical returns p masked, and unmapped where it lies within ::ffff:0:0/96.
func canonical(p netip.Prefix) netip.Prefix {
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked()
}
