// Package workqueue is a queue for a few workers: of messages that came from outside, and of items of ours for which
// something is to be done.
//
// It is generic over both and knows nothing of handshakes or peers. Messages come from anybody, so they wait in a bounded
// queue, which refuses them when it is full. Items are our own: each is in the list once at most, with a bit for each
// thing that is to be done for it, so that the list needs no bound.
//
// Concurrency: all methods may be called from any goroutine, and none but [Queue.Serve] ever waits. Serve is the loop of
// one worker; the caller starts as many as it wants. An item may be added again, and served by another worker, while one
// serves it: an item needs a lock of its own if that matters.
//
// Ownership: messages are values, copied in and out. An item embeds a [Node], which holds its place in the list, so that
// adding it allocates nothing. The queue keeps no reference to an item that was taken.
//
// Limits: messages are served in the order in which they came, items in the order in which they were first added. Between
// the two a worker chooses by chance when both wait, so neither a flood of messages nor many items can starve the other.
// When Serve ends, what waits stays in the queue.
package workqueue

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// A Handler does the work. Its methods are called by any number of workers at once.
type Handler[M, T any] interface {
	// HandleMessage handles one message, which is borrowed until it returns.
	HandleMessage(m *M)

	// HandleItem does for an item what was asked for since it was last taken.
	HandleItem(item T, bits uint32)
}

// A Queue holds messages M and items T. Make one with [New].
type Queue[M, T any] struct {
	messages chan M
	ready    chan struct{} // holds one value when the list isn't empty

	mu         sync.Mutex // guards the list
	head, tail *Node[T]
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

// New returns an empty queue with room for capacity messages.
func New[M, T any](capacity int) *Queue[M, T] {
	return &Queue[M, T]{messages: make(chan M, capacity), ready: make(chan struct{}, 1)}
}

// Post queues a message. It reports false, and drops it, when the queue is full.
func (q *Queue[M, T]) Post(m M) bool {
	select {
	case q.messages <- m:
		return true
	default:
		return false
	}
}

// Messages returns how many messages wait.
func (q *Queue[M, T]) Messages() int { return len(q.messages) }

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
	var m M // one for all, since a handler's argument is on the heap
	for {
		select { // among those that are ready it chooses by chance
		case m = <-q.messages:
			h.HandleMessage(&m)
		case <-q.ready:
			if n, bits := q.take(); n != nil {
				h.HandleItem(n.item, bits)
			}
		case <-done:
			return
		}
		runtime.Gosched() // a handler takes long: other goroutines of this processor run in between
	}
}

// signal says that the list isn't empty. The lock is held.
func (q *Queue[M, T]) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take takes the first item off the list, and what is to be done for it; nil when the list is empty.
func (q *Queue[M, T]) take() (*Node[T], uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.head
	if n == nil {
		return nil, 0
	}
	if q.head = n.next; q.head == nil {
		q.tail = nil
	} else {
		q.signal() // for another worker
	}
	n.next = nil
	// From here on an Add puts it into the list again, which it can't before the lock is free.
	return n, n.bits.Swap(0)
}
