package netstack

import (
	"bytes"
	"io"
	"net"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Keepalive as package net sets it on a new connection.
const (
	keepAlive      = 15 * time.Second
	keepAliveCount = 9
)

// backlog is how many connections wait to be accepted: Linux's limit, net.core.somaxconn.
const backlog = 4096

// A tcpConn is a TCP connection. Like net.TCPConn it has CloseRead, CloseWrite, SetLinger, SetNoDelay and SetKeepAlive.
type tcpConn struct {
	socket
	readMu, writeMu sync.Mutex   // held by Read and by Write: the bytes of one Write stay together
	size            int64        // of the receive buffer, in bytes, as reserved; guarded by readMu
	read            int64        // how many bytes were read; guarded by readMu
	next            int64        // how many must be read before the buffer is made larger or smaller again; guarded by readMu
	chunk           int          // how many bytes Write gives gVisor at once
	from            bytes.Reader // used by Write
}

var _ net.Conn = (*tcpConn)(nil)

// newTCP returns a connection that uses an endpoint, which must be connected.
func newTCP(s *Stack, ep tcpip.Endpoint, wq *waiter.Queue, network string) *tcpConn {
	c := new(tcpConn)
	c.init(s, ep, wq, network)
	local, _ := ep.GetLocalAddress()
	remote, _ := ep.GetRemoteAddress()
	c.local, c.remote = net.TCPAddrFromAddrPort(addrPort(local)), net.TCPAddrFromAddrPort(addrPort(remote))
	c.size = s.receive.Open(min(firstReceive, s.mostReceive))
	ep.SocketOptions().SetReceiveBufferSize(c.size, false)
	c.chunk = s.link.Chunk(addrPort(remote).Addr().Is6())
	c.SetKeepAlive(true)
	return c
}

// Read implements net.Conn.
func (c *tcpConn) Read(b []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if err := c.check(&c.rd); err != nil {
		return 0, c.fail("read", err)
	}
	if len(b) == 0 {
		return 0, nil
	}
	for {
		w := tcpip.SliceWriter(b)
		res, err := c.ep.Read(&w, tcpip.ReadOptions{})
		switch err.(type) {
		case nil:
			c.resize(res.Count)
			return res.Count, nil
		case *tcpip.ErrWouldBlock:
			if err := c.wait(c.in, &c.rd); err != nil {
				return 0, c.fail("read", err)
			}
		case *tcpip.ErrClosedForReceive:
			if err := c.check(&c.rd); err != nil {
				return 0, c.fail("read", err)
			}
			return 0, io.EOF
		default:
			return 0, c.fail("read", c.cause(err))
		}
	}
}

// resize fits the receive buffer to what the program reads, of which these are the next n bytes. The sender's window may
// double with each round trip, when twice as much as all before is on its way; a buffer has twice the size of the window. Up
// to quickReceive it grows with that, and gVisor makes it larger still where it measures that the path carries more.
func (c *tcpConn) resize(n int) {
	c.read += int64(n)
	if c.read < c.next {
		return
	}
	b, o := &c.s.receive, c.ep.SocketOptions()
	if b.Short() && c.size >= b.Fair() {
		// What was promised isn't taken back: the window shrinks as data comes in, so that takes a buffer's worth.
		c.next = c.read + c.size
		c.size = b.Shrink(c.size)
		o.SetReceiveBufferSize(c.size, false)
		return
	}
	c.ep.ModerateRecvBuf(n)
	got := o.GetReceiveBufferSize()
	want := min(quickReceive, c.s.mostReceive, firstReceive+2*c.read)
	if want < 2*c.size && want < quickReceive {
		want = c.size // not in small steps
	}
	if want = max(want, got); want == c.size {
		return
	}
	if c.size = b.Grow(c.size, want); c.size < want {
		c.next = c.read + c.size
	}
	o.SetReceiveBufferSize(c.size, false) // without telling the endpoint, which would no longer measure
}

// Close closes the connection, and returns its receive buffer to the budget.
func (c *tcpConn) Close() error {
	err := c.socket.Close()
	if err == nil {
		c.readMu.Lock() // no Read waits any more, and none begins
		c.s.receive.Close(c.size)
		c.readMu.Unlock()
	}
	return err
}

// Write implements net.Conn. It returns when all of b is in the connection's buffer.
func (c *tcpConn) Write(b []byte) (n int, err error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	defer c.from.Reset(nil)
	if err := c.check(&c.wd); err != nil {
		return 0, c.fail("write", err)
	}
	for n < len(b) {
		c.from.Reset(b[n:min(len(b), n+c.chunk)])
		k, err := c.ep.Write(&c.from, tcpip.WriteOptions{})
		n += int(k)
		switch err.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			c.s.share.wait()
			err := c.wait(c.out, &c.wd)
			c.s.share.done()
			if err != nil {
				return n, c.fail("write", err)
			}
		default:
			return n, c.fail("write", c.cause(err))
		}
	}
	return n, nil
}

// CloseRead ends the reading side.
func (c *tcpConn) CloseRead() error { return c.shutdown(tcpip.ShutdownRead) }

// CloseWrite ends the writing side: the remote end reads what was written, and then io.EOF.
func (c *tcpConn) CloseWrite() error { return c.shutdown(tcpip.ShutdownWrite) }

func (c *tcpConn) shutdown(how tcpip.ShutdownFlags) error {
	select {
	case <-c.done:
		return c.fail("close", net.ErrClosed)
	default:
	}
	if err := c.ep.Shutdown(how); err != nil {
		return c.fail("close", c.cause(err))
	}
	return nil
}

// SetLinger sets what Close does with data that isn't sent or acknowledged yet: with zero it is discarded and the connection
// reset; otherwise it is sent in the background, as net.TCPConn does by default.
func (c *tcpConn) SetLinger(sec int) error {
	c.ep.SocketOptions().SetLinger(tcpip.LingerOption{Enabled: sec == 0})
	return nil
}

// SetNoDelay sets whether small writes are sent at once. They are by default.
func (c *tcpConn) SetNoDelay(on bool) error {
	c.ep.SocketOptions().SetDelayOption(!on)
	return nil
}

// SetKeepAlive sets whether an idle connection is probed. It is by default, after 15 s without traffic.
func (c *tcpConn) SetKeepAlive(on bool) error {
	if on {
		if err := c.SetKeepAlivePeriod(keepAlive); err != nil {
			return err
		}
	}
	c.ep.SocketOptions().SetKeepAlive(on)
	return nil
}

// SetKeepAlivePeriod sets how long a connection is idle before it is probed, and the time between probes. After nine probes
// without an answer the connection fails.
func (c *tcpConn) SetKeepAlivePeriod(d time.Duration) error {
	idle, interval := tcpip.KeepaliveIdleOption(d), tcpip.KeepaliveIntervalOption(d)
	err := c.ep.SetSockOpt(&idle)
	if err == nil {
		err = c.ep.SetSockOpt(&interval)
	}
	if err == nil {
		err = c.ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepAliveCount)
	}
	if err != nil {
		return c.fail("set", netError(err))
	}
	return nil
}

// A listener listens for TCP connections.
type listener struct{ socket }

var _ net.Listener = (*listener)(nil)

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		if err := l.check(&l.rd); err != nil {
			return nil, l.fail("accept", err)
		}
		ep, wq, err := l.ep.Accept(nil)
		switch err.(type) {
		case nil:
			l.in.NotifyEvent(0) // there may be another connection, and another goroutine that waits for it
			return newTCP(l.s, ep, wq, l.network), nil
		case *tcpip.ErrWouldBlock:
			if err := l.wait(l.in, &l.rd); err != nil {
				return nil, l.fail("accept", err)
			}
		default:
			return nil, l.fail("accept", l.cause(err))
		}
	}
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.local }
