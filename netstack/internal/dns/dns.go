// Package dns is a stub resolver: it asks servers for the addresses of names, through connections that it is given.
//
// Nothing is kept, all of it is safe for concurrent use, and no goroutine is started. Nothing of a message is believed; a
// malformed one is an error.
//
// Limits: a query asks for datagrams of at most 1232 bytes; what doesn't fit is asked for over a connection.
package dns

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
)

// What a server's answer may say instead of addresses.
var (
	ErrServer    = errors.New("server misbehaving") // it failed, or what it sent makes no sense
	ErrNoHost    = errors.New("no such host")
	ErrTruncated = errors.New("answer truncated") // to be asked again by TCP
)

// Types of the records that can be asked for. RFC 1035 §3.2.2, RFC 3596 §2.1.
const (
	A    = 1
	AAAA = 28
)

// Layout and values of messages. RFC 1035 §4.1, RFC 6891 §6.1.
const (
	typeOPT, classIN = 41, 1

	header    = 12
	bitQR     = 0x8000
	bitTC     = 0x0200
	bitRD     = 0x0100
	maskRcode = 0x000f
	payload   = 1232 // what any path carries unfragmented, as a client tells its server

	rcodeOK, rcodeNoName = 0, 3
)

// IsName reports whether s can be asked of DNS.
func IsName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
	}
	return true
}

// appendName appends the name, one that IsName accepts, in its wire form.
func appendName(b []byte, name string) []byte {
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		b = append(append(b, byte(len(label))), label...)
	}
	return append(b, 0)
}

// AppendQuery appends a question for records of a kind.
func AppendQuery(b []byte, id uint16, name string, kind uint16) []byte {
	be := binary.BigEndian
	b = be.AppendUint16(b, id)
	b = be.AppendUint16(b, bitRD)
	b = append(b, 0, 1, 0, 0, 0, 0, 0, 1) // one question; one additional record, OPT
	b = appendName(b, name)
	b = be.AppendUint16(b, kind)
	b = be.AppendUint16(b, classIN)
	b = append(b, 0)
	b = be.AppendUint16(b, typeOPT)
	b = be.AppendUint16(b, payload)
	return append(b, 0, 0, 0, 0, 0, 0)
}

// IsAnswer reports whether msg answers this question and no other. It must repeat it, so that who can't see the question
// has more to guess than the identifier and the port. RFC 5452 §9.1.
func IsAnswer(msg []byte, id uint16, name string, kind uint16) bool {
	be := binary.BigEndian
	if len(msg) < header || be.Uint16(msg) != id || be.Uint16(msg[2:])&bitQR == 0 || be.Uint16(msg[4:]) != 1 {
		return false
	}
	want := appendName(nil, name)
	q := msg[header:]
	return len(q) >= len(want)+4 && strings.EqualFold(string(q[:len(want)]), string(want)) &&
		be.Uint16(q[len(want):]) == kind && be.Uint16(q[len(want)+2:]) == classIN
}

// Parse returns the addresses of the kind in the answer section of a message. The aliases between the name and
// them are the server's business.
func Parse(msg []byte, kind uint16) ([]netip.Addr, error) {
	be := binary.BigEndian
	if len(msg) < header {
		return nil, ErrServer
	}
	flags := be.Uint16(msg[2:])
	switch {
	case flags&bitTC != 0:
		return nil, ErrTruncated
	case flags&maskRcode == rcodeNoName:
		return nil, ErrNoHost
	case flags&maskRcode != rcodeOK:
		return nil, ErrServer
	}
	off := header
	for range be.Uint16(msg[4:]) {
		if off = skipName(msg, off); off < 0 || off+4 > len(msg) {
			return nil, ErrServer
		}
		off += 4
	}
	var ips []netip.Addr
	for range be.Uint16(msg[6:]) {
		if off = skipName(msg, off); off < 0 || off+10 > len(msg) {
			return nil, ErrServer
		}
		what, class, size := be.Uint16(msg[off:]), be.Uint16(msg[off+2:]), int(be.Uint16(msg[off+8:]))
		off += 10
		if off+size > len(msg) {
			return nil, ErrServer
		}
		data := msg[off : off+size]
		off += size
		if what != kind || class != classIN {
			continue
		}
		ip, ok := netip.AddrFromSlice(data)
		if !ok || ip.Is4() != (kind == A) {
			return nil, ErrServer
		}
		if ip = ip.Unmap(); ip.Is4() == (kind == A) {
			ips = append(ips, ip)
		}
	}
	return ips, nil
}

// skipName returns the offset behind the name at off, or -1.
func skipName(msg []byte, off int) int {
	for off < len(msg) {
		switch n := int(msg[off]); {
		case n == 0:
			return off + 1
		case n >= 0xc0: // a pointer ends a name, RFC 1035 §4.1.4
			if off+2 > len(msg) {
				return -1
			}
			return off + 2
		case n >= 0x40:
			return -1
		default:
			off += 1 + n
		}
	}
	return -1
}
