package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"

	"throughline/packet"
)

// A Host is the operating system's network. The zero Host uses every offload that the kernel offers.
type Host struct {
	// Off holds the offloads not to use: without GSO every datagram is sent by itself, without GRO received by itself. A
	// TUN's mean nothing here.
	Off packet.Offload

	// Address is the only one of the host's to bind to; then there is a socket of its family alone. The zero Addr stands
	// for all of them, of both families.
	Address netip.Addr

	// Interface is the name of the network interface to bind to: nothing is sent or received by another, whatever the
	// routes say; so a tunnel's own datagrams can't enter the tunnel. On Linux it may be a VRF. "" stands for all of them.
	// A Conn stays bound to the interface that had the name: when that is deleted, close the Conn and listen anew. Where
	// it isn't implemented (other than on Linux and macOS), Listen's error wraps errors.ErrUnsupported.
	Interface string

	// Control, if not nil, is called once for each socket, after it was created and bound to Interface and before it is
	// bound to its port, as that of a net.ListenConfig is: to set further options, or to have the system exempt the
	// socket from the routes into the tunnel (Android's VpnService.protect). network is "udp4" or "udp6". Its error is
	// Listen's (wrapped), which then leaves no socket open. Listen may open and give up sockets while it looks for a port
	// that is free in both families; Control is called for each. It must neither block the socket nor keep c. A mark that
	// it sets holds until [Conn.SetMark] is called.
	Control func(network, address string, c syscall.RawConn) error
}

const (
	// bufferSize is the size in bytes asked for as each socket's buffers: about 5 ms at 10 Gbit/s, so that a burst fits
	// until the reader is scheduled.
	bufferSize = 7 << 20

	// listenAttempts bounds how often a port that was free in IPv4 may turn out taken in IPv6.
	listenAttempts = 32
)

// Listen implements [Network]. The Conn is an [Offloader], and on Linux a [Watcher].
func (h *Host) Listen(port uint16) (Conn, error) {
	var c *conn
	var err error
	where := fmt.Sprintf("port %d", port)
	if h.Address.IsValid() {
		where = netip.AddrPortFrom(h.Address, port).String()
		c, err = h.listenAt(port)
	} else {
		c, err = listen(h.open, port)
	}
	if s, ok := errors.AsType[*setupError](err); ok {
		err = s.err
	}
	if err != nil {
		return nil, fmt.Errorf("udp: listen on %s: %w", where, err)
	}
	c.routes = newRoutes()
	return c, nil
}

// listenAt opens a port of the one address.
func (h *Host) listenAt(port uint16) (*conn, error) {
	c, network := new(conn), "udp6"
	s := &c.v6
	if h.Address.Unmap().Is4() {
		network, s = "udp4", &c.v4
	}
	var err error
	if *s, err = h.open(network, port); err != nil {
		return nil, err
	}
	c.port = (*s).port()
	return c, nil
}

// listen opens a port in both families, or in the one of the two that has it.
func listen(open func(network string, port uint16) (*socket, error), port uint16) (*conn, error) {
	for attempt := 1; ; attempt++ {
		c := &conn{port: port}
		var err4, err6 error
		if c.v4, err4 = open("udp4", port); err4 == nil {
			c.port = c.v4.port()
		} else if ofBoth(err4) {
			return nil, err4
		}
		if c.v6, err6 = open("udp6", c.port); err6 == nil {
			c.port = c.v6.port()
			c.noteMissing("IPv4", err4)
			return c, nil
		}
		switch {
		case err4 == nil && !ofBoth(err6):
			c.noteMissing("IPv6", err6)
			return c, nil
		case familyMissing(err6):
			return nil, err4 // which says more
		}
		if c.v4 != nil {
			c.v4.close()
		}
		// A port that was picked in IPv4 and is taken in IPv6 is no error yet: another is picked.
		if port != 0 || !errors.Is(err6, syscall.EADDRINUSE) || attempt == listenAttempts {
			return nil, err6
		}
	}
}

// ofBoth reports whether an error of one family's socket is Listen's, and not a reason to do without the family: the port
// must be the same in both, a lack of descriptors is temporary, and setUp must succeed for both.
func ofBoth(err error) bool {
	if _, ok := errors.AsType[*setupError](err); ok {
		return true
	}
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// open opens the socket of one family. Go makes the one for udp6 IPV6_V6ONLY, and doesn't share the port.
func (h *Host) open(network string, port uint16) (*socket, error) {
	host := ""
	if h.Address.IsValid() {
		host = h.Address.Unmap().String()
	}
	var config net.ListenConfig
	var refused error
	if h.Interface != "" || h.Control != nil {
		config.Control = func(network, address string, c syscall.RawConn) error {
			refused = h.setUp(network, address, c)
			return refused
		}
	}
	pc, err := config.ListenPacket(context.Background(), network, net.JoinHostPort(host, strconv.Itoa(int(port))))
	if refused != nil {
		return nil, &setupError{refused}
	}
	if err != nil {
		// The port and what was tried are said once, by Listen.
		if errno, ok := errors.AsType[syscall.Errno](err); ok {
			return nil, canonical(errno)
		}
		return nil, err
	}
	return h.newSocket(pc.(*net.UDPConn), network == "udp6")
}

// A conn is the sockets of both families, one of which may be nil.
type conn struct {
	port    uint16
	v4, v6  *socket
	missing error // why one is nil, if the host has the family
	routes  routes

	markMu sync.Mutex
	mark   uint32 // guarded by markMu
}

// Port implements [Conn].
func (c *conn) Port() uint16 { return c.port }

// MissingFamily implements [Partial].
func (c *conn) MissingFamily() error { return c.missing }

// noteMissing records why a family has no socket; nothing if the host doesn't have the family.
func (c *conn) noteMissing(family string, err error) {
	if err != nil && !familyMissing(err) {
		c.missing = fmt.Errorf("udp: listen on port %d in %s: %w", c.port, family, err)
	}
}

// sockets returns those that are there.
func (c *conn) sockets() []*socket {
	switch {
	case c.v4 == nil:
		return []*socket{c.v6}
	case c.v6 == nil:
		return []*socket{c.v4}
	}
	return []*socket{c.v4, c.v6}
}

// Receivers implements [Conn].
func (c *conn) Receivers() []Receiver {
	var rs []Receiver
	for _, s := range c.sockets() {
		rs = append(rs, s.receiver())
	}
	return rs
}

// Send implements [Conn].
func (c *conn) Send(b *packet.Batch) error {
	var is4, is6 bool
	for i := range b.Runs {
		if b.Runs[i].Endpoint.Addr.Addr().Is4() {
			is4 = true
		} else {
			is6 = true
		}
	}
	var err4, err6 error
	if is4 {
		err4 = sendFamily(c.v4, b, false)
	}
	if is6 {
		err6 = sendFamily(c.v6, b, true)
	}
	if err4 != nil {
		return err4
	}
	return err6
}

// sendFamily sends the runs of b to endpoints of one family by its socket s, or drops them if that is nil.
func sendFamily(s *socket, b *packet.Batch, v6 bool) error {
	if s != nil {
		return s.send(b)
	}
	var first error
	for i := range b.Runs {
		if r := &b.Runs[i]; isFamily(r.Endpoint.Addr.Addr(), v6) {
			first = firstError(first, dropRun(b, r, syscall.EAFNOSUPPORT))
		}
	}
	return first
}

// dropRun drops the live packets of r because of err, and returns the error that says so; nil if there were none.
func dropRun(b *packet.Batch, r *packet.Run, err error) error {
	dropped := false
	for i := r.First; i < r.First+r.N; i++ {
		if p := &b.Packets[i]; p.Drop == 0 {
			p.Drop, dropped = packet.DropSend, true
		}
	}
	if !dropped {
		return nil
	}
	return sendError(r.Endpoint.Addr, err)
}

func sendError(to netip.AddrPort, err error) error {
	if errors.Is(err, net.ErrClosed) {
		return net.ErrClosed
	}
	return fmt.Errorf("udp: send to %v: %w", to, err)
}

// firstError returns a unless it is nil, else b.
func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// isFamily reports whether a is of the family. The zero Addr counts as IPv6, where the kernel refuses it.
func isFamily(a netip.Addr, v6 bool) bool { return a.Is4() != v6 }

// SetMark implements [Conn].
func (c *conn) SetMark(mark uint32) error {
	c.markMu.Lock()
	defer c.markMu.Unlock()
	for i, s := range c.sockets() {
		if err := s.setMark(mark); err != nil {
			for _, done := range c.sockets()[:i] {
				done.setMark(c.mark) // it could be set before
			}
			if errors.Is(err, net.ErrClosed) {
				return net.ErrClosed
			}
			return fmt.Errorf("udp: set mark %#x: %w", mark, err)
		}
	}
	c.mark = mark
	return nil
}

// Close implements [Conn].
func (c *conn) Close() (err error) {
	for _, s := range c.sockets() {
		if e := s.close(); e != nil && !errors.Is(e, net.ErrClosed) {
			err = e
		}
	}
	c.routes.close()
	return err
}

// Offloads implements [Offloader].
func (c *conn) Offloads() packet.OffloadStates {
	ss := c.sockets()
	states := ss[0].offloads()
	for _, s := range ss[1:] {
		for o, state := range s.offloads() {
			states[o] = states[o].Merge(state)
		}
	}
	return states
}
