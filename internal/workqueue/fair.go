package workqueue

import "hash/maphash"

// fairBuckets is how many sources a fair queue distinguishes: those that share a bucket wait for each other.
const fairBuckets = 8192

// A fair queue serves sources in turn, a message each: stochastic fairness queueing (McKenney, 1990). When it is full the
// source with the most messages gives way, its oldest, or the new one where nobody has two more: so none can keep another's
// only message out while it has several. Its memory is allocated by the first push.
type fair[M any] struct {
	seed    maphash.Seed // sources can't be chosen so that they share another's bucket
	slots   []slot[M]
	free    int // the first free slot; -1: none
	buckets []bucket
	last    int // of the buckets that have messages, which are a ring by next; -1: none has
	n       int
	most    int   // the messages of the fullest bucket
	counts  []int // how many buckets have so many messages, but for none
}

// A slot is a place for a message.
type slot[M any] struct {
	message M
	next    int // in its bucket, or among the free; -1: none
}

// A bucket is the messages of one source, or of several.
type bucket struct {
	head, tail int // slots
	n          int
	next       int // the bucket whose turn is after it
}

// push queues a message of a source. It reports false when a message gave way: an older one, or this.
func (f *fair[M]) push(m M, source uint64, capacity int) bool {
	if f.slots == nil {
		f.seed, f.last = maphash.MakeSeed(), -1
		f.slots, f.buckets = make([]slot[M], capacity), make([]bucket, fairBuckets)
		for i := range f.slots {
			f.slots[i].next = i + 1
		}
		f.slots[capacity-1].next = -1
		f.counts = make([]int, capacity+1)
	}
	at := int(maphash.Comparable(f.seed, source) % fairBuckets)
	b, kept := &f.buckets[at], true
	if f.n == len(f.slots) {
		if f.most <= b.n+1 {
			return false
		}
		kept = false
		fullest := f.buckets[f.last].next
		for f.buckets[fullest].n < f.most {
			fullest = f.buckets[fullest].next
		}
		f.shift(&f.buckets[fullest]) // which isn't its last
	}
	i := f.free
	s := &f.slots[i]
	f.free = s.next
	s.message, s.next = m, -1
	switch {
	case b.n > 0:
		f.slots[b.tail].next = i
	case f.last < 0:
		b.head, b.next, f.last = i, at, at
	default: // its turn is after the last one's
		b.head, b.next, f.buckets[f.last].next, f.last = i, f.buckets[f.last].next, at, at
	}
	b.tail = i
	f.count(b, 1)
	return kept
}

// pop takes the oldest message of the source whose turn it is. There must be one.
func (f *fair[M]) pop() M {
	at := f.buckets[f.last].next
	b := &f.buckets[at]
	m := f.shift(b)
	switch {
	case b.n > 0:
		f.last = at // to the end
	case at == f.last:
		f.last = -1
	default:
		f.buckets[f.last].next = b.next
	}
	return m
}

// shift takes the oldest message of a bucket.
func (f *fair[M]) shift(b *bucket) (m M) {
	i := b.head
	s := &f.slots[i]
	m, b.head = s.message, s.next
	*s = slot[M]{next: f.free}
	f.free = i
	f.count(b, -1)
	return m
}

// count counts a message that came or went.
func (f *fair[M]) count(b *bucket, change int) {
	f.counts[b.n]--
	b.n += change
	f.n += change
	f.counts[b.n]++
	f.most = max(f.most, b.n)
	for f.most > 0 && f.counts[f.most] == 0 {
		f.most--
	}
}
