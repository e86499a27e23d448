// Package wheel is a timer wheel: many items, each with one deadline, looked at by one goroutine that sleeps while
// nothing is due.
//
// It is generic over its items and knows nothing of peers. An item embeds a [Node], which holds its place in the wheel,
// so that arming allocates nothing; an item that isn't armed isn't in the wheel and costs nothing.
//
// Concurrency: Arm, Remove and WakeIfLate may be called from any goroutine. Arm is made for a packet path: an item that
// is armed for an earlier deadline already costs one atomic load, and so does WakeIfLate. Everything else is guarded by
// one mutex, which is held for moments and never while an item is looked at. [Wheel.Run] is one goroutine's, which the
// caller starts.
//
// Ownership: the node belongs to the wheel it was armed in, its item to the caller. The wheel keeps no reference to an
// item that was looked at or removed.
//
// Limits: a look comes at its deadline or up to one [Tick] later (and as late as earlier looks take), never before it. A
// deadline may lie any time ahead; beyond [Horizon] it costs a move within the wheel for each Horizon passed. Remove
// can't recall an item whose look has begun, or that was found due together with one being looked at now: a look that
// must not follow a Remove has to check that itself.
package wheel

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"throughline/internal/mono"
)

const (
	// Tick is the wheel's resolution: what is due within one tick is looked at together.
	Tick = 50 * time.Millisecond

	slots = 4096 // one for each tick ahead

	// Horizon is how far ahead deadlines have slots of their own, about 200 seconds.
	Horizon = slots * Tick
)

// A Wheel holds the items that are armed. Make one with [New].
type Wheel[T any] struct {
	wakeAt atomic.Int64  // mono.Time when Run wakes by itself, written under mu; Never: only by wake
	wake   chan struct{} // holds one value when Run is to wake before that

	mu       sync.Mutex               // guards what follows, and the links of nodes
	heads    [slots]*Node[T]          // the items whose tick, modulo slots, is the index
	occupied [slots / wordBits]uint64 // a bit for each slot that isn't empty
	turned   int64                    // the last tick whose slot was emptied
}

const wordBits = 64

// A Node is an item's place in a wheel, to be embedded in the item. It must be given its item by Init before it is armed,
// and must not be copied.
type Node[T any] struct {
	item       T
	due        atomic.Int64 // mono.Time of the deadline, written under Wheel.mu; Never: not in the wheel
	slot       int32        // guarded by Wheel.mu, with the links
	next, prev *Node[T]
}

// Init sets the item that the node stands for, mostly a pointer to what the node is embedded in. It is called once.
func (n *Node[T]) Init(item T) {
	n.item = item
	n.due.Store(int64(mono.Never))
}

// Armed reports whether the item is in a wheel.
func (n *Node[T]) Armed() bool { return n.due.Load() != int64(mono.Never) }

// New returns an empty wheel, which counts from now.
func New[T any](now mono.Time) *Wheel[T] {
	w := &Wheel[T]{turned: int64(now) / int64(Tick), wake: make(chan struct{}, 1)}
	w.wakeAt.Store(int64(mono.Never))
	return w
}

// Arm makes sure that the item is looked at by due. An earlier deadline that it has already stays, and Never asks for
// nothing. A deadline that has passed means as soon as possible.
func (w *Wheel[T]) Arm(n *Node[T], due mono.Time) {
	if int64(due) < n.due.Load() {
		w.arm(n, due)
	}
}

func (w *Wheel[T]) arm(n *Node[T], due mono.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if int64(due) >= n.due.Load() {
		return // another call came first
	}
	w.unlink(n)
	w.link(n, due)
	if int64(due) < w.wakeAt.Load() {
		w.wakeUp()
	}
}

// Remove takes the item out of the wheel, if it is in it.
func (w *Wheel[T]) Remove(n *Node[T]) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unlink(n)
}

// WakeIfLate wakes Run if it should have woken more than two ticks ago. Run sleeps by the runtime's clock, which stands
// still while the machine sleeps; the clock that deadlines are measured by doesn't.
func (w *Wheel[T]) WakeIfLate(now mono.Time) {
	if now.Sub(mono.Time(w.wakeAt.Load())) > 2*Tick {
		w.wakeUp()
	}
}

// Run looks at items when they are due, until done is closed. An item is out of the wheel before it is looked at, so look
// may arm it again. The clock never goes back and never returns zero.
func (w *Wheel[T]) Run(done <-chan struct{}, clock func() mono.Time, look func(item T, now mono.Time)) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var due []T
	for {
		now := clock()
		var next mono.Time
		due, next = w.turn(now, due[:0])
		for _, item := range due {
			look(item, now)
		}
		clear(due) // no reference is kept
		if len(due) > 0 {
			continue // looking took time, and armed items again
		}
		if next != mono.Never {
			timer.Reset(next.Sub(now)) // more than 0: what was due by now has been taken out
		} else {
			timer.Stop()
		}
		select {
		case <-timer.C:
		case <-w.wake:
		case <-done:
			return
		}
	}
}

func (w *Wheel[T]) wakeUp() {
	select {
	case w.wake <- struct{}{}:
	default: // it will wake already
	}
}

// turn takes out the items that are due, appends them to due, and returns when to turn again.
func (w *Wheel[T]) turn(now mono.Time, due []T) ([]T, mono.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	target := int64(now) / int64(Tick)
	var later *Node[T] // from beyond the horizon: to be put back
	for tick := max(w.turned+1, target-slots+1); tick <= target; tick++ {
		for n := w.heads[tick%slots]; n != nil; n = w.heads[tick%slots] {
			at := mono.Time(n.due.Load())
			w.unlink(n)
			if at <= now {
				due = append(due, n.item)
			} else {
				n.due.Store(int64(at)) // it stays armed
				n.next, later = later, n
			}
		}
	}
	w.turned = max(w.turned, target)
	for later != nil {
		n := later
		later = n.next
		w.link(n, mono.Time(n.due.Load()))
	}
	next := w.nextTick()
	w.wakeAt.Store(int64(next))
	return due, next
}

// link puts a node that isn't in the wheel into the slot of its deadline, or into the last one before the horizon.
func (w *Wheel[T]) link(n *Node[T], due mono.Time) {
	tick := int64(due) / int64(Tick)
	if int64(due)%int64(Tick) > 0 {
		tick++ // rounded up: never early
	}
	tick = min(max(tick, w.turned+1), w.turned+slots-1)
	n.slot = int32(tick % slots)
	n.due.Store(int64(due))
	n.next, n.prev = w.heads[n.slot], nil
	if n.next != nil {
		n.next.prev = n
	}
	w.heads[n.slot] = n
	w.occupied[n.slot/wordBits] |= 1 << (n.slot % wordBits)
}

func (w *Wheel[T]) unlink(n *Node[T]) {
	if n.due.Load() == int64(mono.Never) {
		return
	}
	if n.prev != nil {
		n.prev.next = n.next
	} else {
		w.heads[n.slot] = n.next
		if n.next == nil {
			w.occupied[n.slot/wordBits] &^= 1 << (n.slot % wordBits)
		}
	}
	if n.next != nil {
		n.next.prev = n.prev
	}
	n.next, n.prev = nil, nil
	n.due.Store(int64(mono.Never))
}

// nextTick returns when the first occupied slot is due, Never if none is.
func (w *Wheel[T]) nextTick() mono.Time {
	start := int((w.turned + 1) % slots)
	for i := 0; i <= len(w.occupied); i++ {
		word := (start/wordBits + i) % len(w.occupied)
		set := w.occupied[word]
		if i == 0 {
			set &= ^uint64(0) << (start % wordBits) // what lies before start comes last, with the same word again
		}
		if set != 0 {
			slot := word*wordBits + bits.TrailingZeros64(set)
			ahead := (slot - start + slots) % slots
			return mono.Time((w.turned + 1 + int64(ahead)) * int64(Tick))
		}
	}
	return mono.Never
}
