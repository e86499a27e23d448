package udp

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"throughline/udp/internal/zone"
)

// A sockaddr is a sockaddr_in or a sockaddr_in6 as the kernel has it. ip(7), ipv6(7).
type sockaddr [unix.SizeofSockaddrInet6]byte

// put writes a, and returns how long it is.
func (sa *sockaddr) put(a netip.AddrPort, z *zone.Names) uint32 {
	clear(sa[:])
	binary.BigEndian.PutUint16(sa[2:], a.Port())
	if a.Addr().Is4() {
		binary.NativeEndian.PutUint16(sa[:], unix.AF_INET)
		ip := a.Addr().As4()
		copy(sa[4:], ip[:])
		return unix.SizeofSockaddrInet4
	}
	binary.NativeEndian.PutUint16(sa[:], unix.AF_INET6)
	ip := a.Addr().As16()
	copy(sa[8:], ip[:])
	if isLinkLocal(a.Addr()) {
		binary.NativeEndian.PutUint32(sa[24:], z.Index(a.Addr().Zone()))
	}
	return unix.SizeofSockaddrInet6
}

// get reads what put, or the kernel, wrote. What is no address of the two families is the zero AddrPort.
func (sa *sockaddr) get(n uint32, z *zone.Names) netip.AddrPort {
	port := binary.BigEndian.Uint16(sa[2:])
	switch family := binary.NativeEndian.Uint16(sa[:]); {
	case family == unix.AF_INET && n >= unix.SizeofSockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(sa[4:8])), port)
	case family == unix.AF_INET6 && n >= unix.SizeofSockaddrInet6:
		a := netip.AddrFrom16([16]byte(sa[8:24])).Unmap()
		if isLinkLocal(a) {
			a = z.With(a, binary.NativeEndian.Uint32(sa[24:]))
		}
		return netip.AddrPortFrom(a, port)
	}
	return netip.AddrPort{}
}
