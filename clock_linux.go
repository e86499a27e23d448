package throughline

import (
	"time"

	"golang.org/x/sys/unix"

	"throughline/internal/mono"
)

// boottime is the tunnel's clock: CLOCK_BOOTTIME goes on while the machine sleeps, so that a session that has expired
// meanwhile is known to have. CLOCK_MONOTONIC, which the time package reads, stands still then.
func boottime() mono.Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("throughline: BUG: CLOCK_BOOTTIME: " + err.Error()) // every Linux since 2.6.39 has it
	}
	return mono.Time(ts.Nano()) + mono.Time(time.Second) // never 0
}
