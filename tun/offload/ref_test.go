package offload

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"throughline/packet"
)

// naiveSum is RFC 1071 §4.1, word by word.
func naiveSum(pieces ...[]byte) uint16 {
	var sum uint32
	for _, b := range pieces {
		for i, c := range b {
			if i%2 == 0 {
				sum += uint32(c) << 8
			} else {
				sum += uint32(c)
			}
			sum = sum>>16 + sum&0xffff
		}
	}
	return uint16(sum)
}

// A pkt describes a test's packet. The zero value of a field is a usual value of it.
type pkt struct {
	v6, udp  bool
	flow     byte // makes addresses and ports
	seq, ack uint32
	flags    byte // of TCP; 0: ACK
	window   uint16
	opts     []byte // of TCP
	ipOpts   []byte // of IPv4
	ext      []byte // IPv6 extension headers whose chain begins with extType
	extType  byte
	tos, ttl byte
	id       uint16
	noDF     bool
	frag     uint16
	payload  []byte
	urgent   uint16
}

func (k pkt) proto() byte {
	if k.udp {
		return protoUDP
	}
	return protoTCP
}

// bytes builds the packet, with right checksums by naiveSum.
func (k pkt) bytes() []byte {
	var t []byte
	if k.udp {
		t = make([]byte, 8)
		binary.BigEndian.PutUint16(t[4:], uint16(8+len(k.payload)))
	} else {
		t = make([]byte, 20, 60)
		binary.BigEndian.PutUint32(t[4:], k.seq)
		binary.BigEndian.PutUint32(t[8:], k.ack)
		t[12] = byte(20+len(k.opts)) / 4 << 4
		t[13] = k.flags
		if k.flags == 0 {
			t[13] = ack
		}
		binary.BigEndian.PutUint16(t[14:], k.window)
		binary.BigEndian.PutUint16(t[18:], k.urgent)
		t = append(t, k.opts...)
	}
	binary.BigEndian.PutUint16(t[0:], 1000+uint16(k.flow))
	binary.BigEndian.PutUint16(t[2:], 443)
	t = append(t, k.payload...)
	ttl := k.ttl
	if ttl == 0 {
		ttl = 64
	}
	var h []byte
	if k.v6 {
		h = make([]byte, 40)
		h[0], h[1] = 0x60|k.tos>>4, k.tos<<4
		binary.BigEndian.PutUint16(h[4:], uint16(len(k.ext)+len(t)))
		h[6], h[7] = k.proto(), ttl
		if len(k.ext) > 0 {
			h[6] = k.extType
		}
		h[8], h[23], h[24], h[39] = 0xfd, 1, 0xfd, 2
		h = append(h, k.ext...)
	} else {
		h = make([]byte, 20)
		h[0], h[1] = 0x40|byte(20+len(k.ipOpts))/4, k.tos
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(k.ipOpts)+len(t)))
		binary.BigEndian.PutUint16(h[4:], k.id)
		frag := k.frag
		if !k.noDF {
			frag |= 0x4000
		}
		binary.BigEndian.PutUint16(h[6:], frag)
		h[8], h[9] = ttl, k.proto()
		copy(h[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
		h = append(h, k.ipOpts...)
	}
	p := append(h, t...)
	naiveChecksums(p, len(h), k.proto())
	return p
}

// naiveChecksums sets both checksums of p, whose transport header begins at l4.
func naiveChecksums(p []byte, l4 int, proto byte) {
	at := l4 + 16
	if proto == protoUDP {
		at = l4 + 6
	}
	p[at], p[at+1] = 0, 0
	sum := ^naiveTransport(p, l4, proto)
	if proto == protoUDP && sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(p[at:], sum)
	if p[0]>>4 == 4 {
		p[10], p[11] = 0, 0
		binary.BigEndian.PutUint16(p[10:], ^naiveSum(p[:l4]))
	}
}

func naivePseudo(p []byte, l4 int, proto byte) []byte {
	addrs := p[12:20]
	if p[0]>>4 == 6 {
		addrs = p[8:40]
	}
	n := len(p) - l4
	return append(slices.Clone(addrs), 0, proto, byte(n>>8), byte(n))
}

func naiveTransport(p []byte, l4 int, proto byte) uint16 {
	return naiveSum(naivePseudo(p, l4, proto), p[l4:])
}

// naiveSplit is what a kernel does with a super-packet, one new slice for each segment, straight from the RFCs. The
// headers' lengths are the caller's.
func naiveSplit(p []byte, l4, hdr, size int, udp bool) [][]byte {
	var out [][]byte
	payload := p[hdr:]
	for i := 0; i == 0 || len(payload) > 0; i++ {
		n := min(size, len(payload))
		q := append(slices.Clone(p[:hdr]), payload[:n]...)
		payload = payload[n:]
		proto := byte(6)
		if udp {
			proto = 17
			binary.BigEndian.PutUint16(q[l4+4:], uint16(len(q)-l4))
		} else {
			binary.BigEndian.PutUint32(q[l4+4:], binary.BigEndian.Uint32(q[l4+4:])+uint32(i*size))
			if i > 0 {
				q[l4+13] &= 0x7f
			}
			if len(payload) > 0 {
				q[l4+13] &= 0xff - 1 - 8
			}
		}
		if q[0]>>4 == 4 {
			binary.BigEndian.PutUint16(q[2:], uint16(len(q)))
			binary.BigEndian.PutUint16(q[4:], binary.BigEndian.Uint16(q[4:])+uint16(i))
		} else {
			binary.BigEndian.PutUint16(q[4:], uint16(len(q)-40))
		}
		naiveChecksums(q, l4, proto)
		out = append(out, q)
	}
	return out
}

// split runs all of a Super's steps as a reader does: the super-packet lies at the offset that b.Next gives. It returns
// what didn't fit.
func split(t *testing.T, b *packet.Batch, h Header, super []byte) (rest []byte, ok bool) {
	t.Helper()
	off, room := b.Next()
	if len(super) > room {
		t.Fatalf("no room for a super-packet of %d bytes", len(super))
	}
	copy(b.Slab[off:], super)
	var s Super
	if !s.Parse(h, b.Slab[off:off+len(super)], len(super)) {
		return nil, false
	}
	if k := s.Lay(b); k < s.Segments() {
		rest = make([]byte, len(super))
		rest = rest[:s.Remainder(rest, b.Slab[off:off+len(super)])]
	}
	s.Spread(b)
	s.Finish(b)
	return rest, true
}

func all(b *packet.Batch) [][]byte {
	var out [][]byte
	for i := range b.Packets {
		out = append(out, b.Bytes(i))
	}
	return out
}

func wantPackets(t *testing.T, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d packets, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("packet %d of %d\n got %x\nwant %x", i, len(want), got[i][:min(len(got[i]), 100)], want[i][:min(len(want[i]), 100)])
		}
	}
}

// pattern returns n bytes that differ from place to place.
func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7) ^ byte(i>>8) ^ seed
	}
	return b
}
