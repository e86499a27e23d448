package netstack

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"

	"throughline/netstack/internal/deadline"
)

// Masks of the events that wake a reader and a writer. gVisor signals all of them when an endpoint ends.
const (
	readable = waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr
	writable = waiter.WritableEvents | waiter.EventHUp | waiter.EventErr
)

// A signal wakes one goroutine, which then tries its call again. It stays set until a goroutine receives it, so none is
// lost.
type signal chan struct{}

// NotifyEvent implements waiter.EventListener.
func (s signal) NotifyEvent(waiter.EventMask) {
	select {
	case s <- struct{}{}:
	default:
	}
}

// A socket makes a blocking socket with deadlines of a gVisor endpoint. Any goroutine may close it.
type socket struct {
	s       *Stack
	ep      tcpip.Endpoint
	wq      *waiter.Queue
	network string // as asked for
	local   net.Addr
	remote  net.Addr // nil when not connected

	in, out           signal // the endpoint may be readable, or writable
	inEntry, outEntry waiter.Entry
	rd, wd            deadline.Deadline // of reading and of writing
	closing           sync.Once
	done              chan struct{} // closed by Close
}

func (c *socket) init(s *Stack, ep tcpip.Endpoint, wq *waiter.Queue, network string) {
	c.s, c.ep, c.wq, c.network = s, ep, wq, network
	c.done = make(chan struct{})
	c.in, c.out = make(signal, 1), make(signal, 1)
	c.inEntry.Init(c.in, readable)
	c.outEntry.Init(c.out, writable)
	wq.EventRegister(&c.inEntry)
	wq.EventRegister(&c.outEntry)
}

// wait waits for ch. An error says why the call must not be tried again.
func (c *socket) wait(ch signal, d *deadline.Deadline) error {
	select {
	case <-ch:
		return nil
	case <-d.Passed():
		return os.ErrDeadlineExceeded
	case <-c.done:
		return net.ErrClosed
	case <-c.s.done:
		return net.ErrClosed
	}
}

// check returns an error if a call must fail before it does anything: the socket is closed, or the deadline has passed.
func (c *socket) check(d *deadline.Deadline) error {
	select {
	case <-c.done:
		return net.ErrClosed
	case <-c.s.done:
		return net.ErrClosed
	case <-d.Passed():
		return os.ErrDeadlineExceeded
	default:
		return nil
	}
}

// cause is netError, but returns net.ErrClosed when the socket or the stack is closed, which is then what caused err.
func (c *socket) cause(err tcpip.Error) error {
	select {
	case <-c.done:
		return net.ErrClosed
	case <-c.s.done:
		return net.ErrClosed
	default:
		return netError(err)
	}
}

// fail returns err as a *net.OpError of this socket.
func (c *socket) fail(op string, err error) error {
	return opError(op, c.network, c.local, c.remote, err)
}

// Close closes the socket; blocked calls return net.ErrClosed. What was written and not sent yet is still sent.
func (c *socket) Close() error {
	err := c.fail("close", net.ErrClosed)
	c.closing.Do(func() {
		err = nil
		close(c.done)
		c.wq.EventUnregister(&c.inEntry)
		c.wq.EventUnregister(&c.outEntry)
		c.rd.Set(time.Time{})
		c.wd.Set(time.Time{})
		c.ep.Close()
	})
	return err
}

// LocalAddr returns the address that the socket is bound to.
func (c *socket) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the address that the socket is connected to, or nil.
func (c *socket) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *socket) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *socket) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.rd, t) }

// SetWriteDeadline implements net.Conn.
func (c *socket) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.wd, t) }

func (c *socket) setDeadline(d *deadline.Deadline, t time.Time) error {
	select {
	case <-c.done:
		return c.fail("set", net.ErrClosed)
	default:
	}
	d.Set(t)
	return nil
}

// addrPort converts an address of gVisor's; an IPv4-mapped one is unmapped.
func addrPort(a tcpip.FullAddress) netip.AddrPort {
	ip, _ := netip.AddrFromSlice(a.Addr.AsSlice())
	return netip.AddrPortFrom(ip.Unmap(), a.Port)
}

// fullAddress converts an address for an endpoint of the family. For an IPv6 endpoint, which may serve both families, an IPv4
// address is mapped into IPv6.
func fullAddress(a netip.AddrPort, family tcpip.NetworkProtocolNumber) tcpip.FullAddress {
	f := tcpip.FullAddress{Port: a.Port()}
	ip := a.Addr().Unmap().WithZone("")
	if ip.IsLinkLocalUnicast() {
		f.NIC = nic
	}
	switch {
	case !ip.IsValid() || ip.IsUnspecified():
	case ip.Is4() && family != protocol(ip):
		mapped := ip.As16()
		f.Addr = tcpip.AddrFrom16(mapped)
	default:
		f.Addr = address(ip)
	}
	return f
}
