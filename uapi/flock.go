//go:build unix && !solaris && !illumos && !aix

package uapi

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// flock takes the lock on f, which is released when f is closed. A process that holds it for longer than patience is not
// waited for: it may have been stopped.
func flock(f *os.File) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EINTR && err != unix.EWOULDBLOCK || time.Now().After(deadline) {
			return err
		}
	}
}
