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
