package udp

import (
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// bindToInterface makes a socket send and receive by one interface only (SO_BINDTODEVICE, socket(7)); by those of a VRF
// when the name is the VRF's.
func bindToInterface(_ string, c syscall.RawConn, name string) error {
	if len(name) >= unix.IFNAMSIZ || strings.IndexByte(name, 0) >= 0 {
		return unix.ENODEV // the kernel would cut the name, and take what is left for another's
	}
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), name) }); e != nil {
		return e
	}
	if err == unix.EPERM {
		return fmt.Errorf("%w; before Linux 5.7 it needs CAP_NET_RAW", err)
	}
	return err
}

// boundTo returns the index of the interface that a socket is bound to, whether by Host.Interface or by Host.Control; 0
// when there is none, and before Linux 5.0, where it can't be asked.
func boundTo(fd int) uint32 {
	index, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
	if err != nil {
		return 0
	}
	return uint32(index)
}
