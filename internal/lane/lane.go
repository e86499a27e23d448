// Package lane is the concurrency of the packet path: batches are taken from a source one by one, worked on by as many
// goroutines as it is worth waking, and emitted to a sink in the order in which they were taken.
//
// It is generic over its batch and knows nothing of packets, nor of other lanes. A batch is taken and worked on by one
// goroutine, and emitted by that or another; the lane's lock orders the two, so that a batch needs no lock of its own.
//
// Concurrency: a goroutine that runs the three steps is a worker. The goroutine that calls [Lane.Run] is the first;
// another is started when the source is known to hold more, the last batch was large, and no worker is parked. Run waits
// for all of them. The right to call Take is the read side; one worker at a time has it.
//
// Ownership: the lane owns its batches. A step borrows one until it returns.
//
// The states of a slot of the ring, and the owner of its batch:
//
//	+------> free            nobody; the slots behind those in flight
//	|          |  a worker with the read side takes the first of them
//	|          v
//	|    being filled        that worker, in Take
//	|          |  Take returned: the slot counts as in flight
//	|          v
//	|      in flight         that worker, in Work; other slots are worked on meanwhile
//	|          |  Work returned
//	|          v
//	|        done            the lane: the slot waits until it is at the head of the ring
//	|          |  every earlier batch was emitted
//	|          v
//	|    being emitted       the one worker that emits, which may be another
//	|          |  Emit returned: the head moves on
//	+----------+
//
// At most one slot is being filled and at most one being emitted, at the two ends of those in flight. When Take returns an
// error its slot stays free, and those in flight are emitted before the lane ends.
//
// Limits: at most ring batches are in flight, taken and not yet emitted. While the ring is full nothing is taken; that is
// the backpressure. To end a lane, close its source: a Take that waits must then return an error.
package lane

import "sync"

// HandOver is the size in bytes of a batch from which it is worth waking another worker for what the source still holds.
// Waking one costs several microseconds, about as much as sealing this many bytes.
const HandOver = 16 << 10

// Steps are what a lane does with a batch.
type Steps[B any] interface {
	// Take resets b, waits for input and fills b with it. It is called by one worker at a time, and what must be reserved
	// in order is reserved here. size is what there is to work on, in bytes; more says that the source is known to hold
	// more. An error ends the lane: b is discarded, neither worked on nor emitted, and Take isn't called again.
	Take(b B) (size int, more bool, err error)

	// Work does what needs no order. It is called for any number of batches at once.
	Work(b B)

	// Emit hands b on. It is called for one batch at a time, in the order of Take.
	Emit(b B)
}

// A Lane takes batches from a source, works on several at once and emits them in order. Make one with [New].
type Lane[B any] struct {
	steps    Steps[B]
	workers  int
	newBatch func() B
	others   sync.WaitGroup // the workers but the first

	mu     sync.Mutex
	parked sync.Cond // where a worker without anything to do waits

	// mu guards what follows, and is never held while a step runs. ring[i].batch is the exception: the worker that
	// has the read side may make and fill the slot behind the batches in flight; afterwards the batch belongs to the worker
	// that took it and, once done, to the one that emits it.
	ring     []slot[B]
	head     int   // the slot whose turn it is to be emitted
	inFlight int   // slots in flight: ring[head], and those that follow it
	reading  bool  // a worker has the read side
	emitting bool  // a worker emits
	shared   bool  // after the last Take the read side was given away, because another worker is worth it
	started  int   // workers, parked or not
	idle     int   // workers parked, without the one being woken
	waking   bool  // a worker was started or woken and hasn't locked mu yet
	err      error // what Take returned; the lane is ending
}

// A slot is free, being filled, in flight or done, as drawn above: by its place in the ring, and by done.
type slot[B any] struct {
	batch B
	made  bool // batch is there
	done  bool // worked on, and not emitted yet
}

// New returns a lane of at most workers goroutines and ring batches in flight, one at least of each. A batch is made
// by newBatch when a slot of the ring is first used, and reused from then on.
func New[B any](steps Steps[B], workers, ring int, newBatch func() B) *Lane[B] {
	if workers < 1 || ring < 1 {
		panic("lane: BUG: a lane without a worker or without a batch")
	}
	l := &Lane[B]{steps: steps, workers: workers, newBatch: newBatch, ring: make([]slot[B], ring)}
	l.parked.L = &l.mu
	return l
}

// Run runs the lane until Take returns an error, and returns that error after everything taken before was emitted and
// all workers but the caller have ended. It may be called once.
func (l *Lane[B]) Run() error {
	l.mu.Lock()
	if l.started != 0 {
		panic("lane: BUG: Run was called twice")
	}
	l.started = 1
	l.mu.Unlock()
	l.work()
	l.others.Wait()
	return l.err
}

// work is the loop of one worker.
func (l *Lane[B]) work() {
	l.mu.Lock()
	l.waking = false // the worker being woken is this one: there is never more than one
	for l.acquire() {
		s := l.free()
		l.mu.Unlock()
		if !s.made {
			s.batch, s.made = l.newBatch(), true
		}
		size, more, err := l.steps.Take(s.batch)
		l.mu.Lock()
		if err != nil {
			l.reading, l.err = false, err
			l.parked.Broadcast()
			break
		}
		l.inFlight++

		// Alone by default: the read side stays with this worker while it works and emits, so that a small batch wakes
		// nobody. Given away, the first worker that calls acquire gets it, which may be this one; if the ring is full,
		// the first after a slot is free.
		l.shared = size >= HandOver && more
		keep := !l.shared
		if l.shared {
			l.reading = false
			l.wake()
		}
		l.mu.Unlock()
		l.steps.Work(s.batch)
		l.mu.Lock()
		s.done = true
		// No worker waits for its turn: the one that emits now, or the one of an earlier batch, emits this one later.
		if !l.emitting {
			l.emit()
		}
		if keep {
			l.reading = false // acquire takes it again at once, without unlocking
		}
	}
	l.mu.Unlock()
}

// acquire waits until this worker has the read side and a slot to read to. It reports false when the lane is ending.
//
// A worker parks only while another has the read side or a batch in flight, and tries for the read side before it parks.
// So there is always one that will read again.
func (l *Lane[B]) acquire() bool {
	for l.err == nil && (l.reading || l.inFlight == len(l.ring)) {
		l.idle++
		l.parked.Wait() // wake has already taken this worker out of idle
		l.waking = false
	}
	if l.err != nil {
		return false
	}
	l.reading = true
	return true
}

// free returns the slot behind those in flight.
func (l *Lane[B]) free() *slot[B] {
	i := l.head + l.inFlight
	if i >= len(l.ring) {
		i -= len(l.ring)
	}
	return &l.ring[i]
}

// wake wakes or starts one worker to acquire the read side, if there is a slot to read to. One at a time: when that one
// has read, it wakes the next if that is worth it.
func (l *Lane[B]) wake() {
	switch {
	case l.inFlight == len(l.ring) || l.waking:
	case l.idle > 0:
		l.idle--
		l.waking = true
		l.parked.Signal()
	case l.started < l.workers:
		l.started++
		l.waking = true
		l.others.Go(l.work)
	}
}

// emit emits the batch at the head of the ring, if it is done, and every one behind it that is, or becomes so meanwhile.
func (l *Lane[B]) emit() {
	l.emitting = true
	for s := &l.ring[l.head]; s.done; s = &l.ring[l.head] {
		l.mu.Unlock()
		l.steps.Emit(s.batch)
		l.mu.Lock()
		s.done = false
		l.inFlight--
		if l.head++; l.head == len(l.ring) {
			l.head = 0
		}
		// A worker may be parked for want of a slot. If nothing more is done, this worker reads next itself.
		if l.shared && !l.reading && l.ring[l.head].done {
			l.wake()
		}
	}
	l.emitting = false
}
