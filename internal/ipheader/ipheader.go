// Package ipheader reads the fields of IPv4 and IPv6 headers that a tunnel needs: a packet's destination, source and
// length, and the UDP datagram in it.
//
// Its functions have no state, allocate nothing and may be called from any goroutine. Limits: nothing is checked but what
// is returned, so no checksum and no option, and of extension headers only that of a first fragment is passed over.
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

const (
	udp         = 17 // IANA's protocol numbers
	udpSize     = 8  // RFC 768
	fragment    = 44 // RFC 8200 §4.5
	fragmentLen = 8
)

// UDP returns the destination port of the UDP datagram in an IP packet, and its payload: what there is of it, in the first
// fragment of several. It reports false for anything else, later fragments included.
func UDP(p []byte) (port uint16, payload []byte, ok bool) {
	var protocol byte
	switch {
	case len(p) >= IPv4Size && p[0]>>4 == 4:
		header := int(p[0]&15) * 4
		if header < IPv4Size || len(p) < header || binary.BigEndian.Uint16(p[6:])&0x1fff != 0 {
			return 0, nil, false
		}
		protocol, p = p[9], p[header:]
	case len(p) >= IPv6Size && p[0]>>4 == 6:
		protocol, p = p[6], p[IPv6Size:]
		if protocol == fragment {
			if len(p) < fragmentLen || binary.BigEndian.Uint16(p[2:])>>3 != 0 {
				return 0, nil, false
			}
			protocol, p = p[0], p[fragmentLen:]
		}
	}
	if protocol != udp || len(p) < udpSize {
		return 0, nil, false
	}
	return binary.BigEndian.Uint16(p[2:]), p[udpSize:], true
}
