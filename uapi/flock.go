//go:build unix && !solaris && !illumos && !aix

package uapi

import (
	"os"

	"golang.org/x/sys/unix"
)

// flock waits for the lock on f, which is released when f is closed.
func flock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			return err
		}
	}
}
