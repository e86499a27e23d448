// Package mono is the type of the tunnel's time, that of a clock that never goes back and doesn't stop while the machine
// sleeps.
//
// It has no clock of its own. The engine reads one, once a batch, and passes the moment down. A [Time] is a
// value, so any goroutine may use one.
//
// Limits: a Time is bounded by what 63 bits hold of nanoseconds, 292 years from its origin.
package mono

import "time"

// Time is a moment in nanoseconds since an arbitrary origin, such as boot. The zero Time stands
// for a moment that hasn't been, [Never] for one that won't come.
type Time int64

// Never is later than every moment: what is due then is never due.
const Never Time = 1<<63 - 1

// Add returns t moved by d; Never stays Never.
func (t Time) Add(d time.Duration) Time {
	if t == Never {
		return Never
	}
	return t + Time(d)
}

// Sub returns the time from u to t.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }
