//go:build unix

package datagram

import (
	"net"
	"syscall"
)

// Wait waits until a Read of a connected UDP socket would return, so that who may wait for long needs no buffer meanwhile.
// It returns at once where the socket can't tell.
func Wait(c net.Conn) error {
	if w, ok := c.(interface{ WaitRead() error }); ok {
		return w.WaitRead()
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var b [1]byte
	var failed error
	if err := raw.Read(func(fd uintptr) bool {
		for {
			_, _, failed = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
			if failed != syscall.EINTR {
				return failed != syscall.EAGAIN
			}
		}
	}); err != nil {
		return err
	}
	return failed
}
