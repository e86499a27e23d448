//go:build unix

package udp

import (
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestControlComesFirst holds that a socket isn't bound yet when Control sees it.
func TestControlComesFirst(t *testing.T) {
	seen := 0
	newConn(t, &Host{Control: func(_, _ string, c syscall.RawConn) error {
		seen++
		return c.Control(func(fd uintptr) { wantUnbound(t, int(fd)) })
	}})
	if seen == 0 {
		t.Error("no socket was seen")
	}
}

func wantUnbound(t *testing.T, fd int) {
	t.Helper()
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Error(err)
		return
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		if sa.Port != 0 {
			t.Errorf("bound to port %d", sa.Port)
		}
	case *unix.SockaddrInet6:
		if sa.Port != 0 {
			t.Errorf("bound to port %d", sa.Port)
		}
	default:
		t.Errorf("a socket of type %T", sa)
	}
}
