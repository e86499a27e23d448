package netstack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"throughline/internal/eyeballs"
)

const (
	ip4 = ipv4.ProtocolNumber
	ip6 = ipv6.ProtocolNumber
)

var errNoFamily = errors.New("the stack has no address of this family")

// A netSpec is the meaning of a network's name, such as "tcp6".
type netSpec struct {
	name   string
	tcp    bool
	v4, v6 bool // which families it allows
}

func parseNetwork(network string) (netSpec, error) {
	base := strings.TrimRight(network, "46")
	n := netSpec{name: network, tcp: base == "tcp", v4: !strings.HasSuffix(network, "6"), v6: !strings.HasSuffix(network, "4")}
	if base != "tcp" && base != "udp" || len(network) > 4 {
		return n, net.UnknownNetworkError(network)
	}
	return n, nil
}

func (n netSpec) addr(a netip.AddrPort) net.Addr {
	if n.tcp {
		return net.TCPAddrFromAddrPort(a)
	}
	return net.UDPAddrFromAddrPort(a)
}

// Dial is [Stack.DialContext] without a context: only the stack's end, and TCP's own time limits, end an attempt.
func (s *Stack) Dial(network, address string) (net.Conn, error) {
	return s.DialContext(context.Background(), network, address)
}

// DialContext connects to address ("host:port") through the tunnel. The networks are tcp, tcp4, tcp6, udp, udp4 and udp6.
// A name is resolved by [Stack.LookupHost]. If it has several addresses, TCP tries them as RFC 8305 says: IPv6 and IPv4 in
// turn, beginning with the first one's family, each 250 ms after the one before or as soon as that has failed, eight at once at most; the first to connect is
// kept. When ctx ends, the attempt ends; the connection doesn't depend on ctx. An error is a *net.OpError.
//
// A TCP connection also has the methods CloseRead, CloseWrite, SetLinger, SetNoDelay, SetKeepAlive and
// SetKeepAlivePeriod of net.TCPConn.
func (s *Stack) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	n, err := parseNetwork(network)
	if err != nil {
		return nil, opError("dial", network, nil, nil, err)
	}
	to, port, err := s.resolve(ctx, n, address)
	if err != nil {
		return nil, opError("dial", network, nil, nil, err)
	}
	if n.tcp {
		return s.dialTCP(ctx, n, to, port)
	}
	var first error
	for _, ip := range to {
		a := netip.AddrPortFrom(ip, port)
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

// resolve returns the port of address, and the addresses that its host has in the families that n allows and the stack
// has, in the order in which they are to be tried.
func (s *Stack) resolve(ctx context.Context, n netSpec, address string) ([]netip.Addr, uint16, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, 0, err
	}
	base := strings.TrimRight(n.name, "46")
	port, err := net.LookupPort(base, service)
	if err != nil {
		return nil, 0, err
	}
	if host == "" {
		return nil, 0, &net.AddrError{Err: "missing host", Addr: address}
	}
	ips, err := s.lookup(ctx, host, n.v4 && s.v4, n.v6 && s.v6)
	if err != nil {
		return nil, 0, err
	}
	ips = slices.DeleteFunc(ips, func(ip netip.Addr) bool {
		return ip.Is4() && !(n.v4 && s.v4) || ip.Is6() && !(n.v6 && s.v6)
	})
	if len(ips) == 0 {
		return nil, 0, &net.AddrError{Err: "no suitable address", Addr: host}
	}
	return eyeballs.Interleave(ips, ips[0].Is4()), uint16(port), nil
}

// dialTCP connects to one of the addresses. The error is that of the attempt that failed first; or, if the end of ctx or of
// the stack made attempts fail, that of the one which started last among them.
func (s *Stack) dialTCP(ctx context.Context, n netSpec, to []netip.Addr, port uint16) (net.Conn, error) {
	c, failures := eyeballs.Dial(ctx, to, func(ctx context.Context, ip netip.Addr) (*tcpConn, error) {
		return s.connect(ctx, n, netip.AddrPortFrom(ip, port))
	})
	if len(failures) == 0 {
		return c, nil
	}
	end := net.ErrClosed
	if ctx.Err() != nil {
		end = mapContext(ctx)
	}
	reported := failures[0]
	for _, f := range failures {
		if errors.Is(f.Err, end) && (!errors.Is(reported.Err, end) || f.Attempt > reported.Attempt) {
			reported = f
		}
	}
	return nil, opError("dial", n.name, nil, n.addr(netip.AddrPortFrom(to[reported.Attempt], port)), reported.Err)
}

// mapContext returns the error of a context that has ended, as package net does.
func mapContext(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return timeout{}
	}
	return context.Cause(ctx)
}

// A timeout is the error of a call whose context passed its deadline: a net.Error, and context.DeadlineExceeded to errors.Is.
type timeout struct{}

func (timeout) Error() string   { return "i/o timeout" }
func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return true }
func (timeout) Is(err error) bool {
	return err == context.DeadlineExceeded
}

// connect connects to one address.
func (s *Stack) connect(ctx context.Context, n netSpec, to netip.AddrPort) (*tcpConn, error) {
	ep, wq, err := s.endpoint(tcp.ProtocolNumber, protocol(to.Addr()))
	if err != nil {
		return nil, err
	}
	connected := make(signal, 1)
	var entry waiter.Entry
	entry.Init(connected, writable)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	terr := s.register(func() tcpip.Error { return ep.Connect(fullAddress(to, protocol(to.Addr()))) })
	if _, started := terr.(*tcpip.ErrConnectStarted); started {
		terr = nil
		for err == nil && ep.Readiness(writable) == 0 { // still connecting
			select {
			case <-connected:
			case <-ctx.Done():
				err = mapContext(ctx)
			case <-s.done:
				err = net.ErrClosed
			}
		}
	}
	if err == nil && terr == nil {
		terr = ep.LastError()
	}
	if err == nil {
		err = netError(terr)
	}
	if err != nil {
		ep.Close()
		return nil, err
	}
	return newTCP(s, ep, wq, n.name), nil
}

// Listen listens for TCP connections on address ("host:port"; the networks are tcp, tcp4 and tcp6). The host is one of the
// stack's addresses. Without a host it listens on all of them, of both families unless the network names one. Port 0
// picks a free one. An error is a *net.OpError.
func (s *Stack) Listen(network, address string) (net.Listener, error) {
	n, at, err := s.parseLocal(network, address, "tcp")
	if err != nil {
		return nil, opError("listen", network, nil, nil, err)
	}
	ep, wq, _, err := s.bind(n, at)
	if err != nil {
		return nil, opError("listen", network, nil, n.addr(at), err)
	}
	ep.SocketOptions().SetReceiveBufferSize(min(unaccepted, s.mostReceive), false) // connections have the same until Accept
	if terr := s.register(func() tcpip.Error { return ep.Listen(backlog) }); terr != nil {
		ep.Close()
		return nil, opError("listen", network, nil, n.addr(at), netError(terr))
	}
	l := new(listener)
	l.init(s, ep, wq, network)
	local, _ := ep.GetLocalAddress()
	l.local = net.TCPAddrFromAddrPort(listenAddr(local, at))
	return l, nil
}

// ListenPacket listens for UDP datagrams on address, which is as in [Stack.Listen]; the networks are udp, udp4 and udp6. The
// net.PacketConn also has the methods ReadFromUDPAddrPort and WriteToUDPAddrPort of net.UDPConn. An error is a
// *net.OpError.
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

// udp returns a UDP socket. If to is valid, the socket is connected to it and bound to a free port; else it is bound to from.
func (s *Stack) udp(n netSpec, from, to netip.AddrPort) (*udpConn, error) {
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
		if terr := s.register(func() tcpip.Error { return ep.Connect(fullAddress(to, family)) }); terr != nil {
			ep.Close()
			return nil, netError(terr)
		}
	}
	c := &udpConn{family: family, size: s.receive.Open(udpReceive)}
	ep.SocketOptions().SetReceiveBufferSize(c.size, false)
	c.init(s, ep, wq, n.name)
	local, _ := ep.GetLocalAddress()
	c.local = net.UDPAddrFromAddrPort(listenAddr(local, from))
	if to.IsValid() {
		c.local = net.UDPAddrFromAddrPort(addrPort(local))
		c.remote = net.UDPAddrFromAddrPort(to)
	}
	return c, nil
}

// parseLocal reads an address to listen on, which must be one of the stack's, or none.
func (s *Stack) parseLocal(network, address, base string) (n netSpec, at netip.AddrPort, err error) {
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
func (s *Stack) bind(n netSpec, at netip.AddrPort) (tcpip.Endpoint, *waiter.Queue, tcpip.NetworkProtocolNumber, error) {
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
	if terr := s.register(func() tcpip.Error { return ep.Bind(fullAddress(at, family)) }); terr != nil {
		ep.Close()
		return nil, nil, 0, netError(terr)
	}
	return ep, wq, family, nil
}

// listenAddr returns the local address as package net does: an unspecified one as it was asked for, with the port that was
// picked.
func listenAddr(local tcpip.FullAddress, asked netip.AddrPort) netip.AddrPort {
	if a := addrPort(local); a.Addr().IsValid() && !a.Addr().IsUnspecified() {
		return a
	}
	return netip.AddrPortFrom(asked.Addr(), local.Port)
}
