package udp

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// bindToInterface makes a socket send and receive by one interface only (IP_BOUND_IF, IPV6_BOUND_IF). It has been compiled
// and vetted, and never yet been run.
func bindToInterface(network string, c syscall.RawConn, name string) error {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	level, option := unix.IPPROTO_IP, unix.IP_BOUND_IF
	if network == "udp6" {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_BOUND_IF
	}
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, ifi.Index) }); e != nil {
		return e
	}
	return err
}
