package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"throughline/proxy/internal/datagram"
	"throughline/proxy/internal/idle"
	"throughline/proxy/internal/names"
	"throughline/proxy/internal/relay"
	"throughline/proxy/internal/socks5"
)

const maxReadFailure = 16 // in a row, before a UDP socket is given up: an ICMP error may be one

// An association carries datagrams between one client and the targets. RFC 1928 §7. It lives as long as the connection
// that asked for it, and moves or is asked something before the section's idle time-out.
//
// Targets see one socket whatever they are, and any of them may answer, as with a socket of the client's own. The first
// source that sends from the client's address is the client from then on.
type association struct {
	s       *section
	control net.Conn
	inner   net.PacketConn // to the client
	outer   net.PacketConn // to the targets
	from    netip.Addr     // the client's address
	client  atomic.Pointer[netip.AddrPort]
	clock   *idle.Clock
	names   *names.Names
}

// associate serves a request for datagrams until its connection ends.
func (s *section) associate(l *live, c net.Conn, expected string) error {
	local, remote := datagram.AddrPort(c.LocalAddr()), datagram.AddrPort(c.RemoteAddr())
	fail := func(err error) error {
		c.Write(socks5.AppendReply(nil, socks5.Failure, netip.AddrPort{}))
		relay.Linger(c)
		return err
	}
	if !local.IsValid() || !remote.IsValid() {
		return fail(fmt.Errorf("no datagrams on a %T", c))
	}
	inner, err := s.listens.ListenPacket("udp", net.JoinHostPort(local.Addr().String(), "0"))
	if err != nil {
		return fail(err)
	}
	defer l.drop(inner)
	outer, err := s.targets.ListenPacket("udp", ":0")
	if err != nil {
		inner.Close()
		return fail(err)
	}
	defer l.drop(outer)
	if !l.add(inner) || !l.add(outer) {
		return net.ErrClosed
	}
	a := &association{s: s, control: c, inner: inner, outer: outer, from: remote.Addr().WithZone(""), clock: idle.New(s.IdleTimeout)}
	a.names = names.New(l.ctx, s.dialer.Lookup, a.toTarget)
	defer a.names.Close()
	if want, err := netip.ParseAddrPort(expected); err == nil && want.Port() != 0 && want.Addr() == a.from {
		a.client.Store(&want) // the client has declared the source of its datagrams
	}
	if _, err := c.Write(socks5.AppendReply(nil, socks5.Succeeded, datagram.AddrPort(inner.LocalAddr()))); err != nil {
		return err
	}
	done := make(chan struct{}, 2)
	go func() { a.pump(inner, a.fromClient); done <- struct{}{} }()
	go func() { a.pump(outer, a.fromTarget); done <- struct{}{} }()
	err = a.watch()
	inner.Close()
	outer.Close()
	<-done
	<-done
	return err
}

// watch returns when the connection ends, anything comes on it, or nothing has moved for the idle time-out.
func (a *association) watch() error {
	var b [1]byte
	for {
		var deadline time.Time
		if tick := a.clock.Tick(); tick > 0 {
			deadline = time.Now().Add(tick)
		}
		a.control.SetReadDeadline(deadline)
		switch n, err := a.control.Read(b[:]); {
		case n > 0:
			return errors.New("the client sent data on the connection of an association")
		case err == io.EOF:
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case a.clock.Expired():
			return idle.ErrIdle
		}
	}
}

// pump reads one of the sockets until it fails, and ends the association then.
func (a *association) pump(pc net.PacketConn, each func(b []byte, n int, from netip.AddrPort)) {
	b := datagram.Buffers.Get().(*datagram.Buffer)
	defer datagram.Buffers.Put(b)
	defer a.control.Close()
	for failures := 0; ; {
		n, from, err := datagram.Receive(pc, b[datagram.Headroom:])
		if err != nil {
			if failures++; failures > maxReadFailure || errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		failures = 0
		each(b[:], n, from)
	}
}

// fromClient takes the header off a datagram of the client, and sends it to the address in it.
func (a *association) fromClient(b []byte, n int, from netip.AddrPort) {
	if from.Addr().WithZone("") != a.from {
		return
	}
	address, data, err := socks5.ParseDatagram(b[datagram.Headroom : datagram.Headroom+n])
	if err != nil {
		return
	}
	if c := a.client.Load(); c == nil {
		a.client.Store(&from)
	} else if c.Port() != from.Port() {
		return
	}
	if to, err := netip.ParseAddrPort(address); err == nil {
		a.toTarget(data, to)
		return
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return
	}
	if port, err := strconv.ParseUint(service, 10, 16); err == nil {
		a.names.Send(host, uint16(port), data)
	}
}

// toTarget sends a datagram; there is no port 0 to send to.
func (a *association) toTarget(data []byte, to netip.AddrPort) {
	if to.Port() == 0 || datagram.Send(a.outer, data, to) != nil {
		return
	}
	a.s.toTarget.Add(uint64(len(data)))
	a.clock.Moved()
}

// fromTarget puts a header before a datagram, where there is room for it, and sends it to the client.
func (a *association) fromTarget(b []byte, n int, from netip.AddrPort) {
	to := a.client.Load()
	if to == nil {
		return
	}
	var h [datagram.Headroom]byte
	header := socks5.AppendHeader(h[:0], from)
	at := datagram.Headroom - len(header)
	copy(b[at:], header)
	if datagram.Send(a.inner, b[at:datagram.Headroom+n], *to) == nil {
		a.s.toClient.Add(uint64(n))
		a.clock.Moved()
	}
}
