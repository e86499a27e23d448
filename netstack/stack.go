// Package netstack is a TCP/IP stack in user space, gVisor's, as a [tun.Device]: a tunnel without a network interface,
// and without the privilege to make one.
//
// A [Stack] is what a throughline.Device takes for its TUN, and what a program dials and listens on: [Stack.Dial],
// [Stack.Listen], [Stack.ListenPacket] and [Stack.LookupHost] behave as their namesakes in package net do, but everything
// goes through the tunnel, and so does [Stack.Ping]. Names are resolved by the tunnel's DNS servers alone; the host's
// configuration is not read. The examples show an HTTP client and an HTTP server inside a tunnel.
//
// # Ownership
//
// A throughline.Device that was made with a Stack owns it: closing the device closes the stack, and with it every
// connection and listener. A stack that no device owns is closed by [Stack.Close]. The caller closes connections and
// listeners, as in package net; one that is never closed keeps its buffers until the stack is closed.
//
// # Concurrency
//
// Everything is safe for concurrent use except that a Queue has one reader and one writer at a time. The two must be
// different goroutines: a Write may wait until a Read has made space. gVisor starts a few goroutines, which Close waits
// for; while a name with several addresses is dialed there is one for each attempt, which the dial waits for.
//
// # Data path
//
// It is built for bulk transfers. Outbound, gVisor sends super-packets, as it would to a network card; their segments are
// put straight into the batch, each byte copied once and summed once. Inbound, offload.Merger merges the segments of a flow
// and verifies their checksums, and gVisor gets them as one packet; gVisor verifies packets that couldn't be merged.
// Nothing is allocated for each packet except from gVisor's pools.
//
// Between gVisor and Queue.Read is a queue with two bounds. At the lower, 512 KiB or 512 packets, a sender of TCP data waits,
// so that a fast program is slowed down and loses nothing. Other packets (SYN, RST, ICMP, UDP) are queued up to the upper
// bound, 4096 packets, and then dropped, as a full interface does; a UDP socket's own buffer makes its program wait long
// before that. The queue keeps the order of all packets. A Write to a TCP connection that waits for the queue returns late
// if its deadline passes meanwhile: when there is space. A Device keeps reading, so that is soon.
//
// # Limits
//
// The addresses and the MTU of a stack don't change. A TCP connection buffers up to Options.Buffer each way, a UDP socket
// 1 MiB received and 256 KiB to be sent, and Options.Receive bounds what all of them have received and nobody has read; the
// number of connections is bounded by memory alone. A listener keeps at most 4096 connections that nobody has accepted, each
// with a receive buffer of 32 KiB. There are no raw sockets and no multicast groups, and IPv6 zones are ignored.
// gVisor's logger belongs to the process: New makes it discard what would go to stderr, as a received packet can cause a
// line, unless the program has set up a logger of its own or the debug level.
//
// This package and its own internal/link alone import gVisor.
package netstack

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"throughline/netstack/internal/budget"
	"throughline/netstack/internal/dns"
	"throughline/netstack/internal/link"
	"throughline/tun"
)

const (
	// DefaultMTU is the MTU of a stack whose Options name none, in bytes: Ethernet's 1500 less what the tunnel adds over IPv6.
	DefaultMTU = 1420

	minMTU4 = 576  // RFC 791 §3.2: what every host must be able to receive
	minMTU6 = 1280 // RFC 8200 §5
	maxMTU  = 65535

	// defaultBuffer is the limit of a connection's buffers in bytes: enough for 400 Mbit/s at a round-trip time of 80 ms.
	defaultBuffer = 4 << 20
	maxBuffer     = 1 << 30

	// The sizes with which a connection's buffers begin; they grow with what the path carries. A receive buffer's window, half
	// of it, is a promise that can't be taken back, so it begins small, and grows with what the program reads; see readSize.
	firstReceive = 128 << 10
	firstSend    = 32 << 10

	// quickReceive is up to where a receive buffer grows by what was read alone, before gVisor has measured the path.
	quickReceive = 1 << 20

	// unaccepted is the size of the receive buffer of a connection that nobody has accepted: enough for the ten segments with
	// which a sender begins.
	unaccepted = 32 << 10

	// defaultReceive is the budget of all receive buffers in bytes: 32 connections with buffers of 4 MiB, or 1,024 of 128 KiB.
	defaultReceive = 128 << 20
	leastReceive   = 32 << 10 // what each connection has of it at least
	minReceive     = 1 << 20

	maxSearch = 32 // domains

	udpReceive = 1 << 20   // bytes that a UDP socket holds until they are read, unless the budget is short
	udpSend    = 256 << 10 // bytes that it holds until the tunnel has read them; far below the queue's upper bound

	nic = 1 // the number of the only interface
)

// Options configure a stack. New keeps none of the slices.
type Options struct {
	// Addresses are the stack's own, of either family or both; at least one. All other destinations are routed into the
	// tunnel, so there are no prefix lengths. IPv4-mapped IPv6 addresses are refused.
	Addresses []netip.Addr

	// DNS are the servers that resolve names: they are asked through the tunnel, on port 53, in this order. Without any, only
	// addresses can be dialed.
	DNS []netip.Addr

	// Search are the domains that names without a dot are looked up in, in this order; at most 32.
	Search []string

	// MTU is the stack's MTU in bytes, from 576, or with an IPv6 address from 1280, to 65535; 0 stands for [DefaultMTU].
	MTU int

	// Buffer limits how many bytes one TCP connection buffers in each direction; 0 stands for 4 MiB. Memory is taken as it is
	// needed. When more than sixteen connections have more to send than the path carries, each may buffer less, down to
	// 64 KiB.
	Buffer int

	// Receive limits how many bytes the receive buffers of all TCP connections and UDP sockets have together, from 1 MiB; 0
	// stands for 128 MiB. A buffer grows with what the program reads. When the sum is above the limit, new and busy connections
	// get smaller windows: each its fair share, for which the sum may be half as large again, and no less than 32 KiB.
	Receive int
}

var errClosed = fmt.Errorf("netstack: %w", os.ErrClosed)

// A Stack is a TCP/IP host of its own inside this process, with one interface. All methods are safe for concurrent use.
type Stack struct {
	ip     *stack.Stack
	link   *link.Link
	mtu    int
	dns    dns.Resolver
	search []string
	own    []netip.Addr
	v4, v6 bool // has an address of the family
	share  share

	receive     budget.Budget // of all receive buffers
	mostReceive int64         // how large one may grow, in bytes

	events chan tun.Event
	done   chan struct{} // closed when Close begins

	mu     sync.RWMutex // read-locked while an endpoint is made, so that Close misses none
	closed bool
	ended  sync.Once
}

var _ tun.Device = (*Stack)(nil)

// New returns a stack that is up. The caller owns it until a throughline.Device is made with it.
func New(o Options) (*Stack, error) {
	if o.MTU == 0 {
		o.MTU = DefaultMTU
	}
	if o.Buffer == 0 {
		o.Buffer = defaultBuffer
	}
	if o.Buffer < tcp.MinBufferSize || o.Buffer > maxBuffer {
		return nil, fmt.Errorf("netstack: a buffer limit of %d bytes, not from %d to %d", o.Buffer, tcp.MinBufferSize, maxBuffer)
	}
	if o.Receive == 0 {
		o.Receive = defaultReceive
	}
	if o.Receive < minReceive {
		return nil, fmt.Errorf("netstack: a limit of all receive buffers of %d bytes, less than %d", o.Receive, minReceive)
	}
	silencing.Do(silence)
	s := &Stack{events: make(chan tun.Event, 1), done: make(chan struct{})}
	s.dns.Dial = s.dialDNS
	s.receive.Total, s.receive.Least = int64(o.Receive), min(leastReceive, int64(o.Buffer))
	s.mostReceive = int64(o.Buffer)
	for _, a := range o.Addresses {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() {
			return nil, fmt.Errorf("netstack: %v can't be an interface's address", a)
		}
		s.own = append(s.own, a.WithZone(""))
		s.v4, s.v6 = s.v4 || a.Is4(), s.v6 || a.Is6()
	}
	for _, a := range o.DNS {
		if !a.IsValid() {
			return nil, errors.New("netstack: the zero address as a DNS server")
		}
		s.dns.Servers = append(s.dns.Servers, a.Unmap().WithZone(""))
	}
	if len(o.Search) > maxSearch {
		return nil, fmt.Errorf("netstack: %d search domains, more than %d", len(o.Search), maxSearch)
	}
	for _, domain := range o.Search {
		if !dns.IsName(domain) {
			return nil, fmt.Errorf("netstack: %q can't be a search domain", domain)
		}
		s.search = append(s.search, domain)
	}
	low := minMTU4
	if s.v6 {
		low = minMTU6
	}
	switch {
	case !s.v4 && !s.v6:
		return nil, errors.New("netstack: no address is given for the interface")
	case o.MTU < low || o.MTU > maxMTU:
		return nil, fmt.Errorf("netstack: an MTU of %d, not from %d to %d", o.MTU, low, maxMTU)
	}
	s.link, s.mtu = link.New(o.MTU), o.MTU
	s.ip = stack.New(stack.Options{
		// Without options IPv6 sends no solicitations and ignores advertisements: a tunnel has no neighbours.
		NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocolWithOptions(ipv6.Options{})},
		TransportProtocols: []stack.TransportProtocolFactory{
			tcp.NewProtocolCUBIC, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
		},
		HandleLocal: true,
	})
	if err := s.setUp(o); err != nil {
		s.ip.Destroy()
		return nil, err
	}
	s.events <- tun.Up
	return s, nil
}

// setUp makes the interface, its addresses and routes, and the limits.
func (s *Stack) setUp(o Options) error {
	for _, opt := range []tcpip.SettableTransportProtocolOption{
		new(tcpip.TCPSACKEnabled(true)),
		// No RACK. gVisor's doesn't work together with CUBIC, in July 2026 as in May 2025: when one packet in a hundred is
		// lost, a connection stalls for tens of seconds (TestLoss), and without loss it takes a third more CPU time for each
		// byte. Recovery by SACK alone has neither problem.
		new(tcpip.TCPRecovery(0)),
		new(tcpip.TCPModerateReceiveBufferOption(true)),
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: min(o.Buffer, firstReceive), Max: o.Buffer},
	} {
		if err := s.ip.SetTransportProtocolOption(tcp.ProtocolNumber, opt); err != nil {
			return fmt.Errorf("netstack: TCP option %T: %v", opt, err)
		}
	}
	s.limitSend(o.Buffer)
	s.share.init(o.Buffer, s.limitSend)
	for _, opt := range []any{
		tcpip.SendBufferSizeOption{Min: stack.MinBufferSize, Default: udpSend, Max: stack.DefaultMaxBufferSize},
		tcpip.ReceiveBufferSizeOption{Min: stack.MinBufferSize, Default: udpReceive, Max: stack.DefaultMaxBufferSize},
	} {
		if err := s.ip.SetOption(opt); err != nil {
			return fmt.Errorf("netstack: option %T: %v", opt, err)
		}
	}
	if err := s.ip.CreateNIC(nic, s.link); err != nil {
		return fmt.Errorf("netstack: interface: %v", err)
	}
	for _, a := range o.Addresses {
		a = a.WithZone("")
		at := tcpip.ProtocolAddress{Protocol: protocol(a), AddressWithPrefix: address(a).WithPrefix()}
		if err := s.ip.AddProtocolAddress(nic, at, stack.AddressProperties{}); err != nil {
			return fmt.Errorf("netstack: address %v: %v", a, err)
		}
	}
	if s.v4 {
		s.ip.AddRoute(tcpip.Route{Destination: header.IPv4EmptySubnet, NIC: nic})
	}
	if s.v6 {
		s.ip.AddRoute(tcpip.Route{Destination: header.IPv6EmptySubnet, NIC: nic})
	}
	return nil
}

// A Status is what a stack uses.
type Status struct {
	// Buffers is how many TCP connections and UDP sockets the stack's program has open.
	Buffers int

	// Reserved is how many bytes their receive buffers may hold together; see Options.Receive.
	Reserved int64

	// Shortened counts how often one got a smaller receive buffer than it had use for, because Options.Receive was used up.
	Shortened uint64
}

// Status returns what the stack uses at this moment.
func (s *Stack) Status() Status {
	return Status{s.receive.Buffers(), s.receive.Reserved(), s.receive.Shortened()}
}

// limitSend sets how many bytes each TCP connection may buffer to be sent.
func (s *Stack) limitSend(n int) {
	opt := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: min(n, firstSend), Max: n}
	if err := s.ip.SetTransportProtocolOption(tcp.ProtocolNumber, &opt); err != nil {
		panic(fmt.Sprintf("netstack: BUG: a send buffer of %d bytes: %v", n, err))
	}
}

// Name implements [tun.Device]. The name is "netstack"; no network interface has it.
func (s *Stack) Name() (string, error) {
	if s.isClosed() {
		return "", errClosed
	}
	return "netstack", nil
}

// MTU implements [tun.Device].
func (s *Stack) MTU() (int, error) {
	if s.isClosed() {
		return 0, errClosed
	}
	return s.mtu, nil
}

// Queues implements [tun.Device]. There is one queue.
func (s *Stack) Queues() []tun.Queue { return []tun.Queue{s.link} }

// Events implements [tun.Device]. The stack is up from the start and stays so.
func (s *Stack) Events() <-chan tun.Event { return s.events }

// Close implements [tun.Device]. Every connection and listener fails with net.ErrClosed; nothing is sent to their remote
// ends, as the tunnel counts as closed. When Close returns, all of gVisor's goroutines have ended.
func (s *Stack) Close() error {
	s.ended.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		close(s.done)
		s.link.Shutdown() // before Destroy: endpoints that wait for space hold their locks
		s.ip.Destroy()
		s.link.Release()
		close(s.events)
	})
	return nil
}

func (s *Stack) isClosed() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// endpoint makes a gVisor endpoint of a transport protocol in an address family.
func (s *Stack) endpoint(p tcpip.TransportProtocolNumber, family tcpip.NetworkProtocolNumber) (tcpip.Endpoint, *waiter.Queue, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, nil, net.ErrClosed
	}
	wq := new(waiter.Queue)
	ep, err := s.ip.NewEndpoint(p, family, wq)
	if err != nil {
		return nil, nil, netError(err)
	}
	return ep, wq, nil
}

// register calls f, which makes an endpoint known to gVisor (bind, connect, listen), unless the stack is closed.
func (s *Stack) register(f func() tcpip.Error) tcpip.Error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return &tcpip.ErrAborted{}
	}
	return f()
}

func protocol(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

func address(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }
