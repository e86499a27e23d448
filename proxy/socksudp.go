package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"throughline/proxy/internal/association"
	"throughline/proxy/internal/datagram"
	"throughline/proxy/internal/relay"
	"throughline/proxy/internal/socks5"
)

const (
	maxReadFailure = 16 // in a row, before a UDP socket is given up: an ICMP error may be one

	// firstWithin is how soon after the reply a client that logged in must send its first datagram, if it didn't declare where
	// from: until then the association is the first sender's at its address.
	firstWithin = 10 * time.Second
)

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
	a := &association.Association{
		Control: c, Inner: inner, Outer: outer, Lookup: s.dialer.Lookup,
		Client: remote.Addr().WithZone(""), IdleTimeout: s.IdleTimeout, ToTarget: &s.toTarget, ToClient: &s.toClient, Dropped: &s.dropped,
	}
	if s.login != nil {
		a.FirstWithin = firstWithin
	}
	// Another address than the client's is one behind a NAT, which changes ports too.
	if want, err := netip.ParseAddrPort(expected); err == nil && want.Port() != 0 &&
		(want.Addr() == a.Client || s.login != nil && want.Addr().IsUnspecified()) {
		a.Declare(netip.AddrPortFrom(remote.Addr(), want.Port()))
	}
	if _, err := c.Write(socks5.AppendReply(nil, socks5.Succeeded, datagram.AddrPort(inner.LocalAddr()))); err != nil {
		return err
	}
	return a.Serve(l.ctx)
}
