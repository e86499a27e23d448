// Package receivers is the receiver indices of a device: the table of [throughline/internal/index], the lock of those that
// change it, and the randomness that indices are drawn from. Whitepaper §5.4.2.
//
// Concurrency: all methods may be called from any goroutine; [Table.Lookup] takes no lock.
//
// Limits: those of the table; a device has a few indices for each peer.
package receivers

import (
	"crypto/rand"
	"encoding/binary"
	"sync"

	"throughline/internal/index"
)

// A Table maps receiver indices to what they stand for. The zero Table is empty and ready.
type Table[V any] struct {
	mu    sync.Mutex // guards the writing of table, which is read without it
	table index.Table[V]
}

// Lookup returns what an index stands for, nil if nothing.
func (t *Table[V]) Lookup(i uint32) *V { return t.table.Lookup(i) }

// Len returns how many indices are in use.
func (t *Table[V]) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.table.Len()
}

// Insert gives v a random index, under which Lookup finds it from then on.
func (t *Table[V]) Insert(v *V) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.table.Insert(v, func() uint32 {
		var b [4]byte
		rand.Read(b[:])
		return binary.LittleEndian.Uint32(b[:])
	})
}

// Replace has an index that is in use stand for v. It reports false, and does nothing, if it isn't in use.
func (t *Table[V]) Replace(i uint32, v *V) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.table.Replace(i, v)
}

// Delete deletes an index if what it stands for is meant: it may be another's by now. meant is called at most once, and
// must not use the table.
func (t *Table[V]) Delete(i uint32, meant func(*V) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if v := t.table.Lookup(i); v != nil && meant(v) {
		t.table.Delete(i, v)
	}
}
