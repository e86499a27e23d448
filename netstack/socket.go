package netstack

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
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
	rd, wd            deadline // of reading and of writing
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
func (c *socket) wait(ch signal, d *deadline) error {
	select {
	case <-ch:
		return nil
	case <-d.passed():
		return os.ErrDeadlineExceeded
	case <-c.done:
		return net.ErrClosed
	case <-c.s.done:
		return net.ErrClosed
	}
}

// check returns an error if a call must fail before it does anything: the socket is closed, or the deadline has passed.
func (c *socket) check(d *deadline) error {
	select {
	case <-c.done:
		return net.ErrClosed
	case <-c.s.done:
		return net.ErrClosed
	case <-d.passed():
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
		c.rd.set(time.Time{})
		c.wd.set(time.Time{})
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

func (c *socket) setDeadline(d *deadline, t time.Time) error {
	select {
	case <-c.done:
		return c.fail("set", net.ErrClosed)
	default:
	}
	d.set(t)
	return nil
}

// A deadline is the deadline of a socket's reading or writing. The zero deadline never passes.
type deadline struct {
	mu    sync.Mutex // guards what follows
	timer *time.Timer
	gone  chan struct{} // closed when the deadline has passed; nil until somebody waits for it or sets it
	past  bool          // gone is closed
	sets  uint64        // counts the calls of set, so that a timer that couldn't be stopped any more does nothing
}

// passed returns a channel that is closed once the deadline has passed.
func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gone == nil {
		d.gone = make(chan struct{})
	}
	return d.gone
}

// set changes the deadline; the zero time means none. It also applies to calls that are waiting already.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sets++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if d.gone == nil || d.past {
		d.gone, d.past = make(chan struct{}), false
	}
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		close(d.gone)
		d.past = true
		return
	}
	this := d.sets
	d.timer = time.AfterFunc(left, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.sets == this {
			close(d.gone)
			d.past = true
		}
	})
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

// withContext makes the deadline d pass when ctx ends. The function it returns undoes that.
func withContext(ctx context.Context, d *deadline) (undo func() bool) {
	if at, ok := ctx.Deadline(); ok {
		d.set(at)
	}
	return context.AfterFunc(ctx, func() { d.set(time.Unix(1, 0)) })
}
