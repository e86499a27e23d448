package allowedips

import (
	"net/netip"
	"slices"
)

// A ListEdit is an [Edit] that keeps the list of each value's prefixes too. Like an Edit it belongs to one goroutine. The
// lists change as it goes on, so it has to be committed.
type ListEdit[V comparable] struct {
	edit  *Edit[V]
	list  func(V) *[]netip.Prefix
	stale map[V]map[netip.Prefix]bool // prefixes still in a value's list, though no longer its own
}

// BeginLists returns a ListEdit of the table as it is now. list returns where the list of a value is kept.
func (t *Table[V]) BeginLists(list func(V) *[]netip.Prefix) *ListEdit[V] {
	return &ListEdit[V]{edit: t.Begin(), list: list, stale: make(map[V]map[netip.Prefix]bool)}
}

// Insert gives a prefix to v, which takes it from the value that had it.
func (l *ListEdit[V]) Insert(p netip.Prefix, v V) {
	old, had := l.edit.Insert(p, v)
	if had && old == v {
		return
	}
	if had {
		l.markStale(p, old)
	}
	if l.stale[v][p] {
		delete(l.stale[v], p) // it is still in the list
	} else {
		list := l.list(v)
		*list = append(*list, p)
	}
}

// Delete takes a prefix from v, if v has it.
func (l *ListEdit[V]) Delete(p netip.Prefix, v V) {
	if l.edit.Delete(p, v) {
		l.markStale(p, v)
	}
}

// DeleteAll takes all prefixes from v.
func (l *ListEdit[V]) DeleteAll(v V) {
	list := l.list(v)
	for _, p := range *list {
		l.edit.Delete(p, v)
	}
	*list = nil
	delete(l.stale, v)
}

// Commit makes the changes, all at once, and the lists what they are to be.
func (l *ListEdit[V]) Commit() {
	for v, stale := range l.stale {
		list := l.list(v)
		*list = slices.DeleteFunc(*list, func(p netip.Prefix) bool { return stale[p] })
	}
	l.edit.Commit()
}

func (l *ListEdit[V]) markStale(p netip.Prefix, v V) {
	if l.stale[v] == nil {
		l.stale[v] = make(map[netip.Prefix]bool)
	}
	l.stale[v][p] = true
}
