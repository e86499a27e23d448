// Package ipheader reads the fields of IPv4 and IPv6 headers that a tunnel needs: a packet's destination, source and
// length.
//
// Its functions have no state, allocate nothing and may be called from any goroutine. Limits: nothing is checked but what
// is returned, so no checksum, no option and no extension header.
package ipheader

import (
	"encoding/binary"
	"net/netip"
)

// The sizes of the headers in bytes, without options or extension headers.
const (
	IPv4Size = 20 // RFC 791 §3.1
	IPv6Size = 40 // RFC 8200 §3
)

// Destination returns the destination address of an IP packet; false if it is no IP packet.
func Destination(p []byte) (netip.Addr, bool) {
	switch {
	case len(p) >= IPv4Size && p[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(p[16:20])), true
	case len(p) >= IPv6Size && p[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(p[24:40])), true
	}
	return netip.Addr{}, false
}

// Source returns the source address of an IP packet and the length in bytes in its header, padding behind it excluded;
// false if it is no IP packet, or shorter than its header says.
func Source(p []byte) (from netip.Addr, length int, ok bool) {
	switch {
	case len(p) >= IPv4Size && p[0]>>4 == 4:
		length = int(binary.BigEndian.Uint16(p[2:]))
		return netip.AddrFrom4([4]byte(p[12:16])), length, IPv4Size <= length && length <= len(p)
	case len(p) >= IPv6Size && p[0]>>4 == 6:
		length = IPv6Size + int(binary.BigEndian.Uint16(p[4:])) // an int: it can't wrap
		return netip.AddrFrom16([16]byte(p[8:24])), length, length <= len(p)
	}
	return netip.Addr{}, 0, false
}
