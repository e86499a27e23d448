package netstack

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"throughline/netstack/internal/dns"
)

// How often and how long a server is asked, as resolv.conf(5) has it by default.
const (
	dnsAttempts = 2
	dnsTimeout  = 5 * time.Second
)

// LookupHost returns the addresses of name, IPv6 first, in the families that the stack has addresses in. The name is taken
// to be complete: no search domain is added to it. The tunnel's DNS servers are asked by UDP and, where an answer is
// truncated, by TCP; nobody else is asked, not even the host's own files. An error is a *net.DNSError.
//
// The standard library's resolver isn't used because it takes servers, their number and the order of sources from the
// host's configuration.
func (s *Stack) LookupHost(ctx context.Context, name string) ([]netip.Addr, error) {
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
	if len(s.dns) == 0 {
		return nil, fail(errors.New("the stack has no DNS servers"), "")
	}
	var last error
	for range dnsAttempts {
		for _, server := range s.dns {
			at := netip.AddrPortFrom(server, 53)
			ips, err := s.ask(ctx, at, name)
			switch {
			case err == nil && len(ips) > 0:
				return ips, nil
			case err == nil:
				return nil, fail(dns.ErrNoHost, at.String())
			case ctx.Err() != nil:
				return nil, fail(mapContext(ctx), at.String())
			case s.isClosed():
				return nil, fail(net.ErrClosed, "")
			}
			last = fail(err, at.String())
		}
	}
	return nil, last
}

// A question is one that was asked, and what came of it.
type question struct {
	id   uint16
	kind uint16
	ips  []netip.Addr
	err  error
	done bool
}

// ask asks one server for all addresses of name. Both questions are on their way at the same time.
func (s *Stack) ask(ctx context.Context, server netip.AddrPort, name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
	defer cancel()
	var qs []*question
	if s.v6 {
		qs = append(qs, &question{id: uint16(rand.Uint32()), kind: dns.AAAA})
	}
	if s.v4 {
		qs = append(qs, &question{id: uint16(rand.Uint32()), kind: dns.A})
	}
	c, err := s.udp(scheme{name: "udp"}, netip.AddrPort{}, server)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer withContext(ctx, &c.rd)()
	for _, q := range qs {
		if _, err := c.Write(dns.AppendQuery(nil, q.id, name, q.kind)); err != nil {
			return nil, err
		}
	}
	buf := make([]byte, 4096)
	for slices.ContainsFunc(qs, func(q *question) bool { return !q.done }) {
		n, err := c.Read(buf)
		if err != nil {
			for _, q := range qs {
				if !q.done {
					q.err = err
				}
			}
			break
		}
		for _, q := range qs {
			if !q.done && dns.IsAnswer(buf[:n], q.id, name, q.kind) {
				q.done = true
				q.ips, q.err = dns.Parse(buf[:n], q.kind)
				if q.err == dns.ErrTruncated {
					q.ips, q.err = s.askTCP(ctx, server, name, q)
				}
			}
		}
	}
	var ips []netip.Addr
	for _, q := range qs {
		ips = append(ips, q.ips...)
		if q.err != nil && q.err != dns.ErrNoHost {
			err = q.err
		}
	}
	if len(ips) > 0 {
		return ips, nil // what is known of the other family doesn't matter
	}
	return nil, err
}

// askTCP asks again what was too long for UDP. RFC 7766 §8.
func (s *Stack) askTCP(ctx context.Context, server netip.AddrPort, name string, q *question) ([]netip.Addr, error) {
	nc, err := s.dialTCP(ctx, scheme{name: "tcp"}, []netip.AddrPort{server})
	if err != nil {
		return nil, err
	}
	c := nc.(*tcpConn)
	defer c.Close()
	defer withContext(ctx, &c.rd)()
	msg := dns.AppendQuery(make([]byte, 2), q.id, name, q.kind)
	binary.BigEndian.PutUint16(msg, uint16(len(msg)-2))
	if _, err := c.Write(msg); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	msg = make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, msg); err != nil {
		return nil, err
	}
	if !dns.IsAnswer(msg, q.id, name, q.kind) {
		return nil, dns.ErrServer
	}
	return dns.Parse(msg, q.kind)
}
