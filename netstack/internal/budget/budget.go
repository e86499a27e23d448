// Package budget bounds the memory of many receive buffers together, and shares it fairly.
//
// All of it is safe for concurrent use, without locks: what is reserved may pass its bound by the size of a buffer for the
// moment of a call. Nothing is allocated.
package budget

import "sync/atomic"

// A Budget bounds the memory of a stack's receive buffers together. Each open connection and UDP socket reserves the size of
// its buffer, of which half is the window that gVisor advertises and the rest is overhead, so that the sum of what is
// reserved bounds what peers can make the stack hold, whether or not programs read it.
//
// A connection begins small, and its buffer grows with what its program has read: beyond its fair share, the total by the
// number of buffers, only while the sum is below the total. When it isn't, a connection that has more than its fair share,
// and reads, gives half of the surplus back; one that has less may still grow to its fair share, until half as much again as the
// total is reserved. From there on, each has the least size.
type Budget struct {
	// Total is shared, in bytes; Least is the size of a buffer at least. They are set before the first call.
	Total, Least int64

	reserved atomic.Int64  // the sum of the sizes
	buffers  atomic.Int64  // how many there are
	refused  atomic.Uint64 // how many requests weren't granted in full
}

// Fair returns the size that each buffer may have whatever the others have.
func (b *Budget) Fair() int64 { return max(b.Total/max(b.buffers.Load(), 1), b.Least) }

// Reserved returns the sum of the sizes, in bytes.
func (b *Budget) Reserved() int64 { return b.reserved.Load() }

// Buffers returns how many are open.
func (b *Budget) Buffers() int { return int(b.buffers.Load()) }

// Shortened returns how many requests weren't granted in full.
func (b *Budget) Shortened() uint64 { return b.refused.Load() }

// Short reports whether no more than fair shares can be had.
func (b *Budget) Short() bool { return b.reserved.Load() > b.Total }

// most is what may be reserved beyond the least size of each.
func (b *Budget) most() int64 { return b.Total + b.Total/2 }

// Open counts a buffer, and returns its size: that which is asked for, or less if there are many. The first ones together get
// no more than half of the total.
func (b *Budget) Open(want int64) int64 {
	b.buffers.Add(1)
	size := min(want, max(b.Fair()/2, b.Least))
	if b.reserved.Add(size) > b.most() {
		b.reserved.Add(min(size, b.Least) - size)
		size = min(size, b.Least)
	}
	if size < want {
		b.refused.Add(1)
	}
	return size
}

// Grow returns the size that a buffer may have that has size bytes and asks for more.
func (b *Budget) Grow(size, want int64) int64 {
	if b.reserved.Add(want-size) <= b.Total {
		return want
	}
	b.reserved.Add(size - want)
	got := max(size, min(want, b.Fair()))
	if b.reserved.Add(got-size) > b.most() {
		b.reserved.Add(size - got)
		got = size
	}
	if got < want {
		b.refused.Add(1)
	}
	return got
}

// Shrink returns the size that a buffer keeps when the budget is short: half of what it has more than its fair share goes.
func (b *Budget) Shrink(size int64) int64 {
	fair := b.Fair()
	if size <= fair {
		return size
	}
	keep := max(fair, size-(size-fair+1)/2)
	if size-keep < b.Least { // so that it ends
		keep = fair
	}
	b.reserved.Add(keep - size)
	return keep
}

// Close takes back what a buffer has reserved.
func (b *Budget) Close(size int64) {
	b.reserved.Add(-size)
	b.buffers.Add(-1)
}
