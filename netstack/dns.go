package netstack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"

	"throughline/internal/eyeballs"
	"throughline/netstack/internal/dns"
)

// LookupHost returns the addresses of name in the families that the stack has addresses in: IPv6 first, but behind the others
// those that its own can't be expected to reach, like global ones from a link-local one (RFC 6724). A name
// without a dot is looked up in each of Options.Search, in their order, and then as it is; other names, and those with a dot at
// the end, only as they are. The servers in Options.DNS are asked, through the tunnel, by UDP and, where an answer is truncated,
// by TCP; no other source is used, not even the host's own files. Once the addresses of one family are known, the answer
// about the other is not waited for long. Nothing is cached. An error is a *net.DNSError.
//
// The standard library's resolver isn't used because it takes servers, their number and the order of sources from the
// host's configuration.
func (s *Stack) LookupHost(ctx context.Context, name string) ([]netip.Addr, error) {
	return s.lookup(ctx, name, s.v4, s.v6)
}

// lookup is LookupHost in the families that are asked for. If none is, it returns no address and no error.
func (s *Stack) lookup(ctx context.Context, name string, v4, v6 bool) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{ip.Unmap().WithZone("")}, nil
	}
	fail := func(err error, server string) error {
		e := &net.DNSError{Err: err.Error(), UnwrapErr: err, Name: name, Server: server, IsNotFound: err == dns.ErrNoHost}
		var t interface{ Timeout() bool }
		e.IsTimeout = errors.As(err, &t) && t.Timeout()
		e.IsTemporary = e.IsTimeout || err == dns.ErrServer
		return e
	}
	if !dns.IsName(name) {
		return nil, fail(dns.ErrNoHost, "")
	}
	names := []string{name}
	if !strings.Contains(name, ".") { // ndots:1, as in resolv.conf(5)
		names = names[:0]
		for _, domain := range s.search {
			if full := name + "." + domain; dns.IsName(full) {
				names = append(names, full)
			}
		}
		names = append(names, name)
	}
	if len(s.dns.Servers) == 0 {
		return nil, fail(errors.New("the stack has no DNS servers"), "")
	}
	var kinds []uint16
	if v6 {
		kinds = append(kinds, dns.AAAA)
	}
	if v4 {
		kinds = append(kinds, dns.A)
	}
	if len(kinds) == 0 {
		return nil, nil
	}
	var (
		ips    []netip.Addr
		server netip.AddrPort
		err    error
	)
	for _, full := range names {
		// Only a name that doesn't exist is looked up elsewhere: while a server fails, a name must not lead to another host.
		if ips, server, err = s.dns.Lookup(ctx, full, kinds...); err != dns.ErrNoHost {
			break
		}
	}
	switch {
	case err == nil:
		return eyeballs.Order(ips, s.own), nil
	case s.isClosed():
		return nil, fail(net.ErrClosed, "")
	case ctx.Err() != nil:
		err = mapContext(ctx)
	}
	return nil, fail(err, server.String())
}

// dialDNS connects to a DNS server.
func (s *Stack) dialDNS(ctx context.Context, network string, server netip.AddrPort) (net.Conn, error) {
	if network == "tcp" {
		return s.dialTCP(ctx, netSpec{name: network, tcp: true}, []netip.Addr{server.Addr()}, server.Port())
	}
	c, err := s.udp(netSpec{name: network}, netip.AddrPort{}, server)
	if err != nil {
		return nil, err // not c: a nil *udpConn is not a nil net.Conn
	}
	return c, nil
}
