package udptest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"throughline/packet"
	"throughline/udp"
)

// MaxCoalesced is how many datagrams a receiver coalesces at most, as kernels do.
const MaxCoalesced = 64

// A Host is a machine on a [Net]. It is a [udp.Network].
type Host struct {
	No4, No6 bool // the host lacks the family; to be set before Listen

	net      *Net
	id       int
	addrs    []netip.Addr
	conns    map[uint16]*conn
	nextPort uint16
}

// Addrs returns the host's addresses.
func (h *Host) Addrs() []netip.Addr {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	return slices.Clone(h.addrs)
}

// SetAddrs changes the host's addresses: it roams. Its sockets stay open; what is in flight to an address that no host
// has any more is lost. None at all takes it off the network.
func (h *Host) SetAddrs(addrs ...netip.Addr) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.setAddrs(addrs)
}

func (h *Host) setAddrs(addrs []netip.Addr) {
	h.addrs = nil
	for _, a := range addrs {
		checkAddr(a)
		if h.net.at(a) != nil {
			panic(fmt.Sprintf("udptest: BUG: the address %v is taken", a))
		}
	}
	h.addrs = slices.Clone(addrs)
}

// Listen implements [udp.Network].
func (h *Host) Listen(port uint16) (udp.Conn, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if h.No4 && h.No6 {
		return nil, fmt.Errorf("udp: listen on port %d: %w", port, syscall.EAFNOSUPPORT)
	}
	if port == 0 {
		for h.conns[h.nextPort] != nil {
			h.nextPort = max(h.nextPort+1, 49152)
		}
		port = h.nextPort
		h.nextPort = max(h.nextPort+1, 49152)
	}
	if h.conns[port] != nil {
		return nil, fmt.Errorf("udp: listen on port %d: %w", port, syscall.EADDRINUSE)
	}
	c := &conn{host: h, port: port}
	if !h.No4 {
		c.r4 = &receiver{c: c, ready: sync.Cond{L: &h.net.mu}}
	}
	if !h.No6 {
		c.r6 = &receiver{c: c, ready: sync.Cond{L: &h.net.mu}}
	}
	h.conns[port] = c
	return c, nil
}

// source returns the address the host sends from: the one asked for if it is still its own, else the first of the
// destination's family; not valid when there is none. Called with the net's lock.
func (h *Host) source(want netip.Addr, to netip.Addr) (from netip.Addr) {
	for _, a := range h.addrs {
		if a.Is4() != to.Is4() {
			continue
		}
		if want.IsValid() && a.WithZone("") == want.WithZone("") {
			return a
		}
		if !from.IsValid() {
			from = a
		}
	}
	return from
}

// A conn is a host's sockets on one port.
type conn struct {
	host   *Host
	port   uint16
	r4, r6 *receiver
	mark   uint32
	closed bool
}

func (c *conn) Port() uint16 { return c.port }

func (c *conn) Receivers() (rs []udp.Receiver) {
	for _, r := range []*receiver{c.r4, c.r6} {
		if r != nil {
			rs = append(rs, r)
		}
	}
	return rs
}

func (c *conn) receiver(a netip.Addr) *receiver {
	if a.Is4() {
		return c.r4
	}
	return c.r6
}

func (c *conn) SetMark(mark uint32) error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.mark = mark
	return nil
}

func (c *conn) Close() error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	delete(c.host.conns, c.port)
	for _, r := range []*receiver{c.r4, c.r6} {
		if r != nil {
			r.queue = nil
			r.ready.Broadcast()
		}
	}
	return nil
}

func (c *conn) Send(b *packet.Batch) (first error) {
	for i := range b.Runs {
		r := &b.Runs[i]
		for j := r.First; j < r.First+r.N; j++ {
			p := &b.Packets[j]
			if p.Drop != 0 {
				continue
			}
			d, err := c.address(&r.Endpoint, b.Bytes(j))
			if err != nil {
				p.Drop = packet.DropSend
				if first == nil && !errors.Is(err, net.ErrClosed) {
					err = fmt.Errorf("udp: send to %v: %w", r.Endpoint.Addr, err)
				}
				if first == nil {
					first = err
				}
				continue
			}
			c.host.net.send(d)
		}
	}
	return first
}

// address makes the datagram that goes to e, or says why none can.
func (c *conn) address(e *packet.Endpoint, data []byte) (Datagram, error) {
	n := c.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	to := e.Addr.Addr()
	if c.closed {
		return Datagram{}, net.ErrClosed
	}
	if to.Is4In6() || !to.IsValid() {
		panic(fmt.Sprintf("udptest: BUG: %v is no endpoint", e.Addr)) // the contract says: unmapped
	}
	if c.receiver(to) == nil {
		return Datagram{}, syscall.EAFNOSUPPORT
	}
	from := c.host.source(e.Src, to)
	if !from.IsValid() {
		return Datagram{}, syscall.ENETUNREACH
	}
	if e.Src.IsValid() && e.Src.WithZone("") != from.WithZone("") {
		e.Src, e.SrcIf = netip.Addr{}, 0 // no longer ours; as udp.Conn says
	}
	room, headers := 65507, 28
	if to.Is6() {
		headers = 48
	}
	if peer := n.at(to); peer != nil {
		if mtu := n.paths[pathOf(c.host, peer)].mtu; mtu > 0 {
			room = min(room, mtu-headers)
		}
	}
	if len(data) > room {
		return Datagram{}, syscall.EMSGSIZE
	}
	return Datagram{
		From: netip.AddrPortFrom(from, c.port),
		To:   e.Addr,
		Mark: c.mark,
		Data: slices.Clone(data),
	}, nil
}

// A receiver is one family of a conn.
type receiver struct {
	c     *conn
	ready sync.Cond
	queue []Datagram
}

func (r *receiver) Receive(b *packet.Batch) (more bool, err error) {
	n := r.c.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	first := len(b.Packets)
	for {
		for len(r.queue) == 0 && len(b.Packets) == first && !r.c.closed {
			r.ready.Wait()
		}
		if r.c.closed {
			return false, net.ErrClosed
		}
		for len(r.queue) > 0 {
			off, free := b.Free()
			k, total := r.coalesced()
			if len(b.Packets) > first && (total > len(free) || k > cap(b.Packets)-len(b.Packets)) {
				return true, nil
			}
			d := r.queue[0]
			if total <= len(free) && total > 0 { // else it is truncated, or empty, and dropped
				for _, d := range r.queue[:k] {
					off += copy(b.Slab[off:], d.Data)
				}
				b.Received(total, len(d.Data), packet.Endpoint{Addr: d.From, Src: d.To.Addr().WithZone(""), SrcIf: 1})
			}
			r.queue = r.queue[k:]
		}
		if len(b.Packets) > first {
			return false, nil
		}
	}
}

// coalesced returns how many datagrams at the head of the queue come as one, and their bytes: of one sender and one
// size, the last may be shorter.
func (r *receiver) coalesced() (k, total int) {
	head := r.queue[0]
	for _, d := range r.queue {
		if k > 0 && (r.c.host.net.o.NoGRO || d.From != head.From || d.To != head.To || k == MaxCoalesced ||
			len(d.Data) > len(head.Data) || len(d.Data) == 0 || total+len(d.Data) > 65507) {
			break
		}
		k++
		total += len(d.Data)
		if len(d.Data) < len(head.Data) {
			break
		}
	}
	return k, total
}
