package throughline

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"throughline/internal/mono"
)

// boottime is the tunnel's clock: CLOCK_BOOTTIME goes on while the machine sleeps, so that a session that has expired
// meanwhile is known to have. CLOCK_MONOTONIC, which the time package reads, stands still then.
func boottime() mono.Time {
	var ts unix.Timespec
	// Raw, because it never waits; see the package comment of udp.
	_, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0)
	if errno != 0 {
		panic("throughline: BUG: CLOCK_BOOTTIME: " + errno.Error()) // every Linux since 2.6.39 has it
	}
	return mono.Time(ts.Nano()) + mono.Time(time.Second) // never 0
}
