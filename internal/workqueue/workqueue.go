// Package workqueue is a queue for a few workers: of messages that came from outside, and of items of ours for which
// something is to be done.
//
// It is generic over both and knows nothing of handshakes or peers. Messages come from anybody, so they wait in two bounded
// queues, those that come first and the others, in each of which one source can't keep out another's. Items are our own:
// each is in the list once at most, with a bit for each thing that is to be done for it, so that the list needs no bound.
//
// Concurrency: all methods may be called from any goroutine, and none but [Queue.Serve] ever waits. Serve is the loop of
// one worker; the caller starts as many as it wants. An item may be added again, and served by another worker, while one
// serves it: an item needs a lock of its own if that matters.
//
// Ownership: messages are values, copied in and out. An item embeds a [Node], which holds its place in the list, so that
// adding it allocates nothing. The queue keeps no reference to an item that was taken.
//
// Limits: the three take turns where several have something, so neither a flood of messages nor many items can starve
// the others. Messages are served in the order in which they came from each source, and sources in turn; of those that don't
// come first several at once when many wait. Items are served in the order in which they were first added. When Serve
// ends, what waits stays in the queue.
package workqueue

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// A Handler does the work. Its methods are called by any number of workers at once.
type Handler[M, T any] interface {
	// HandleMessages handles messages, at least one, which are borrowed until it returns.
	HandleMessages(ms []M)

	// HandleItem does for an item what was asked for since it was last taken.
	HandleItem(item T, bits uint32)
}

// A Queue holds messages M and items T. Make one with [New].
type Queue[M, T any] struct {
	capacity int
	batch    int
	ready    chan struct{} // holds one value when something waits
	waiting  atomic.Int64  // how many messages; written under mu

	mu         sync.Mutex // guards what follows
	first      fair[M]
	others     fair[M]
	head, tail *Node[T]
	turn       int // which of the three a worker looks at first
}

// A Node is an item's place in a queue, to be embedded in the item. It must be given its item by Init before it is
// added, and must not be copied.
type Node[T any] struct {
	item T
	bits atomic.Uint32 // what is to be done; not 0: the item is in the list, or about to be
	next *Node[T]      // guarded by Queue.mu
}

// Init sets the item that the node stands for, mostly a pointer to what the node is embedded in. It is called once.
func (n *Node[T]) Init(item T) { n.item = item }

// New returns an empty queue with room for capacity messages of each kind. A handler is given batch of them at most at once.
func New[M, T any](capacity, batch int) *Queue[M, T] {
	return &Queue[M, T]{capacity: capacity, batch: batch, ready: make(chan struct{}, 1)}
}

// Post queues a message of a source, among those that come first or the others. It reports false when a message was dropped
// for it: when there is no room, the oldest of the source with the most messages gives way, or this one where no source
// has two more than its own.
func (q *Queue[M, T]) Post(m *M, source uint64, first bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	f := &q.others
	if first {
		f = &q.first
	}
	kept := f.push(*m, source, q.capacity)
	q.waiting.Store(int64(q.first.n + q.others.n))
	q.signal()
	return kept
}

// Messages returns how many messages wait, of either kind.
func (q *Queue[M, T]) Messages() int { return int(q.waiting.Load()) }

// Add asks for something to be done for an item: bits, not 0. Each bit reaches a worker once after it was added; a bit
// that is added again before it was taken counts once.
func (q *Queue[M, T]) Add(n *Node[T], bits uint32) {
	if bits == 0 {
		panic("workqueue: BUG: an item was added with nothing to do")
	}
	if n.bits.Or(bits) != 0 {
		return // it is in the list, or will be in a moment
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.tail == nil {
		q.head = n
	} else {
		q.tail.next = n
	}
	q.tail = n
	q.signal()
}

// Serve handles messages and items until done is closed, as one worker.
func (q *Queue[M, T]) Serve(done <-chan struct{}, h Handler[M, T]) {
	ms := make([]M, q.batch) // one for all
	for {
		select {
		case <-q.ready:
			n, item, bits := q.take(ms)
			if n > 0 {
				h.HandleMessages(ms[:n])
				clear(ms[:n])
			} else if item != nil {
				h.HandleItem(item.item, bits)
			}
		case <-done:
			return
		}
		runtime.Gosched() // a handler takes long: other goroutines of this processor run in between
	}
}

// signal says that something waits. The lock is held.
func (q *Queue[M, T]) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take takes what is next: n messages, or else an item and what is to be done for it; none when nothing waits.
func (q *Queue[M, T]) take(ms []M) (n int, item *Node[T], bits uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for tries := 0; tries < 3 && n == 0 && item == nil; tries++ {
		q.turn = (q.turn + 1) % 3
		switch {
		case q.turn == 0 && q.first.n > 0:
			ms[0], n = q.first.pop(), 1
		case q.turn == 1 && q.head != nil:
			item = q.head
			if q.head = item.next; q.head == nil {
				q.tail = nil
			}
			item.next = nil
			// From here on an Add puts it into the list again, which it can't before the lock is free.
			bits = item.bits.Swap(0)
		case q.turn == 2 && q.others.n > 0:
			for end := min(len(ms), 1+q.others.n/8); n < end; n++ { // one, and the more wait the more: other workers are to find some
				ms[n] = q.others.pop()
			}
		}
	}
	q.waiting.Store(int64(q.first.n + q.others.n))
	if q.first.n > 0 || q.head != nil || q.others.n > 0 {
		q.signal() // for another worker
	}
	return n, item, bits
}
