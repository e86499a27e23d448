package rtnl

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Events are a socket that receives the notifications that the kernel sends to multicast groups.
type Events struct {
	file *os.File
	conn syscall.RawConn
}

// Listen opens Events of the groups in a mask, of RTMGRP_LINK and its like.
func Listen(groups uint32) (*Events, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("netlink socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("netlink bind", err)
	}
	return newEvents(fd)
}

// newEvents takes over fd, which doesn't block.
func newEvents(fd int) (*Events, error) {
	e := &Events{file: os.NewFile(uintptr(fd), "rtnetlink")}
	var err error
	if e.conn, err = e.file.SyscallConn(); err != nil {
		e.file.Close()
		return nil, err
	}
	return e, nil
}

// Next waits for a message and reads as much of it as buf holds. lost says that messages were lost instead: they came
// faster than they were read. It returns an error only after Close. One caller at a time.
func (e *Events) Next(buf []byte) (n int, lost bool, err error) {
	err = e.conn.Read(func(fd uintptr) bool {
		var err error
		n, _, err = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
		lost = err == unix.ENOBUFS
		return err == nil || lost
	})
	return max(n, 0), lost, err
}

// Drain throws away what there is, or much of it.
func (e *Events) Drain() {
	e.conn.Control(func(fd uintptr) {
		for range maxDrained {
			if _, _, err := unix.Recvfrom(int(fd), nil, unix.MSG_DONTWAIT); err != nil && err != unix.ENOBUFS {
				return
			}
		}
	})
}

// maxDrained is more than fit in the socket's buffer, so that draining ends where they never do.
const maxDrained = 1 << 10

// Control calls f with the descriptor, unless it is closed.
func (e *Events) Control(f func(fd uintptr)) { e.conn.Control(f) }

// Close ends Next. It may be called more than once, from anywhere.
func (e *Events) Close() { e.file.Close() }
