// Package datagram reads and writes datagrams of any network, without an allocation where the socket can do that, and
// keeps buffers for them.
//
// All of it may be used by any number of goroutines. A buffer holds the largest datagram there is; how many are in use is for
// the callers to limit.
package datagram

import (
	"net"
	"net/netip"
	"sync"
)

// Headroom is what a buffer has before the place where a datagram is read to: for a header of SOCKS5 with an IPv6
// address. RFC 1928 §7.
const Headroom = 3 + 1 + 16 + 2

// A Buffer holds the largest datagram there is.
type Buffer [Headroom + 64<<10]byte

// Buffers is where buffers come from and go to.
var Buffers = sync.Pool{New: func() any { return new(Buffer) }}

// AddrPort returns the address of a TCP or UDP endpoint, unmapped, or the zero AddrPort for any other.
func AddrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	case nil:
		return ap
	default:
		ap, _ = netip.ParseAddrPort(a.String())
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Receive reads one datagram, without an allocation where the socket can.
func Receive(pc net.PacketConn, b []byte) (int, netip.AddrPort, error) {
	if u, ok := pc.(interface {
		ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error)
	}); ok {
		n, from, err := u.ReadFromUDPAddrPort(b)
		return n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), err
	}
	n, from, err := pc.ReadFrom(b)
	return n, AddrPort(from), err
}

// Send writes one datagram, without an allocation where the socket can.
func Send(pc net.PacketConn, b []byte, to netip.AddrPort) error {
	if u, ok := pc.(*net.UDPConn); ok {
		_, err := u.WriteToUDPAddrPort(b, to)
		return err
	}
	_, err := pc.WriteTo(b, net.UDPAddrFromAddrPort(to))
	return err
}
