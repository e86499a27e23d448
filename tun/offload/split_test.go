package offload

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"throughline/packet"
)

// superOf returns a super-packet and the header a kernel gives it.
func superOf(k pkt, size int) (Header, []byte, int, int) {
	p := k.bytes()
	l4 := 20 + len(k.ipOpts)
	h := Header{Flags: NeedsCsum, GSOType: GSOTCPv4, GSOSize: uint16(size), CsumOffset: tcpSum}
	if k.v6 {
		l4 = 40 + len(k.ext)
		h.GSOType = GSOTCPv6
	}
	hdr := l4 + 20 + len(k.opts)
	if k.udp {
		h.GSOType, h.CsumOffset, hdr = GSOUDP, udpSum, l4+8
	}
	h.CsumStart, h.HdrLen = uint16(l4), uint16(hdr)
	return h, p, l4, hdr
}

var timestamps = []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}

func TestSplitAgainstNaive(t *testing.T) {
	ext := []byte{0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // next header filled in below
	for _, c := range []struct {
		name string
		pkt  pkt
	}{
		{"tcp4", pkt{seq: 1000, id: 7, flags: ack | psh}},
		{"tcp4 with timestamps", pkt{seq: 0xffffff00, id: 0xfffe, opts: timestamps}},
		{"tcp4 with ip options", pkt{seq: 1, ipOpts: []byte{1, 1, 1, 1, 1, 1, 1, 0}}},
		{"tcp4 all flags", pkt{seq: 1, flags: 0xff, window: 77, urgent: 3}},
		{"tcp4 without DF", pkt{seq: 1, noDF: true, id: 5}},
		{"tcp6", pkt{v6: true, seq: 9, flags: ack | fin}},
		{"tcp6 with extension headers", pkt{v6: true, seq: 9, ext: ext, extType: 60}},
		{"udp4", pkt{udp: true, id: 3}},
		{"udp6", pkt{udp: true, v6: true}},
		{"udp6 with extension headers", pkt{v6: true, udp: true, ext: ext, extType: 0}},
	} {
		if len(c.pkt.ext) > 0 {
			c.pkt.ext = slices.Clone(c.pkt.ext)
			c.pkt.ext[0] = c.pkt.proto()
		}
		for _, size := range []int{1, 19, 100, 1360, 65000} {
			for _, n := range []int{0, 1, size - 1, size, size + 1, 3*size + 1, 47 * size, 65000} {
				if n < 0 || n > 65000 || n/size > 400 || size == 65000 && n > size {
					continue
				}
				for _, mtu := range []int{0, 576} {
					c.pkt.payload = pattern(n, byte(size))
					h, super, l4, hdr := superOf(c.pkt, size)
					want := naiveSplit(super, l4, hdr, size, c.pkt.udp)
					b := packet.New()
					b.MTU = mtu
					b.Append([]byte("a packet before"))
					rest, ok := split(t, b, h, super)
					if !ok || len(rest) != 0 {
						t.Fatalf("%s, %d bytes by %d: ok %v, %d bytes left", c.name, n, size, ok, len(rest))
					}
					wantPackets(t, all(b)[1:], want)
					if string(b.Bytes(0)) != "a packet before" {
						t.Fatal("the packet before was touched")
					}
				}
			}
		}
	}
}

// Segments smaller than their headers, and super-packets without payload, corrupted headers or crashed elsewhere (nebula
// 705a8f60).
func TestSplitSizeBelowHeadersAndEmpty(t *testing.T) {
	for _, k := range []pkt{{}, {v6: true, opts: timestamps}, {udp: true}, {udp: true, v6: true}} {
		for _, n := range []int{0, 1, 2, 100} {
			for _, size := range []int{1, 2, 3, 65535} {
				k.payload = pattern(n, 9)
				h, super, l4, hdr := superOf(k, size)
				b := packet.New()
				if _, ok := split(t, b, h, super); !ok {
					t.Fatalf("%d bytes by %d: refused", n, size)
				}
				wantPackets(t, all(b), naiveSplit(super, l4, hdr, size, k.udp))
			}
		}
	}
}

// The kernel may say GSO_ECN beside the type; unmasked, a super-packet with CWR vanishes just when a hop marks
// congestion (nebula ce99c6e7).
func TestSplitMasksECN(t *testing.T) {
	h, super, _, _ := superOf(pkt{flags: ack | cwr | psh, payload: pattern(3000, 1)}, 1000)
	h.GSOType |= GSOECN
	b := packet.New()
	if _, ok := split(t, b, h, super); !ok {
		t.Fatal("refused")
	}
	for i, p := range all(b) {
		if cwrSet := p[20+tcpFlags]&cwr != 0; cwrSet != (i == 0) {
			t.Errorf("segment %d: CWR %v", i, cwrSet)
		}
		if pshSet := p[20+tcpFlags]&psh != 0; pshSet != (i == 2) {
			t.Errorf("segment %d: PSH %v", i, pshSet)
		}
	}
	h, super, _, _ = superOf(pkt{udp: true, payload: pattern(3000, 1)}, 1000)
	h.GSOType |= GSOECN
	if _, ok := split(t, packet.New(), h, super); ok {
		t.Error("ECN on UDP was accepted")
	}
}

// For packets that the host forwards the kernel's hdr_len is not the headers' length.
func TestSplitDoesNotBelieveHdrLen(t *testing.T) {
	for _, hdrLen := range []uint16{0, 1, 20, 66, 1500, 65535} {
		h, super, l4, hdr := superOf(pkt{opts: timestamps, payload: pattern(3000, 1)}, 1000)
		h.HdrLen, h.CsumStart, h.CsumOffset = hdrLen, 9999, 9999
		b := packet.New()
		if _, ok := split(t, b, h, super); !ok {
			t.Fatalf("hdr_len %d: refused", hdrLen)
		}
		wantPackets(t, all(b), naiveSplit(super, l4, hdr, 1000, false))
	}
}

// A computed UDP checksum of zero means "none" on the wire; it is sent as 0xffff (nebula b361121b).
func TestSplitUDPChecksumZeroIsSentAsOnes(t *testing.T) {
	for v := range 1 << 16 {
		k := pkt{udp: true, payload: append([]byte{byte(v >> 8), byte(v)}, make([]byte, 10)...)}
		p := k.bytes()
		if p[26] != 0xff || p[27] != 0xff {
			continue
		}
		k.payload = append(k.payload, k.payload...)
		h, super, _, _ := superOf(k, 12)
		b := packet.New()
		if _, ok := split(t, b, h, super); !ok || len(b.Packets) != 2 {
			t.Fatal("not split")
		}
		for _, q := range all(b) {
			if q[26] != 0xff || q[27] != 0xff {
				t.Fatalf("checksum %x", q[26:28])
			}
		}
		return
	}
	t.Fatal("no payload gives the checksum zero")
}

func TestCompleteChecksumZeroIsSentAsOnes(t *testing.T) {
	p := make([]byte, 40)
	p[38], p[39] = 0xff, 0xff
	if !Complete(Header{Flags: NeedsCsum, CsumStart: 20, CsumOffset: 6}, p) || p[26] != 0xff || p[27] != 0xff {
		t.Fatalf("checksum %x", p[26:28])
	}
}

func TestComplete(t *testing.T) {
	for _, k := range []pkt{{payload: pattern(777, 1)}, {v6: true, payload: pattern(50, 1)}, {udp: true, payload: pattern(999, 2)}} {
		h, want, l4, _ := superOf(k, 1)
		p := slices.Clone(want)
		at := l4 + int(h.CsumOffset)
		putBE16(p[at:], int(naiveSum(naivePseudo(p, l4, k.proto())))) // as the kernel leaves it
		h.GSOType, h.GSOSize = GSONone, 0
		if !Complete(h, p) || !bytes.Equal(p, want) {
			t.Errorf("%+v: got checksum %x, want %x", k.proto(), p[at:at+2], want[at:at+2])
		}
		h.Flags = DataValid
		p[at]++
		was := slices.Clone(p)
		if !Complete(h, p) || !bytes.Equal(p, was) {
			t.Error("a packet that asks for no checksum was changed")
		}
	}
}

func TestCompleteRefuses(t *testing.T) {
	p := pattern(60, 1)
	was := slices.Clone(p)
	for _, h := range []Header{
		{CsumStart: 0, CsumOffset: 10}, {CsumStart: 19, CsumOffset: 16}, {CsumStart: 60, CsumOffset: 0},
		{CsumStart: 20, CsumOffset: 39}, {CsumStart: 65535, CsumOffset: 65535}, {CsumStart: 20, CsumOffset: 65535},
	} {
		h.Flags = NeedsCsum
		if Complete(h, p) || !bytes.Equal(p, was) {
			t.Errorf("%+v was accepted", h)
		}
	}
}

func TestSplitRefuses(t *testing.T) {
	tcp := pkt{payload: pattern(3000, 1)}
	tcp6 := pkt{v6: true, payload: pattern(3000, 1)}
	udp := pkt{udp: true, payload: pattern(3000, 1)}
	for _, c := range []struct {
		name string
		pkt  pkt
		h    func(*Header)
		p    func(p []byte) []byte
	}{
		{"gso size 0", tcp, func(h *Header) { h.GSOSize = 0 }, nil},
		{"empty", tcp, nil, func(p []byte) []byte { return p[:0] }},
		{"unknown type", tcp, func(h *Header) { h.GSOType = 3 }, nil},
		{"no type but ECN", tcp, func(h *Header) { h.GSOType = GSOECN }, nil},
		{"tcp4 said, ipv6 come", tcp6, func(h *Header) { h.GSOType = GSOTCPv4 }, nil},
		{"tcp6 said, ipv4 come", tcp, func(h *Header) { h.GSOType = GSOTCPv6 }, nil},
		{"udp said, tcp come", tcp, func(h *Header) { h.GSOType = GSOUDP }, nil},
		{"tcp said, udp come", udp, func(h *Header) { h.GSOType = GSOTCPv4 }, nil},
		{"no ip version", tcp, nil, func(p []byte) []byte { p[0] = 0x05; return p }},
		{"ihl below 5", tcp, nil, func(p []byte) []byte { p[0] = 0x44; return p }},
		{"ihl beyond the packet", tcp, nil, func(p []byte) []byte { p[0] = 0x4f; return p[:50] }},
		{"total length beyond the packet", tcp, nil, func(p []byte) []byte { return p[:len(p)-1] }},
		{"total length below ihl", tcp, nil, func(p []byte) []byte { putBE16(p[2:], 19); return p }},
		{"total length within tcp header", tcp, nil, func(p []byte) []byte { putBE16(p[2:], 39); return p }},
		{"payload length beyond the packet", tcp6, nil, func(p []byte) []byte { return p[:len(p)-1] }},
		{"data offset below 5", tcp, nil, func(p []byte) []byte { p[20+12] = 0x40; return p }},
		{"data offset beyond the packet", pkt{}, nil, func(p []byte) []byte { p[20+12] = 0x60; return p }},
		{"udp header cut", udp, nil, func(p []byte) []byte { putBE16(p[2:], 27); return p[:27] }},
		{"ipv4 cut in the header", tcp, nil, func(p []byte) []byte { return p[:19] }},
		{"ipv6 cut in the header", tcp6, nil, func(p []byte) []byte { return p[:39] }},
		{"first fragment", pkt{frag: 0x2000, payload: pattern(3000, 1)}, nil, nil},
		{"later fragment", pkt{frag: 100, payload: pattern(3000, 1)}, nil, nil},
		{"ipv6 fragment", pkt{v6: true, extType: 44, ext: make([]byte, 8)}, nil, nil},
		{"ipv6 extension beyond the packet", pkt{v6: true, extType: 60, ext: []byte{6, 255, 0, 0, 0, 0, 0, 0}}, nil, nil},
		{"ipv6 extensions longer than any", pkt{v6: true, extType: 60, ext: append([]byte{6, 31}, make([]byte, 254)...)}, nil, nil},
		{"ipv6 extension cut", pkt{v6: true}, nil, func(p []byte) []byte { p[6] = 60; putBE16(p[4:], 7); return p[:47] }},
		{"ipv6 routing header cut", pkt{v6: true}, nil, func(p []byte) []byte { p[6] = 43; putBE16(p[4:], 2); return p[:42] }},
		{"ipv6 routing header on its way", pkt{v6: true, extType: 43, ext: []byte{6, 2, 0, 1, 23: 0}}, nil, nil},
	} {
		h, p, _, _ := superOf(c.pkt, 1000)
		if c.h != nil {
			c.h(&h)
		}
		if c.p != nil {
			p = c.p(p)
		}
		b := packet.New()
		if _, ok := split(t, b, h, p); ok || len(b.Packets) != 0 {
			t.Errorf("%s: accepted, %d packets", c.name, len(b.Packets))
		}
	}
}

// Bytes behind the length that the IP header gives belong to nobody.
func TestSplitLeavesOutTrailingBytes(t *testing.T) {
	for _, k := range []pkt{{payload: pattern(2500, 1)}, {v6: true, udp: true, payload: pattern(2500, 1)}} {
		h, super, l4, hdr := superOf(k, 1000)
		b := packet.New()
		if _, ok := split(t, b, h, append(slices.Clone(super), "trailing"...)); !ok {
			t.Fatal("refused")
		}
		wantPackets(t, all(b), naiveSplit(super, l4, hdr, 1000, k.udp))
	}
}

// A jumbogram's length field is zero; what was read is its length.
func TestSplitJumbogram(t *testing.T) {
	h, super, l4, hdr := superOf(pkt{v6: true, payload: pattern(60000, 1)}, 1400)
	want := naiveSplit(super, l4, hdr, 1400, false)
	putBE16(super[ip6Len:], 0)
	b := packet.New()
	if _, ok := split(t, b, h, super); !ok {
		t.Fatal("refused")
	}
	wantPackets(t, all(b), want)
}

// More segments than a batch holds: the rest is a super-packet itself, and goes into the next batch.
func TestSplitMoreSegmentsThanRoom(t *testing.T) {
	for _, k := range []pkt{
		{flags: ack | psh | cwr, id: 65500, seq: 0xfffffff0},
		{v6: true, flags: ack | fin},
		{udp: true}, {v6: true, udp: true},
	} {
		for _, size := range []int{1, 40, 88} {
			k.payload = pattern(min(60000, 1200*size), 3)
			h, super, l4, hdr := superOf(k, size)
			want := naiveSplit(super, l4, hdr, size, k.udp)
			var got [][]byte
			batches := 0
			for len(super) > 0 {
				b := packet.New()
				rest, ok := split(t, b, h, super)
				if !ok {
					t.Fatalf("batch %d refused", batches)
				}
				for _, p := range all(b) {
					got = append(got, slices.Clone(p))
				}
				super = rest
				batches++
			}
			if batches < 2 {
				t.Fatalf("only %d batches", batches)
			}
			wantPackets(t, got, want)
		}
	}
}

// FuzzSplit also checks that nothing is written outside the segments placed and the super-packet's own place.
func FuzzSplit(f *testing.F) {
	add := func(k pkt, size int) {
		h, p, _, _ := superOf(k, size)
		var v [HeaderSize]byte
		h.Put(v[:])
		f.Add(v[:], p, uint16(0))
	}
	add(pkt{payload: pattern(3000, 1)}, 1000)
	add(pkt{v6: true, payload: pattern(3000, 1), opts: timestamps}, 10)
	add(pkt{udp: true, payload: pattern(3000, 1)}, 1)
	add(pkt{udp: true, payload: nil}, 1) // a zero-length datagram crashed a peer (nebula 705a8f60)
	add(pkt{v6: true, extType: 60, ext: []byte{6, 0, 1, 4, 0, 0, 0, 0}, payload: pattern(900, 1)}, 100)
	f.Add([]byte{1, 1, 0, 0, 0, 0, 0, 0, 0, 0}, []byte{0x45}, uint16(9))
	f.Fuzz(func(t *testing.T, v, p []byte, before uint16) {
		if len(v) < HeaderSize || len(p) > 8192 { // larger ones only take longer
			return
		}
		h := ReadHeader(v)
		const size = 72 << 10
		mem := bytes.Repeat([]byte{0xa5}, size+64)
		b := packet.NewSize(0, 64)
		b.Slab = mem[32 : 32+size : 32+size]
		b.MTU = int(before >> 4)
		for range before & 15 {
			b.Append(pattern(int(before>>4), 5))
		}
		k := len(b.Packets)
		used, room := b.Next()
		if room < len(p) {
			return
		}
		was := slices.Clone(mem[:32+used])
		super := slices.Clone(p)
		if h.GSOType == GSONone {
			Complete(h, super)
			return
		}
		rest, ok := split(t, b, h, super)
		if !bytes.Equal(mem[:32+used], was) || !bytes.Equal(mem[32+size:], bytes.Repeat([]byte{0xa5}, 32)) {
			t.Fatal("wrote out of bounds")
		}
		if !ok {
			if len(b.Packets) != k {
				t.Fatal("packets of a refused super-packet")
			}
			return
		}
		var s Super
		s.Parse(h, p, len(p))
		if p[0]>>4 == 6 && be16(p[4:]) == 0 {
			p = slices.Clone(p)
			putBE16(p[4:], s.n-40)
		}
		want := naiveSplit(p[:s.n], s.l4, s.hdr, s.size, s.udp)
		got := all(b)[k:]
		if len(got) == 0 || len(got) > len(want) || len(got) < len(want) != (len(rest) > 0) {
			t.Fatalf("%d of %d segments, %d bytes left", len(got), len(want), len(rest))
		}
		wantPackets(t, got, want[:len(got)])
		end := 0
		for _, q := range b.Packets {
			if q.Off < end+packet.Headroom || q.Off+q.Len+packet.Tailroom > size {
				t.Fatal("packets without head- or tailroom")
			}
			end = q.Off + q.Len + packet.Tailroom
		}
		if len(rest) > 0 {
			b := packet.NewSize(size, 64)
			if _, ok := split(t, b, h, rest); !ok {
				t.Fatal("the rest was refused")
			}
			n := min(len(b.Packets), len(want)-len(got))
			wantPackets(t, all(b)[:n], want[len(got):len(got)+n])
		}
	})
}

func TestSplitAllocatesNothing(t *testing.T) {
	h, super, _, _ := superOf(pkt{opts: timestamps, payload: pattern(60000, 1)}, 1368)
	b := packet.New()
	var s Super
	if n := testing.AllocsPerRun(50, func() { splitOnce(b, &s, h, super) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func splitOnce(b *packet.Batch, s *Super, h Header, super []byte) {
	b.Reset()
	off, _ := b.Next()
	copy(b.Slab[off:], super[:100]) // the payload's content doesn't matter
	if !s.Parse(h, b.Slab[off:], len(super)) {
		panic("refused")
	}
	s.Lay(b)
	s.Spread(b)
	s.Finish(b)
}

func BenchmarkSplit(b *testing.B) {
	for _, size := range []int{536, 1368, 8948} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			h, super, _, _ := superOf(pkt{opts: timestamps, payload: pattern(65000, 1)}, size)
			batch := packet.New()
			var s Super
			b.SetBytes(int64(len(super)))
			b.ReportAllocs()
			for b.Loop() {
				splitOnce(batch, &s, h, super)
			}
		})
	}
}
