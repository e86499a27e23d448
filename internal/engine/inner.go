package engine

import (
	"encoding/binary"
	"net/netip"
)

// The two IP headers, as far as a tunnel looks into them.
const (
	ipv4HeaderSize = 20
	ipv6HeaderSize = 40
)

// destination returns where an IP packet goes; false if it is no IP packet.
func destination(p []byte) (netip.Addr, bool) {
	switch {
	case len(p) >= ipv4HeaderSize && p[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(p[16:20])), true
	case len(p) >= ipv6HeaderSize && p[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(p[24:40])), true
	}
	return netip.Addr{}, false
}

// source returns where an IP packet comes from and how long it says it is, padding left out; false if it is no IP
// packet, or shorter than it says.
func source(p []byte) (from netip.Addr, length int, ok bool) {
	switch {
	case len(p) >= ipv4HeaderSize && p[0]>>4 == 4:
		length = int(binary.BigEndian.Uint16(p[2:]))
		return netip.AddrFrom4([4]byte(p[12:16])), length, ipv4HeaderSize <= length && length <= len(p)
	case len(p) >= ipv6HeaderSize && p[0]>>4 == 6:
		length = ipv6HeaderSize + int(binary.BigEndian.Uint16(p[4:])) // an int: it can't wrap
		return netip.AddrFrom16([16]byte(p[8:24])), length, length <= len(p)
	}
	return netip.Addr{}, 0, false
}
