package offload

import "throughline/packet"

// maxHeaders bounds the IP and transport headers of a super-packet together: the largest IPv4 and TCP headers are 120
// bytes, and more IPv6 extension headers than fit are not seen in practice.
const maxHeaders = 256

// A Super is a super-packet that is to be split. [Super.Parse] takes a copy of its headers; then, in this order,
//
//	Lay        places its segments in a batch
//	Remainder  saves those there was no room for, when Lay placed fewer than Segments
//	Spread     moves their payload to where Lay placed them
//	Finish     writes their headers
//
// A reader that has read payload straight to where Lay places it, by a scatter read, leaves out Spread. The zero Super is
// ready for Parse; it is meant to be kept and used again.
type Super struct {
	head          [maxHeaders]byte // the headers as they came
	l4            int              // where the transport header begins
	hdr           int              // the length of all headers
	size          int              // payload bytes of each segment but the last
	n             int              // the length of the packet
	segs          int
	v6, udp       bool
	first, placed int // Lay placed Packets[first:first+placed]
}

// Parse makes s the super-packet of n bytes that begins with p; p need not hold more than its headers. It reports whether
// the super-packet can be split. It uses of h the type and the size of the segments, and takes lengths of headers from
// the packet: HdrLen is wrong for packets that the host forwards.
func (s *Super) Parse(h Header, p []byte, n int) bool {
	p = p[:min(len(p), n)]
	kind := h.GSOType &^ GSOECN // a bit, not a type: on every packet with CWR
	s.udp = kind == GSOUDP
	switch {
	case h.GSOSize == 0 || len(p) == 0:
		return false
	case s.udp:
		if h.GSOType&GSOECN != 0 {
			return false
		}
	case kind != GSOTCPv4 && kind != GSOTCPv6:
		return false
	}
	var proto int
	switch p[0] >> 4 {
	case 4:
		if kind == GSOTCPv6 || len(p) < ip4Size {
			return false
		}
		s.l4, s.v6, proto = int(p[0]&15)*4, false, int(p[ip4Proto])
		total := be16(p[ip4Len:])
		if s.l4 < ip4Size || total < s.l4 || total > n || be16(p[ip4Frag:])&ip4MoreOrOffset != 0 {
			return false
		}
		n = total
	case 6:
		if kind == GSOTCPv4 || len(p) < ip6Size {
			return false
		}
		if l := be16(p[ip6Len:]); l != 0 { // 0: a jumbogram, its length is what was read
			if ip6Size+l > n {
				return false
			}
			n = ip6Size + l
		}
		if n > ip6Size+maxLen {
			return false
		}
		s.v6 = true
		if s.l4, proto = skipExtensions(p[:min(len(p), n)]); s.l4 == 0 {
			return false
		}
	default:
		return false
	}
	p = p[:min(len(p), n)]
	if s.udp {
		if proto != protoUDP {
			return false
		}
		s.hdr = s.l4 + udpSize
	} else {
		if proto != protoTCP || len(p) < s.l4+tcpSize {
			return false
		}
		off := int(p[s.l4+tcpOff]>>4) * 4
		if off < tcpSize {
			return false
		}
		s.hdr = s.l4 + off
	}
	if s.hdr > len(p) || s.hdr > maxHeaders {
		return false
	}
	copy(s.head[:], p[:s.hdr])
	s.n, s.size, s.first, s.placed = n, int(h.GSOSize), 0, 0
	s.segs = max(1, (n-s.hdr+s.size-1)/s.size) // without payload it is one packet
	return true
}

// skipExtensions returns where the upper-layer header of the IPv6 packet p begins, and its protocol; zero when there is
// none, the packet is a fragment, or the destination that the checksum covers is in a routing header. RFC 8200 §4.
func skipExtensions(p []byte) (off, proto int) {
	const hopByHop, routing, destination = 0, 43, 60
	off, proto = ip6Size, int(p[ip6Next])
	for proto == hopByHop || proto == routing || proto == destination {
		if len(p) < off+8 {
			return 0, 0
		}
		if proto == routing && p[off+3] != 0 { // segments left
			return 0, 0
		}
		proto, off = int(p[off]), off+8+int(p[off+1])*8
	}
	return off, proto
}

// Segments returns how many packets the super-packet stands for.
func (s *Super) Segments() int { return s.segs }

// Shape returns the length of the headers, and of the payload of each segment but the last.
func (s *Super) Shape() (head, size int) { return s.hdr, s.size }

// length returns the length of segment i.
func (s *Super) length(i int) int { return s.hdr + min(s.size, s.n-s.hdr-i*s.size) }

// Lay places as many segments as b has room for, and returns their number. The super-packet must lie, or must have been
// scattered, at the offset that b.Next gives.
func (s *Super) Lay(b *packet.Batch) int {
	s.first, s.placed = len(b.Packets), 0
	for s.placed < s.segs {
		n := s.length(s.placed)
		if _, room := b.Next(); n > room {
			break
		}
		b.Place(n)
		s.placed++
	}
	return s.placed
}

// Remainder writes to dst the super-packet of the segments that Lay found no room for, and returns its length, zero when
// there are none. Its Header is that of the whole. p is the whole super-packet, before Spread; dst must have as many
// bytes.
func (s *Super) Remainder(dst, p []byte) int {
	if s.placed == s.segs {
		return 0
	}
	n := copy(dst, s.head[:s.hdr])
	n += copy(dst[n:], p[s.hdr+s.placed*s.size:s.n])
	if s.v6 {
		putBE16(dst[ip6Len:], n-ip6Size)
	} else {
		putBE16(dst[ip4Len:], n)
		addBE16(dst[ip4ID:], s.placed)
	}
	if !s.udp {
		addBE32(dst[s.l4+tcpSeq:], uint32(s.placed*s.size))
		if s.placed > 0 {
			dst[s.l4+tcpFlags] &^= cwr
		}
	}
	return n
}

// Spread moves the payload of the segments that Lay placed from where the super-packet lies to where they lie. Every
// payload moves to a higher offset, and the more the later its segment is; so, moved from the last segment to the first,
// none is overwritten before it has moved.
func (s *Super) Spread(b *packet.Batch) {
	if s.placed == 0 {
		return
	}
	from := b.Packets[s.first].Off + s.hdr
	for i := s.placed - 1; i > 0; i-- {
		p := b.Packets[s.first+i]
		copy(b.Slab[p.Off+s.hdr:p.Off+p.Len], b.Slab[from+i*s.size:])
	}
}

// Finish writes the headers of the segments that Lay placed: lengths, IPv4 identification and header checksum, TCP
// sequence number and flags, and the TCP or UDP checksum.
func (s *Super) Finish(b *packet.Batch) {
	proto := protoTCP
	if s.udp {
		proto = protoUDP
	}
	for i := range s.placed {
		p := b.Bytes(s.first + i)
		copy(p, s.head[:s.hdr])
		if s.v6 {
			putBE16(p[ip6Len:], len(p)-ip6Size)
		} else {
			putBE16(p[ip4Len:], len(p))
			addBE16(p[ip4ID:], i)
			ip4Checksum(p[:s.l4])
		}
		t := p[s.l4:]
		sumAt := udpSum
		if s.udp {
			putBE16(t[udpLen:], len(t))
		} else {
			sumAt = tcpSum
			addBE32(t[tcpSeq:], uint32(i*s.size))
			if i > 0 {
				t[tcpFlags] &^= cwr // RFC 3168 §6.1.2: once per reduction
			}
			if i < s.segs-1 {
				t[tcpFlags] &^= fin | psh
			}
		}
		putBE16(t[sumAt:], 0)
		sum := ^Fold(Sum(t, pseudo(p, s.v6, proto, len(t))))
		if s.udp && sum == 0 {
			sum = 0xffff // RFC 768: zero stands for no checksum
		}
		putBE16(t[sumAt:], int(sum))
	}
}

// Complete fills in the checksum of a packet that is not a super-packet, where the header asks for it. It reports whether
// header and packet agree. Where to sum is taken from h, since the checksum may be that of a tunneled packet.
func Complete(h Header, p []byte) bool {
	if h.Flags&NeedsCsum == 0 {
		return true
	}
	start := int(h.CsumStart)
	at := start + int(h.CsumOffset)
	if start < ip4Size || at+2 > len(p) {
		return false
	}
	sum := ^Fold(Sum(p[start:], 0)) // the field holds the pseudo-header's sum
	if sum == 0 {
		sum = 0xffff // the same number, and in UDP the one that doesn't stand for "none"
	}
	putBE16(p[at:], int(sum))
	return true
}
