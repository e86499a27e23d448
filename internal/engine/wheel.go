package engine

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"throughline/internal/mono"
	"throughline/internal/timers"
	"throughline/packet"
	"throughline/wgtypes"
)

// A wheel holds the peers that are to be looked at, by when. One goroutine turns it for all, and sleeps while nothing is
// due; a peer at rest isn't in it. A look comes at its time or up to a tick later, never earlier.
type wheel struct {
	mu       sync.Mutex // guards what follows, and the places of peers
	slots    [wheelSlots]*Peer
	occupied [wheelSlots / 64]uint64
	turned   int64         // the last tick whose slot was emptied
	alarm    atomic.Int64  // mono.Time when the goroutine wakes, written under mu; Never: when it is rung
	bell     chan struct{} // rings when something is due before that
}

const (
	wheelTick  = 50 * time.Millisecond
	wheelSlots = 4096 // about 200 s ahead; what is due later is looked at then, and put back
)

func (w *wheel) init(now mono.Time) {
	w.turned = int64(now) / int64(wheelTick)
	w.alarm.Store(int64(mono.Never))
	w.bell = make(chan struct{}, 1)
}

// arm makes sure that p is looked at by due. The packet path calls it for every train: mostly the peer is in the wheel
// already, earlier than that, and one atomic load tells.
func (e *Engine) arm(p *Peer, due mono.Time) {
	if int64(due) >= p.due.Load() {
		return
	}
	w := &e.wheel
	w.mu.Lock()
	defer w.mu.Unlock()
	if int64(due) >= p.due.Load() {
		return
	}
	w.unlink(p)
	w.link(p, due)
	if int64(due) < w.alarm.Load() {
		w.ring()
	}
}

func (w *wheel) ring() {
	select {
	case w.bell <- struct{}{}:
	default:
	}
}

// notice wakes the goroutine when it is late. It sleeps by a clock that stands still while the machine sleeps, which the
// tunnel's doesn't. The packet path calls it for every batch.
func (w *wheel) notice(now mono.Time) {
	if now.Sub(mono.Time(w.alarm.Load())) > 2*wheelTick {
		w.ring()
	}
}

// remove takes p out of the wheel.
func (w *wheel) remove(p *Peer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unlink(p)
}

func (w *wheel) link(p *Peer, due mono.Time) {
	tick := (int64(due) + int64(wheelTick) - 1) / int64(wheelTick) // rounded up: never early
	tick = min(max(tick, w.turned+1), w.turned+wheelSlots-1)
	p.slot = int32(tick % wheelSlots)
	p.due.Store(int64(due))
	p.next, p.prev = w.slots[p.slot], nil
	if p.next != nil {
		p.next.prev = p
	}
	w.slots[p.slot] = p
	w.occupied[p.slot/64] |= 1 << (p.slot % 64)
}

func (w *wheel) unlink(p *Peer) {
	if p.due.Load() == int64(mono.Never) {
		return
	}
	if p.prev != nil {
		p.prev.next = p.next
	} else {
		w.slots[p.slot] = p.next
		if p.next == nil {
			w.occupied[p.slot/64] &^= 1 << (p.slot % 64)
		}
	}
	if p.next != nil {
		p.next.prev = p.prev
	}
	p.next, p.prev = nil, nil
	p.due.Store(int64(mono.Never))
}

// turn takes out the peers that are due, and returns them and when to turn again.
func (w *wheel) turn(now mono.Time, due []*Peer) ([]*Peer, mono.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	target := int64(now) / int64(wheelTick)
	for tick := max(w.turned+1, target-wheelSlots+1); tick <= target; tick++ {
		slot := tick % wheelSlots
		for w.slots[slot] != nil {
			p := w.slots[slot]
			w.unlink(p)
			due = append(due, p)
		}
	}
	w.turned = max(w.turned, target)
	alarm := w.nextTick()
	w.alarm.Store(int64(alarm))
	return due, alarm
}

// nextTick returns when the first occupied slot is due, Never if none is.
func (w *wheel) nextTick() mono.Time {
	start := int((w.turned + 1) % wheelSlots)
	for i := 0; i <= len(w.occupied); i++ {
		word := (start/64 + i) % len(w.occupied)
		set := w.occupied[word]
		switch i {
		case 0:
			set &= ^uint64(0) << (start % 64)
		case len(w.occupied): // the same word again: what lies before start comes last
			set &= 1<<(start%64) - 1
		}
		if set != 0 {
			slot := word*64 + bits.TrailingZeros64(set)
			ahead := (slot - start + wheelSlots) % wheelSlots
			return mono.Time((w.turned + 1 + int64(ahead)) * int64(wheelTick))
		}
	}
	return mono.Never
}

// turnWheel is the goroutine of the wheel. It ends when the engine closes.
func (e *Engine) turnWheel() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var due []*Peer
	for {
		now := e.clock()
		var alarm mono.Time
		due, alarm = e.wheel.turn(now, due[:0])
		for _, p := range due {
			e.look(p, now)
		}
		clear(due)
		if len(due) > 0 {
			continue // looking took time, and put peers back
		}
		if alarm != mono.Never {
			timer.Reset(alarm.Sub(now)) // more than 0: what was due by now has been taken out
		} else {
			timer.Stop()
		}
		select {
		case <-timer.C:
		case <-e.wheel.bell:
		case <-e.done:
			return
		}
	}
}

// look does what is due for a peer, and says when to look again.
func (e *Engine) look(p *Peer, now mono.Time) {
	p.state.Lock()
	if p.Gone {
		p.state.Unlock()
		return
	}
	do, next := p.Timers.Look(now, jitter())
	if do&timers.GiveUp != 0 {
		e.drop(packet.DropHandshake, p.Staged.Clear())
		p.Waiting.Store(p.Flushing)
	}
	p.state.Unlock()
	e.arm(p, next)

	if do&timers.GiveUp != 0 {
		e.publishPeer(wgtypes.PeerSilent, p, nil)
	}
	if do&timers.EraseKeys != 0 {
		e.eraseKeys(p)
	}
	if do&timers.ClearSource != 0 {
		p.ClearSource(p.Endpoint()) // it may be why nothing comes back
	}
	if do&timers.Initiate != 0 {
		e.want(p, wantRetry)
	}
	if do&timers.Keepalive != 0 {
		e.want(p, wantKeepalive)
	}
}
