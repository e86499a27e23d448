package udp

import (
	"errors"
	"syscall"

	"golang.org/x/sys/windows"
)

// familyMissing reports whether err says that the host lacks the address family.
func familyMissing(err error) bool {
	return errors.Is(err, windows.WSAEAFNOSUPPORT) || errors.Is(err, windows.WSAEPFNOSUPPORT) ||
		errors.Is(err, windows.WSAEPROTONOSUPPORT) || errors.Is(err, windows.WSAEADDRNOTAVAIL)
}

// canonical returns the error that package syscall declares for errno on every system: Winsock has its own numbers.
func canonical(errno syscall.Errno) error {
	if errno == windows.WSAEADDRINUSE {
		return syscall.EADDRINUSE
	}
	return errno
}
