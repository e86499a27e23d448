// Package ipheader reads the two IP headers as far as a tunnel looks into them: where a packet goes, where it comes from,
// and how long it says it is.
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

// Destination returns where an IP packet goes; false if it is no IP packet.
func Destination(p []byte) (netip.Addr, bool) {
	switch {
	case len(p) >= IPv4Size && p[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(p[16:20])), true
	case len(p) >= IPv6Size && p[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(p[24:40])), true
	}
	return netip.Addr{}, false
}

// Source returns where an IP packet comes from and how many bytes it says it has, padding behind it left out; false if it
// is no IP packet, or shorter than it says.
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
