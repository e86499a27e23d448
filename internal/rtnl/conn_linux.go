package rtnl

import (
	"bytes"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A Conn makes requests. Its methods are safe for concurrent use; requests are made one after the other.
type Conn struct {
	mu  sync.Mutex // guards what follows, and one exchange
	fd  int        // -1 when closed
	seq uint32
	buf [16 << 10]byte // more than any answer about one thing
}

// Dial opens a Conn.
func Dial() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("netlink socket", err)
	}
	// The kernel answers before the request's send returns; this bounds a surprise.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("netlink time-out", err)
	}
	return &Conn{fd: fd}, nil
}

// Close closes the Conn, once an exchange in progress has ended. It may be called more than once.
func (c *Conn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		unix.Close(c.fd)
		c.fd = -1
	}
}

// Control calls f with the descriptor, unless it is closed.
func (c *Conn) Control(f func(fd int)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		f(c.fd)
	}
}

// Exchange sends m and returns the body of the answer, which must be of the given type; NLMSG_ERROR means that an
// acknowledgment is the answer. An error that the kernel answers is a unix.Errno, not wrapped; any other says that there
// was no answer, or none that can be understood.
func (c *Conn) Exchange(m Message, want uint16) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil, os.ErrClosed
	}
	c.seq++
	if err := unix.Sendto(c.fd, m.finish(c.seq), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("netlink send", err)
	}
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf[:], 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("netlink receive", err)
		}
		body, mine, err := answer(c.buf[:n], c.seq, want)
		if mine { // else it is the late answer to a request that was given up
			return bytes.Clone(body), err
		}
	}
}
