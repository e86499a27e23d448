// Package netstack is a TCP/IP stack in user space, gVisor's, as a [tun.Device]: a tunnel without a network interface,
// and without the privilege to make one.
//
// A [Stack] is what a throughline.Device takes for its TUN, and what a program dials and listens on: [Stack.Dial],
// [Stack.Listen], [Stack.ListenPacket], [Stack.LookupHost] and [Stack.Ping] behave as their namesakes in package net do,
// but everything goes through the tunnel. Names are resolved by the tunnel's DNS servers alone; nothing of the host's
// configuration is looked at. The examples show an HTTP client and an HTTP server inside a tunnel.
//
// # Ownership
//
// A throughline.Device that was made with a Stack owns it: closing the device closes the stack, and with it every
// connection and listener. A stack that no device was made of is closed by [Stack.Close]. Connections and listeners are the
// caller's to close, as in package net; one that is forgotten keeps its buffers until the stack is closed.
//
// # Concurrency
//
// Everything is safe for concurrent use except that a Queue has one reader and one writer at a time. The two must be
// different goroutines: a Write may wait for what Read takes. No goroutine is started but gVisor's own few and, while a
// name with several addresses is dialed, one for each attempt; Close waits for all of gVisor's.
//
// # Data path
//
// It is built for bulk. Outbound, gVisor hands over super-packets, as it would to a network card; their segments are laid
// straight into the batch, each byte copied once and summed once. Inbound, the segments of a flow are merged and their
// checksums verified by offload.Merger, and go up as one packet; what could not be merged is verified by gVisor. Nothing
// is allocated for each packet but what gVisor takes from its pools.
//
// Between gVisor and Queue.Read lies a queue with two bounds. Above the lower, 512 KiB or 512 packets, a sender of TCP data
// waits, so that a fast program is slowed and not made to lose. What may not wait (SYN, RST, ICMP, UDP) goes on to the
// upper one, 4096 packets, and is dropped above that, as a full interface does; a UDP socket's own buffer makes its program
// wait long before. Order is kept for all. A Write to a TCP connection that waits for the queue doesn't look at its
// deadline until there is room: a Device takes or drops what is there without waiting for anything.
//
// # Limits
//
// The addresses and the MTU of a stack don't change. A TCP connection buffers up to Options.Buffer each way, a UDP socket
// 1 MiB received and 256 KiB to be sent; the number of connections is bounded by memory alone. A listener keeps 4096
// connections that nobody has accepted. There are no raw sockets and no multicast groups, and IPv6 zones are ignored.
// gVisor's logger belongs to the process: New raises its threshold from info to warnings, because a packet can make it
// write.
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

	"throughline/netstack/internal/link"
	"throughline/tun"
)

const (
	// DefaultMTU is the MTU of a stack that is given none: what is left of Ethernet's for IPv6 outside.
	DefaultMTU = 1420

	minMTU4 = 576  // RFC 791 §3.2: what every host must be able to receive
	minMTU6 = 1280 // RFC 8200 §5
	maxMTU  = 65535

	// defaultBuffer is the limit of a connection's buffers: 400 Mbit/s at 80 ms.
	defaultBuffer = 4 << 20
	maxBuffer     = 1 << 30

	// A connection's buffers begin with these, and grow with what the path takes. Until the far end has been heard of
	// often enough the receive buffer is the window, so it begins large: it costs nothing while it is empty. The send
	// buffer is filled by any program that has more to send.
	firstReceive = 1 << 20
	firstSend    = 256 << 10

	udpReceive = 1 << 20   // what a UDP socket holds that nobody has read
	udpSend    = 256 << 10 // what it holds that the tunnel hasn't read; far below the queue's upper bound

	nic = 1 // the only one
)

// Options configure a stack.
type Options struct {
	// Addresses are the interface's own, of either family or both; one at least. All other destinations are routed into the
	// tunnel, so there are no prefix lengths.
	Addresses []netip.Addr

	// DNS are the servers that names are asked of, through the tunnel, in this order. Without any only addresses can be
	// dialed.
	DNS []netip.Addr

	// MTU is that of the interface, 0 for [DefaultMTU]. It doesn't change.
	MTU int

	// Buffer limits the bytes that one TCP connection buffers each way, 0 for 4 MiB. They are taken as needed. Of more than
	// sixteen connections that have more to send than the path takes, each buffers less of it, down to 64 KiB.
	Buffer int
}

var errClosed = fmt.Errorf("netstack: %w", os.ErrClosed)

// A Stack is a TCP/IP host of its own inside this process, with one interface.
type Stack struct {
	ip     *stack.Stack
	link   *link.Link
	mtu    int
	dns    []netip.Addr
	v4, v6 bool // has an address of the family
	share  share

	events chan tun.Event
	done   chan struct{} // closed when Close begins

	mu     sync.RWMutex // read-locked while an endpoint is made, so that Close misses none
	closed bool
	ended  sync.Once
}

var _ tun.Device = (*Stack)(nil)

// New returns a stack that is up.
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
	silencing.Do(silence)
	s := &Stack{events: make(chan tun.Event, 1), done: make(chan struct{})}
	for _, a := range o.Addresses {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() {
			return nil, fmt.Errorf("netstack: %v can't be an interface's address", a)
		}
		s.v4, s.v6 = s.v4 || a.Is4(), s.v6 || a.Is6()
	}
	for _, a := range o.DNS {
		if !a.IsValid() {
			return nil, errors.New("netstack: the zero address as a DNS server")
		}
		s.dns = append(s.dns, a.Unmap().WithZone(""))
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
		// Without options IPv6 sends no solicitations and believes no advertisements: a tunnel has no neighbours.
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
		// No RACK. In gVisor it doesn't go together with CUBIC, in July 2026 as in May 2025: with one packet in a hundred
		// lost a connection stalls for tens of seconds (TestLoss), and without loss it takes a third more CPU time for each
		// byte. Recovery by SACK alone does neither.
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

// limitSend sets how much each TCP connection may keep to be sent.
func (s *Stack) limitSend(n int) {
	opt := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: min(n, firstSend), Max: n}
	if err := s.ip.SetTransportProtocolOption(tcp.ProtocolNumber, &opt); err != nil {
		panic(fmt.Sprintf("netstack: BUG: a send buffer of %d bytes: %v", n, err))
	}
}

// Name implements [tun.Device]; there is no interface of that name anywhere.
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

// Close implements [tun.Device]. Every connection and listener fails with net.ErrClosed; nothing is sent to the far
// ends, for the tunnel is taken to be gone. When it returns all of gVisor's goroutines have ended.
func (s *Stack) Close() error {
	s.ended.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		close(s.done)
		s.link.Shutdown() // before Destroy: endpoints that wait for room hold their locks
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

// endpoint makes an endpoint of the protocol, in the family.
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

// register does what makes an endpoint known to gVisor (bind, connect, listen), unless the stack is closed.
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
