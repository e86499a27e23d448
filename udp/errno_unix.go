//go:build !windows

package udp

import (
	"errors"
	"syscall"
)

// familyMissing reports whether err says that the host lacks the address family.
func familyMissing(err error) bool {
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EPFNOSUPPORT) ||
		errors.Is(err, syscall.EPROTONOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

// canonical returns the error that package syscall declares for errno on every system.
func canonical(errno syscall.Errno) error { return errno }
