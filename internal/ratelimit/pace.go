package ratelimit

import (
	"sync/atomic"

	"throughline/internal/mono"
)

// A Pace spreads over time what would all be done at once, in the order of asking: so many a second, and a burst of them
// that a second of idleness earns. Unlike a [Limiter]'s its methods may be called from any goroutine. The zero Pace is ready.
type Pace struct {
	next atomic.Int64 // mono.Time of the next turn that is free
}

// Reserve reserves a turn, and returns when that is: now, or later. The time must not go back by more than moments.
func (p *Pace) Reserve(now mono.Time, perSecond int) mono.Time {
	const second = 1e9
	for {
		old := p.next.Load()
		turn := max(old, int64(now)-second)
		if p.next.CompareAndSwap(old, turn+second/int64(perSecond)) {
			return max(now, mono.Time(turn))
		}
	}
}

// How many initiations a second a device begins, see [Turns].
const (
	ToKnown  = 4000 // to peers with which there is a session, or was a moment ago
	ToOthers = 2000
)

// Turns are the turns of the initiations that a device begins, so that many peers with something to send don't take all
// the CPU time. Those to peers that were heard from lately don't wait behind those that may never answer. Its methods may
// be called from any goroutine. The zero Turns is ready.
type Turns struct{ known, others Pace }

// Take returns when a peer's turn is: now, when it is used, or later. The peer's own turn is kept in mine, 0 for none, which
// the caller guards.
func (t *Turns) Take(now mono.Time, mine *mono.Time, known bool) mono.Time {
	if *mine == 0 && known {
		*mine = t.known.Reserve(now, ToKnown)
	} else if *mine == 0 {
		*mine = t.others.Reserve(now, ToOthers)
	}
	if *mine > now {
		return *mine
	}
	*mine = 0
	return now
}
