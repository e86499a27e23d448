package netstack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	ip4 = ipv4.ProtocolNumber
	ip6 = ipv6.ProtocolNumber
)

// attemptDelay is how long an attempt to connect has the field for itself. RFC 8305 §5.
const attemptDelay = 250 * time.Millisecond

var errNoFamily = errors.New("the stack has no address of this family")

// A scheme is what the name of a network says.
type scheme struct {
	name   string
	tcp    bool
	v4, v6 bool // which families it allows
}

func parseNetwork(network string) (scheme, error) {
	base := strings.TrimRight(network, "46")
	n := scheme{name: network, tcp: base == "tcp", v4: !strings.HasSuffix(network, "6"), v6: !strings.HasSuffix(network, "4")}
	if base != "tcp" && base != "udp" || len(network) > 4 {
		return n, net.UnknownNetworkError(network)
	}
	return n, nil
}

func (n scheme) addr(a netip.AddrPort) net.Addr {
	if n.tcp {
		return net.TCPAddrFromAddrPort(a)
	}
	return net.UDPAddrFromAddrPort(a)
}

// Dial is DialContext without a context.
func (s *Stack) Dial(network, address string) (net.Conn, error) {
	return s.DialContext(context.Background(), network, address)
}

// DialContext connects to address ("host:port") through the tunnel. The networks are tcp, tcp4, tcp6, udp, udp4 and udp6.
// A name is resolved by [Stack.LookupHost]. A name with several addresses has them tried for TCP in turn, beginning with
// IPv6 and changing the family, each 250 ms after the one before unless that has failed; the first to connect is kept.
//
// A TCP connection also has the methods CloseRead, CloseWrite, SetLinger, SetNoDelay, SetKeepAlive and
// SetKeepAlivePeriod of net.TCPConn.
func (s *Stack) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	n, err := parseNetwork(network)
	if err != nil {
		return nil, opError("dial", network, nil, nil, err)
	}
	to, err := s.resolve(ctx, n, address)
	if err != nil {
		return nil, opError("dial", network, nil, nil, err)
	}
	if n.tcp {
		return s.dialTCP(ctx, n, to)
	}
	var first error
	for _, a := range to {
		c, err := s.udp(n, netip.AddrPort{}, a)
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = opError("dial", network, nil, n.addr(a), err)
		}
	}
	return nil, first
}

// resolve returns the addresses that the host of address has in the families that n allows and the stack has, in the
// order in which they are to be tried.
func (s *Stack) resolve(ctx context.Context, n scheme, address string) ([]netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	base := strings.TrimRight(n.name, "46")
	port, err := net.LookupPort(base, service)
	if err != nil {
		return nil, err
	}
	if host == "" {
		return nil, &net.AddrError{Err: "missing host", Addr: address}
	}
	ips, err := s.lookup(ctx, host, n.v4 && s.v4, n.v6 && s.v6)
	if err != nil {
		return nil, err
	}
	var of [2][]netip.AddrPort // IPv6, IPv4
	for _, ip := range ips {
		a := netip.AddrPortFrom(ip, uint16(port))
		switch {
		case ip.Is4() && n.v4 && s.v4:
			of[1] = append(of[1], a)
		case ip.Is6() && n.v6 && s.v6:
			of[0] = append(of[0], a)
		}
	}
	var out []netip.AddrPort
	for i := range max(len(of[0]), len(of[1])) {
		for _, as := range of {
			if i < len(as) {
				out = append(out, as[i])
			}
		}
	}
	if len(out) == 0 {
		return nil, &net.AddrError{Err: "no suitable address", Addr: host}
	}
	return out, nil
}

// An attempt is one connection being made.
type attempt struct {
	to    netip.AddrPort
	ep    tcpip.Endpoint
	wq    *waiter.Queue
	entry waiter.Entry
}

// over takes the attempt out of the race.
func (a *attempt) over() { a.wq.EventUnregister(&a.entry) }

// dialTCP lets attempts race. They all wake this goroutine by one signal; there is no other.
func (s *Stack) dialTCP(ctx context.Context, n scheme, to []netip.AddrPort) (net.Conn, error) {
	var (
		running []*attempt
		first   error
		woken   = make(signal, 1)
		pace    = time.NewTimer(0)
	)
	defer pace.Stop()
	defer func() {
		for _, a := range running {
			a.over()
			a.ep.Close()
		}
	}()
	failed := func(a netip.AddrPort, err error) {
		if first == nil {
			first = opError("dial", n.name, nil, n.addr(a), err)
		}
		pace.Reset(0)
	}
	for len(to) > 0 || len(running) > 0 {
		select {
		case <-woken:
		case <-pace.C:
			if len(to) == 0 {
				continue
			}
			at := to[0]
			to = to[1:]
			pace.Reset(attemptDelay)
			a, err := s.attempt(at, woken)
			if err != nil {
				failed(at, err)
				continue
			}
			running = append(running, a)
		case <-ctx.Done():
			return nil, opError("dial", n.name, nil, n.addr(last(running, to)), mapContext(ctx))
		case <-s.done:
			return nil, opError("dial", n.name, nil, n.addr(last(running, to)), net.ErrClosed)
		}
		for i := 0; i < len(running); i++ {
			a := running[i]
			if a.ep.Readiness(writable) == 0 {
				continue // still connecting
			}
			running = append(running[:i], running[i+1:]...)
			i--
			a.over()
			if err := a.ep.LastError(); err != nil {
				a.ep.Close()
				failed(a.to, goError(err))
				continue
			}
			return newTCP(s, a.ep, a.wq, n.name), nil
		}
	}
	return nil, first
}

func last(running []*attempt, to []netip.AddrPort) netip.AddrPort {
	if len(running) > 0 {
		return running[len(running)-1].to
	}
	return to[0]
}

// mapContext returns the error of a context that has ended, as package net tells it.
func mapContext(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return timeout{}
	}
	return context.Cause(ctx)
}

// A timeout is a dial whose context passed its deadline: a net.Error that is context.DeadlineExceeded too.
type timeout struct{}

func (timeout) Error() string   { return "i/o timeout" }
func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return true }
func (timeout) Is(err error) bool {
	return err == context.DeadlineExceeded
}

// attempt begins to connect.
func (s *Stack) attempt(to netip.AddrPort, woken signal) (*attempt, error) {
	ep, wq, err := s.endpoint(tcp.ProtocolNumber, protocol(to.Addr()))
	if err != nil {
		return nil, err
	}
	a := &attempt{to: to, ep: ep, wq: wq}
	a.entry.Init(woken, writable)
	wq.EventRegister(&a.entry)
	terr := s.register(func() tcpip.Error { return ep.Connect(full(to, protocol(to.Addr()))) })
	if _, started := terr.(*tcpip.ErrConnectStarted); terr != nil && !started {
		a.over()
		ep.Close()
		return nil, goError(terr)
	}
	return a, nil
}

// Listen listens for TCP connections on address ("host:port"; the networks are tcp, tcp4 and tcp6). The host is an address
// of the stack's own. Without one, connections to all of them are taken, of both families unless the network says
// otherwise. Port 0 picks a free one.
func (s *Stack) Listen(network, address string) (net.Listener, error) {
	n, at, err := s.parseLocal(network, address, "tcp")
	if err != nil {
		return nil, opError("listen", network, nil, nil, err)
	}
	ep, wq, _, err := s.bind(n, at)
	if err != nil {
		return nil, opError("listen", network, nil, n.addr(at), err)
	}
	if terr := s.register(func() tcpip.Error { return ep.Listen(backlog) }); terr != nil {
		ep.Close()
		return nil, opError("listen", network, nil, n.addr(at), goError(terr))
	}
	l := new(listener)
	l.init(s, ep, wq, network)
	local, _ := ep.GetLocalAddress()
	l.local = net.TCPAddrFromAddrPort(shown(local, at))
	return l, nil
}

// ListenPacket listens for UDP datagrams on address, which is as in [Stack.Listen]; the networks are udp, udp4 and udp6.
func (s *Stack) ListenPacket(network, address string) (net.PacketConn, error) {
	n, at, err := s.parseLocal(network, address, "udp")
	if err != nil {
		return nil, opError("listen", network, nil, nil, err)
	}
	c, err := s.udp(n, at, netip.AddrPort{})
	if err != nil {
		return nil, opError("listen", network, nil, n.addr(at), err)
	}
	return c, nil
}

// udp returns a UDP socket bound to from, any port if that is not valid, and connected to to if that is valid.
func (s *Stack) udp(n scheme, from, to netip.AddrPort) (*udpConn, error) {
	if to.IsValid() {
		from = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
		n.v4, n.v6 = to.Addr().Is4(), to.Addr().Is6()
		if n.v6 {
			from = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
		}
	}
	ep, wq, family, err := s.bind(n, from)
	if err != nil {
		return nil, err
	}
	if to.IsValid() {
		if terr := s.register(func() tcpip.Error { return ep.Connect(full(to, family)) }); terr != nil {
			ep.Close()
			return nil, goError(terr)
		}
	}
	c := &udpConn{family: family}
	c.init(s, ep, wq, n.name)
	local, _ := ep.GetLocalAddress()
	c.local = net.UDPAddrFromAddrPort(shown(local, from))
	if to.IsValid() {
		c.local = net.UDPAddrFromAddrPort(unbound(local))
		c.remote = net.UDPAddrFromAddrPort(to)
	}
	return c, nil
}

// parseLocal reads an address to listen on, which must be one of the stack's, or none.
func (s *Stack) parseLocal(network, address, base string) (n scheme, at netip.AddrPort, err error) {
	if n, err = parseNetwork(network); err != nil {
		return n, at, err
	}
	if n.tcp != (base == "tcp") {
		return n, at, net.UnknownNetworkError(network)
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return n, at, err
	}
	port, err := net.LookupPort(base, service)
	if err != nil {
		return n, at, err
	}
	ip := netip.IPv6Unspecified()
	if host != "" {
		if ip, err = netip.ParseAddr(host); err != nil {
			return n, at, &net.AddrError{Err: "not an address", Addr: host}
		}
		ip = ip.Unmap()
		n.v4, n.v6 = n.v4 && (ip.Is4() || ip == netip.IPv6Unspecified()), n.v6 && ip.Is6()
	}
	n.v4, n.v6 = n.v4 && s.v4, n.v6 && s.v6
	if !n.v4 && !n.v6 {
		return n, at, &net.AddrError{Err: "no suitable address", Addr: address}
	}
	if !n.v6 && ip.Is6() {
		ip = netip.IPv4Unspecified()
	}
	return n, netip.AddrPortFrom(ip, uint16(port)), nil
}

// bind makes an endpoint for what n allows, both families or one, and binds it.
func (s *Stack) bind(n scheme, at netip.AddrPort) (tcpip.Endpoint, *waiter.Queue, tcpip.NetworkProtocolNumber, error) {
	family, proto := ip4, udp.ProtocolNumber
	if n.v6 {
		family = ip6
	}
	if n.tcp {
		proto = tcp.ProtocolNumber
	}
	ep, wq, err := s.endpoint(proto, family)
	if err != nil {
		return nil, nil, 0, err
	}
	ep.SocketOptions().SetV6Only(n.v6 && !n.v4)
	if n.tcp {
		ep.SocketOptions().SetReuseAddress(true) // as package net does, for the sake of connections in TIME-WAIT
	}
	if terr := s.register(func() tcpip.Error { return ep.Bind(full(at, family)) }); terr != nil {
		ep.Close()
		return nil, nil, 0, goError(terr)
	}
	return ep, wq, family, nil
}

// shown returns the local address as package net shows it: unspecified as it was asked for, and the port picked.
func shown(local tcpip.FullAddress, asked netip.AddrPort) netip.AddrPort {
	if a := unbound(local); a.Addr().IsValid() && !a.Addr().IsUnspecified() {
		return a
	}
	return netip.AddrPortFrom(asked.Addr(), local.Port)
}
