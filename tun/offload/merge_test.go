package offload

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"throughline/packet"
)

// batchOf lays packets as an opened batch of datagrams has them: each with Headroom before it, full of old bytes.
func batchOf(packets ...[]byte) *packet.Batch {
	n := 64
	for _, p := range packets {
		n += len(p) + 64
	}
	b := packet.NewSize(n, max(packet.MaxPackets, len(packets)))
	for i := range b.Slab {
		b.Slab[i] = 0xa5 // stale virtio headers, if nobody clears them
	}
	for _, p := range packets {
		if !b.Append(p) {
			panic("no room")
		}
	}
	return b
}

// gather returns what w writes after its virtio header.
func gather(m *Merger, b *packet.Batch, w *Write) []byte {
	out := slices.Clone(b.Bytes(w.First))
	for i := m.Next(w.First); i >= 0; i = m.Next(i) {
		out = append(out, b.Bytes(i)[w.Head:]...)
	}
	return out
}

// checkMerge merges b and holds the result against what every merge must keep. It returns the indices each write holds.
func checkMerge(t *testing.T, m *Merger, b *packet.Batch) [][]int {
	t.Helper()
	var was [][]byte
	for i := range b.Packets {
		was = append(was, slices.Clone(b.Bytes(i)))
	}
	var shape [][]int
	seen := make([]bool, len(was))
	var order []int
	writes := m.Merge(b)
	for j := range writes {
		w := &writes[j]
		var held []int
		for i := w.First; i >= 0; i = m.Next(i) {
			if seen[i] || len(held) > 0 && i <= held[len(held)-1] {
				t.Fatalf("packet %d is there twice, or out of order", i)
			}
			seen[i] = true
			held = append(held, i)
		}
		shape = append(shape, held)
		order = append(order, held...)
		h := ReadHeader(b.Slab[b.Packets[w.First].Off-HeaderSize:])
		p := gather(m, b, w)
		if len(p) != w.Len || len(held) != w.N || len(held) > MaxIovecs || len(p) > 65535 {
			t.Fatalf("write %d: %d bytes in %d packets, said %d in %d", j, len(p), len(held), w.Len, w.N)
		}
		if w.N == 1 {
			if h != (Header{}) || !bytes.Equal(p, was[w.First]) {
				t.Fatalf("packet %d goes alone with header %+v, changed: %v", w.First, h, !bytes.Equal(p, was[w.First]))
			}
			continue
		}
		l4 := int(h.CsumStart)
		proto := p[9]
		if p[0]>>4 == 6 {
			proto = p[6]
		} else if naiveSum(p[:l4]) != 0xffff || be16(p[2:]) != len(p) {
			t.Fatalf("write %d: wrong IPv4 checksum or length", j)
		}
		if l4 != 20 && l4 != 40 || int(h.HdrLen) != w.Head || h.Flags != NeedsCsum {
			t.Fatalf("write %d: header %+v", j, h)
		}
		if got, want := be16(p[l4+int(h.CsumOffset):]), int(naiveSum(naivePseudo(p, l4, proto))); got != want {
			t.Fatalf("write %d: pseudo-header sum %#04x, want %#04x", j, got, want)
		}
		if proto == protoUDP && be16(p[l4+udpLen:]) != len(p)-l4 {
			t.Fatalf("write %d: UDP length", j)
		}
		wantType := map[bool]uint8{true: GSOTCPv6, false: GSOTCPv4}[p[0]>>4 == 6]
		if proto == protoUDP {
			wantType = GSOUDP
		}
		if h.GSOType != wantType {
			t.Fatalf("write %d: type %d, want %d", j, h.GSOType, wantType)
		}
		parts := naiveSplit(p, l4, w.Head, int(h.GSOSize), proto == protoUDP)
		if len(parts) != len(held) {
			t.Fatalf("write %d: a kernel makes %d packets of it, want %d", j, len(parts), len(held))
		}
		for k, q := range parts {
			if q[0]>>4 == 4 && be16(q[6:])&ip4DF != 0 { // its identification means nothing
				copy(q[4:6], was[held[k]][4:6])
				naiveChecksums(q, l4, proto)
			}
			if !bytes.Equal(q, was[held[k]]) {
				t.Fatalf("write %d, packet %d\nis   %x\nwant %x", j, held[k], q[:min(len(q), 80)], was[held[k]][:min(len(was[held[k]]), 80)])
			}
		}
	}
	for i, p := range b.Packets {
		if live := p.Drop == 0 && p.Len > 0; live != seen[i] {
			t.Fatalf("packet %d: live %v, written %v", i, live, seen[i])
		}
	}
	checkOrder(t, was, order)
	for j := range writes {
		m.Undo(b, &writes[j])
	}
	for i := range was {
		if !bytes.Equal(b.Bytes(i), was[i]) {
			t.Fatalf("Undo left packet %d changed", i)
		}
	}
	return shape
}

// checkOrder holds that packets of one flow leave in the order they came; a TCP segment without payload and without
// flags only never overtakes.
func checkOrder(t *testing.T, was [][]byte, order []int) {
	t.Helper()
	last, bare := map[string]int{}, map[string]int{}
	for _, i := range order {
		p := was[i]
		flow, isBare := flowOf(p)
		if flow == "" {
			continue
		}
		if isBare {
			if i < bare[flow] {
				t.Fatalf("bare ACK %d left after %d", i, bare[flow])
			}
			bare[flow] = i
			for j := range i {
				if f, b := flowOf(was[j]); f == flow && !b && slices.Index(order, j) > slices.Index(order, i) {
					t.Fatalf("bare ACK %d overtook %d", i, j)
				}
			}
			continue
		}
		if i < last[flow] {
			t.Fatalf("packet %d left after %d of the same flow", i, last[flow])
		}
		last[flow] = i
	}
}

func flowOf(p []byte) (flow string, bare bool) {
	switch {
	case len(p) >= 40 && p[0] == 0x45 && p[9] == protoTCP && be16(p[6:])&0x3fff == 0:
		off := int(p[32]>>4) * 4
		return string(p[9:10]) + string(p[12:24]), p[33]&^psh == ack && off >= 20 && 20+off == len(p) && be16(p[2:]) == len(p) && p[32]&15 == 0
	case len(p) >= 28 && p[0] == 0x45 && p[9] == protoUDP && be16(p[6:])&0x3fff == 0:
		return string(p[9:10]) + string(p[12:24]), false
	case len(p) >= 60 && p[0]>>4 == 6 && p[6] == protoTCP:
		off := int(p[52]>>4) * 4
		return string(p[6:7]) + string(p[8:44]), p[53]&^psh == ack && off >= 20 && 40+off == len(p) && be16(p[4:]) == len(p)-40 && p[52]&15 == 0
	case len(p) >= 48 && p[0]>>4 == 6 && p[6] == protoUDP:
		return string(p[6:7]) + string(p[8:44]), false
	}
	return "", false
}

// segmentsOf returns n consecutive segments of size bytes.
func segmentsOf(k pkt, n, size int) [][]byte {
	var out [][]byte
	for i := range n {
		q := k
		q.seq += uint32(i * size)
		q.id += uint16(i)
		q.payload = pattern(size, byte(i))
		out = append(out, q.bytes())
	}
	return out
}

func with(k pkt, f func(*pkt)) pkt { f(&k); return k }

func TestMerge(t *testing.T) {
	tcp := pkt{payload: pattern(100, 1), seq: 1000, window: 500, id: 10}
	next := with(tcp, func(k *pkt) { k.seq, k.id = 1100, 11 })
	third := with(tcp, func(k *pkt) { k.seq, k.id = 1200, 12 })
	tcp6 := with(tcp, func(k *pkt) { k.v6 = true })
	udp := pkt{udp: true, payload: pattern(100, 1), id: 10}
	bad := func(k pkt, at int) []byte { p := k.bytes(); p[at] ^= 0x10; return p }
	alter := func(f func(*pkt)) []byte { return with(next, f).bytes() }
	for _, c := range []struct {
		name    string
		packets [][]byte
		want    string
	}{
		{"tcp4", [][]byte{tcp.bytes(), next.bytes(), third.bytes()}, "[[0 1 2]]"},
		{"tcp6", segmentsOf(tcp6, 4, 1360), "[[0 1 2 3]]"},
		{"tcp with equal options", segmentsOf(with(tcp, func(k *pkt) { k.opts = timestamps }), 3, 50), "[[0 1 2]]"},
		{"udp4", segmentsOf(udp, 3, 100), "[[0 1 2]]"},
		{"udp6", segmentsOf(with(udp, func(k *pkt) { k.v6 = true }), 3, 100), "[[0 1 2]]"},
		{"a shorter last ends the write", [][]byte{tcp.bytes(), alter(func(k *pkt) { k.payload = k.payload[:99] }), with(third, func(k *pkt) { k.seq-- }).bytes()}, "[[0 1] [2]]"},
		{"a longer one begins a write", [][]byte{tcp.bytes(), alter(func(k *pkt) { k.payload = pattern(101, 1) }), with(third, func(k *pkt) { k.seq++; k.payload = pattern(101, 1) }).bytes()}, "[[0] [1 2]]"},
		{"psh ends the write", [][]byte{tcp.bytes(), alter(func(k *pkt) { k.flags = ack | psh }), third.bytes()}, "[[0 1] [2]]"},
		{"psh first", [][]byte{with(tcp, func(k *pkt) { k.flags = ack | psh }).bytes(), next.bytes(), third.bytes()}, "[[0] [1 2]]"},
		{"gap", [][]byte{tcp.bytes(), third.bytes()}, "[[0] [1]]"},
		{"reordered", [][]byte{next.bytes(), tcp.bytes()}, "[[0] [1]]"},
		{"sequence wraps", [][]byte{with(tcp, func(k *pkt) { k.seq = 0xffffffce }).bytes(), with(next, func(k *pkt) { k.seq = 50 }).bytes()}, "[[0 1]]"},
		{"other ack", [][]byte{tcp.bytes(), alter(func(k *pkt) { k.ack++ })}, "[[0] [1]]"},
		{"other window", [][]byte{tcp.bytes(), alter(func(k *pkt) { k.window++ })}, "[[0] [1]]"},
		{"other urgent pointer", [][]byte{tcp.bytes(), alter(func(k *pkt) { k.urgent++ })}, "[[0] [1]]"},
		{"other options", [][]byte{with(tcp, func(k *pkt) { k.opts = timestamps }).bytes(), alter(func(k *pkt) { k.opts = append(slices.Clone(timestamps[:11]), 9) })}, "[[0] [1]]"},
		{"other options length", [][]byte{tcp.bytes(), alter(func(k *pkt) { k.opts = timestamps })}, "[[0] [1]]"},
		{"other tos", [][]byte{tcp.bytes(), alter(func(k *pkt) { k.tos = 4 })}, "[[0] [1]]"},
		{"congestion experienced", [][]byte{with(tcp, func(k *pkt) { k.tos = 2 }).bytes(), alter(func(k *pkt) { k.tos = 3 })}, "[[0] [1]]"},
		{"other ttl", [][]byte{tcp.bytes(), alter(func(k *pkt) { k.ttl = 63 })}, "[[0] [1]]"},
		{"other hop limit", [][]byte{tcp6.bytes(), alter(func(k *pkt) { k.v6 = true; k.ttl = 63 })}, "[[0] [1]]"},
		{"other DF", [][]byte{tcp.bytes(), alter(func(k *pkt) { k.noDF = true })}, "[[0] [1]]"},
		{"identification without meaning", [][]byte{tcp.bytes(), alter(func(k *pkt) { k.id = 0 })}, "[[0 1]]"},
		{"identification counts on", segmentsOf(with(tcp, func(k *pkt) { k.noDF = true; k.id = 65535 }), 3, 9), "[[0 1 2]]"},
		{"identification doesn't count on", [][]byte{with(tcp, func(k *pkt) { k.noDF = true }).bytes(), alter(func(k *pkt) { k.noDF = true; k.id = 10 })}, "[[0] [1]]"},
		{"ip options", [][]byte{with(tcp, func(k *pkt) { k.ipOpts = make([]byte, 4) }).bytes(), alter(func(k *pkt) { k.ipOpts = make([]byte, 4) })}, "[[0] [1]]"},
		{"ip options between", [][]byte{tcp.bytes(), alter(func(k *pkt) { k.ipOpts = make([]byte, 4) }), next.bytes()}, "[[0] [1] [2]]"},
		{"extension headers", [][]byte{with(tcp6, func(k *pkt) { k.extType = 60; k.ext = []byte{6, 0, 1, 4, 0, 0, 0, 0} }).bytes(), alter(func(k *pkt) { k.v6 = true })}, "[[0] [1]]"},
		{"extension headers between", [][]byte{tcp6.bytes(), alter(func(k *pkt) { k.v6 = true; k.extType = 60; k.ext = []byte{6, 0, 1, 4, 0, 0, 0, 0} }), alter(func(k *pkt) { k.v6 = true })}, "[[0] [1] [2]]"},
		{"first fragment", [][]byte{with(tcp, func(k *pkt) { k.frag = 0x2000 }).bytes(), alter(func(k *pkt) { k.frag = 0x2000 })}, "[[0] [1]]"},
		{"later fragments", [][]byte{with(udp, func(k *pkt) { k.frag = 1 }).bytes(), with(udp, func(k *pkt) { k.frag = 1; k.id++ }).bytes()}, "[[0] [1]]"},
		{"fragment between", [][]byte{udp.bytes(), with(udp, func(k *pkt) { k.frag = 1 }).bytes(), with(udp, func(k *pkt) { k.id++ }).bytes()}, "[[0] [1] [2]]"},
		{"syn", [][]byte{with(tcp, func(k *pkt) { k.flags = 2 }).bytes(), alter(func(k *pkt) { k.flags = 2 })}, "[[0] [1]]"},
		{"fin", [][]byte{tcp.bytes(), alter(func(k *pkt) { k.flags = ack | fin })}, "[[0] [1]]"},
		{"rst between", [][]byte{tcp.bytes(), with(tcp, func(k *pkt) { k.flags = 4; k.payload = nil }).bytes(), next.bytes()}, "[[0] [1] [2]]"},
		{"urg", [][]byte{tcp.bytes(), alter(func(k *pkt) { k.flags = ack | 32 })}, "[[0] [1]]"},
		{"ece", [][]byte{with(tcp, func(k *pkt) { k.flags = ack | 64 }).bytes(), alter(func(k *pkt) { k.flags = ack | 64 })}, "[[0] [1]]"},
		{"cwr", [][]byte{with(tcp, func(k *pkt) { k.flags = ack | cwr }).bytes(), next.bytes()}, "[[0] [1]]"},
		{"no ack", [][]byte{with(tcp, func(k *pkt) { k.flags = psh }).bytes(), next.bytes()}, "[[0] [1]]"},
		{"interleaved flows", [][]byte{
			tcp.bytes(), with(tcp, func(k *pkt) { k.flow = 1 }).bytes(), udp.bytes(),
			next.bytes(), alter(func(k *pkt) { k.flow = 1 }), with(udp, func(k *pkt) { k.id++ }).bytes(),
		}, "[[0 3] [1 4] [2 5]]"},
		{"icmp between", [][]byte{tcp.bytes(), {0x45, 9: 1, 27: 0}, next.bytes()}, "[[0 2] [1]]"},
		{"runt between", [][]byte{tcp.bytes(), {0x45}, {0x60, 30: 0}, {0x20, 50: 0}, next.bytes()}, "[[0 4] [1] [2] [3]]"},
		{"bare ack doesn't end the write", [][]byte{tcp.bytes(), with(tcp, func(k *pkt) { k.payload = nil; k.ack = 5 }).bytes(), next.bytes()}, "[[0 2] [1]]"},
		{"udp without checksum", func() [][]byte {
			x := segmentsOf(udp, 2, 100)
			for _, p := range x {
				p[26], p[27] = 0, 0
			}
			return x
		}(), "[[0] [1]]"},
		{"udp zero length", segmentsOf(udp, 2, 0), "[[0] [1]]"},
		{"udp shorter last", [][]byte{udp.bytes(), with(udp, func(k *pkt) { k.payload = k.payload[:1] }).bytes(), with(udp, func(k *pkt) { k.payload = k.payload[:1] }).bytes()}, "[[0 1] [2]]"},
		{"udp length disagrees", func() [][]byte {
			x := segmentsOf(udp, 2, 100)
			putBE16(x[1][24:], 107)
			naiveChecksums(x[1], 20, protoUDP)
			return x
		}(), "[[0] [1]]"},
		{"trailing bytes", [][]byte{tcp.bytes(), append(next.bytes(), 0)}, "[[0] [1]]"},
		{"trailing bytes first", [][]byte{append(tcp.bytes(), 0), next.bytes()}, "[[0] [1]]"},
		{"trailing bytes under the checksum", [][]byte{tcp.bytes(), func() []byte {
			p := append(with(next, func(k *pkt) { k.payload = k.payload[:98] }).bytes(), 1, 2)
			naiveChecksums(p, 20, protoTCP)
			return p
		}()}, "[[0] [1]]"},
		{"accurate ecn", func() [][]byte {
			x := [][]byte{tcp.bytes(), next.bytes()}
			for _, p := range x {
				p[32] |= 1
				naiveChecksums(p, 20, protoTCP)
			}
			return x
		}(), "[[0] [1]]"},
		{"tcp checksum wrong", [][]byte{tcp.bytes(), bad(next, 50), third.bytes()}, "[[0] [1] [2]]"},
		{"tcp checksum of the first wrong", [][]byte{bad(tcp, 50), next.bytes(), third.bytes()}, "[[0] [1 2]]"},
		{"tcp6 checksum wrong", [][]byte{tcp6.bytes(), bad(with(next, func(k *pkt) { k.v6 = true }), 70)}, "[[0] [1]]"},
		{"udp checksum wrong", [][]byte{udp.bytes(), bad(udp, 26)}, "[[0] [1]]"},
		{"ip checksum wrong", [][]byte{tcp.bytes(), bad(next, 10)}, "[[0] [1]]"},
		{"ip checksum of the first wrong", [][]byte{bad(tcp, 10), next.bytes()}, "[[0] [1]]"},
		{"data offset beyond the packet", [][]byte{tcp.bytes(), func() []byte { p := with(next, func(k *pkt) { k.payload = nil }).bytes(); p[32] = 0xf0; return p }(), next.bytes()}, "[[0] [1] [2]]"},
		{"data offset below 5", [][]byte{tcp.bytes(), func() []byte { p := next.bytes(); p[32] = 0x40; return p }(), next.bytes()}, "[[0] [1] [2]]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &Merger{TCP: true, UDP: true}
			if got := fmt.Sprint(checkMerge(t, m, batchOf(c.packets...))); got != c.want {
				t.Errorf("writes %s, want %s", got, c.want)
			}
		})
	}
}

func TestMergeLimits(t *testing.T) {
	m := &Merger{TCP: true, UDP: true}
	// 65535 bytes: 20+20+45*1448 = 65200, one more doesn't fit.
	if got := checkMerge(t, m, batchOf(segmentsOf(pkt{}, 60, 1448)...)); len(got) != 2 || len(got[0]) != 45 {
		t.Errorf("65535 bytes: first write holds %d", len(got[0]))
	}
	if got := checkMerge(t, m, batchOf(segmentsOf(pkt{v6: true}, 5, 13099)...)); len(got) != 2 || len(got[0]) != 4 {
		t.Errorf("65536 bytes: %v", got)
	}
	if got := checkMerge(t, m, batchOf(segmentsOf(pkt{v6: true}, 5, 13095)...)); len(got) != 1 {
		t.Errorf("65535 bytes: %v", got)
	}
	// One byte too much, for either length field.
	for _, p := range [][][]byte{segmentsOf(pkt{}, 8, 8187), segmentsOf(pkt{v6: true}, 4, 16369)} {
		if got := checkMerge(t, m, batchOf(p...)); len(got) != 2 || len(got[1]) != 1 {
			t.Errorf("65536 bytes: %v", got)
		}
	}
	if got := checkMerge(t, m, batchOf(segmentsOf(pkt{udp: true}, 65, 1)...)); len(got) != 2 || len(got[0]) != maxDatagrams {
		t.Errorf("datagrams: %v", got)
	}
	if got := checkMerge(t, m, batchOf(segmentsOf(pkt{}, 1100, 1)...)); len(got) != 2 || len(got[0]) != MaxIovecs {
		t.Errorf("iovecs: first write holds %d", len(got[0]))
	}
}

// Flows are distinguished by their headers, not by their hashes.
func TestMergeHashCollision(t *testing.T) {
	for _, k := range []pkt{{}, {v6: true}, {udp: true}, {udp: true, v6: true}} {
		k.payload = pattern(50, 1)
		other := func(at int) []byte {
			o := k
			o.seq, o.id = 50, 1
			p := o.bytes()
			p[at]++
			naiveChecksums(p, map[bool]int{false: 20, true: 40}[k.v6], k.proto())
			return p
		}
		addr, ports := 15, 21
		if k.v6 {
			addr, ports = 39, 41
		}
		for i, p := range [][]byte{other(addr), other(ports)} {
			m := &Merger{TCP: true, UDP: true, next: make([]int32, 2)}
			b := batchOf(k.bytes(), p)
			var s segment
			m.classify(b.Bytes(0), &s)
			w := Write{N: 1, Len: len(b.Bytes(0))}
			m.open(&w, b.Bytes(0), &s)
			m.classify(b.Bytes(1), &s)
			if m.join(b, &w, 1, b.Bytes(1), &s) {
				t.Errorf("%+v: packet %d of another flow joined", k.proto(), i)
			}
		}
	}
}

// Without a checksum is without, also when zero happens to be right.
func TestMergeUDPWithoutChecksumByLuck(t *testing.T) {
	for v := range 1 << 16 {
		p := pkt{udp: true, payload: []byte{byte(v >> 8), byte(v)}}.bytes()
		if p[26] != 0xff || p[27] != 0xff {
			continue
		}
		p[26], p[27] = 0, 0
		if got := checkMerge(t, &Merger{UDP: true}, batchOf(p, p)); len(got) != 2 {
			t.Errorf("%v", got)
		}
		return
	}
	t.Fatal("no payload gives the checksum zero")
}

func TestMergeSwitches(t *testing.T) {
	packets := append(segmentsOf(pkt{}, 2, 9), segmentsOf(pkt{udp: true}, 2, 9)...)
	for _, c := range []struct {
		tcp, udp bool
		want     string
	}{{true, true, "[[0 1] [2 3]]"}, {true, false, "[[0 1] [2] [3]]"}, {false, true, "[[0] [1] [2 3]]"}, {false, false, "[[0] [1] [2] [3]]"}} {
		m := &Merger{TCP: c.tcp, UDP: c.udp}
		if got := fmt.Sprint(checkMerge(t, m, batchOf(packets...))); got != c.want {
			t.Errorf("tcp %v, udp %v: %s, want %s", c.tcp, c.udp, got, c.want)
		}
	}
}

func TestMergeLeavesOutDroppedAndEmpty(t *testing.T) {
	b := batchOf(segmentsOf(pkt{}, 4, 100)...)
	b.Packets[1].Drop = packet.DropReplay
	b.Packets[2].Len = 0
	if got := fmt.Sprint(checkMerge(t, &Merger{TCP: true}, b)); got != "[[0] [3]]" {
		t.Error(got)
	}
}

// A packet that fell out of a write for its checksum was once written with the header of an earlier one (wireguard-go
// ecfc5a8). Every write's first packet has its own, whatever lay there.
func TestMergeClearsVirtioHeader(t *testing.T) {
	p := segmentsOf(pkt{}, 3, 100)
	p[0][45] ^= 1
	b := batchOf(p...)
	m := &Merger{TCP: true}
	for range 2 { // the second time old headers lie there
		for _, w := range m.Merge(b) {
			if h := ReadHeader(b.Slab[b.Packets[w.First].Off-HeaderSize:]); (h != Header{}) != (w.N > 1) {
				t.Errorf("write of %d packets has header %+v", w.N, h)
			}
		}
		for i := range m.writes {
			m.Undo(b, &m.writes[i])
		}
	}
	one := Single(b, 2)
	if ReadHeader(one) != (Header{}) || !bytes.Equal(one[HeaderSize:], p[2]) {
		t.Error("Single has a header or another packet")
	}
}

// Many flows: each merges, as long as the table has places; none is lost or reordered when it hasn't.
func TestMergeManyFlows(t *testing.T) {
	m := &Merger{TCP: true, UDP: true}
	for _, flows := range []int{2, 16, 100, 250} {
		var packets [][]byte
		for i := range 2 {
			for f := range flows {
				packets = append(packets, segmentsOf(pkt{flow: byte(f), v6: f%2 == 0, udp: f%3 == 0}, 2, 60)[i])
			}
		}
		got := checkMerge(t, m, batchOf(packets...))
		if len(got) > flows+flows/10 {
			t.Errorf("%d flows of two packets: %d writes", flows, len(got))
		}
	}
}

// Split(Merge(x)) is x, flow by flow, with this package's own Split.
func TestSplitOfMergeIsTheSame(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		packets := randomTraffic(r, 1+r.IntN(60))
		b := batchOf(packets...)
		m := &Merger{TCP: true, UDP: true}
		want, got := map[string][][]byte{}, map[string][][]byte{}
		note := func(to map[string][][]byte, p []byte) {
			f, bare := flowOf(p)
			if bare {
				f = "bare " + f
			}
			p = slices.Clone(p)
			if p[0]>>4 == 4 && be16(p[6:])&ip4DF != 0 {
				p[4], p[5], p[10], p[11] = 0, 0, 0, 0
			}
			to[f] = append(to[f], p)
		}
		for _, p := range packets {
			note(want, p)
		}
		writes := m.Merge(b)
		for i := range writes {
			w := &writes[i]
			h := ReadHeader(b.Slab[b.Packets[w.First].Off-HeaderSize:])
			p := gather(m, b, w)
			if w.N == 1 {
				note(got, p)
				continue
			}
			o := packet.New()
			if rest, ok := split(t, o, h, p); !ok || len(rest) > 0 {
				t.Fatalf("Split refuses %+v", h)
			}
			for _, q := range all(o) {
				note(got, q)
			}
		}
		for f := range want {
			wantPackets(t, got[f], want[f])
		}
	}
}

// randomTraffic makes n packets of a few flows that mostly go on where they were.
func randomTraffic(r *rand.Rand, n int) [][]byte {
	type state struct {
		pkt
		size int
	}
	flows := make([]state, 1+r.IntN(6))
	for i := range flows {
		flows[i] = state{pkt{v6: r.IntN(2) == 0, udp: r.IntN(3) == 0, flow: byte(i), noDF: r.IntN(3) == 0, seq: r.Uint32()}, 1 + r.IntN(1400)}
		if r.IntN(2) == 0 {
			flows[i].opts = timestamps
		}
	}
	var out [][]byte
	for range n {
		f := &flows[r.IntN(len(flows))]
		k := f.pkt
		size := f.size
		corrupt := false
		switch r.IntN(20) {
		case 0:
			size = r.IntN(size + 1)
		case 1:
			size = 0
		case 2:
			k.flags = byte(r.IntN(256))
		case 3:
			k.flags = ack | psh
		case 4:
			f.ack++
		case 5:
			f.seq += uint32(r.IntN(3))
		case 6:
			k.ttl = 3
		case 7:
			corrupt = true
		case 8:
			k.frag = uint16(r.IntN(3)) << 13
		case 9:
			f.size = 1 + r.IntN(1400)
		}
		k.payload = pattern(size, byte(r.Uint32()))
		p := k.bytes()
		if corrupt {
			p[r.IntN(len(p))] ^= 1 << r.IntN(8)
		}
		out = append(out, p)
		f.seq += uint32(size)
		f.id++
	}
	return out
}

func TestMergeRandomTraffic(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	m := &Merger{TCP: true, UDP: true}
	merged := 0
	for range 500 {
		p := randomTraffic(r, 1+r.IntN(60))
		merged += len(p) - len(checkMerge(t, m, batchOf(p...)))
	}
	if merged < 500 {
		t.Errorf("only %d packets were merged: the traffic tests nothing", merged)
	}
}

// FuzzMerge takes packets as its input has them: two bytes of length, the packet, and so on; a length of 0xffff and two
// more bytes asks for a well-formed one.
func FuzzMerge(f *testing.F) {
	pack := func(ps ...[]byte) (out []byte) {
		for _, p := range ps {
			out = append(append(out, byte(len(p)>>8), byte(len(p))), p...)
		}
		return out
	}
	f.Add(pack(segmentsOf(pkt{}, 3, 20)...))
	f.Add(pack(segmentsOf(pkt{v6: true}, 3, 20)...))
	f.Add(pack(segmentsOf(pkt{udp: true}, 3, 20)...))
	f.Add(pack(segmentsOf(pkt{udp: true, v6: true}, 3, 20)...))
	f.Add([]byte{0xff, 0xff, 1, 2, 0xff, 0xff, 1, 2, 0xff, 0xff, 1, 2})
	f.Add(pack(pkt{udp: true}.bytes(), []byte{0x45}, pkt{frag: 1, payload: pattern(9, 1)}.bytes()))
	m := &Merger{TCP: true, UDP: true}
	f.Fuzz(func(t *testing.T, in []byte) {
		var packets [][]byte
		var seq [8]uint32
		for len(in) >= 2 && len(packets) < 200 {
			n := be16(in)
			in = in[2:]
			if n != 0xffff {
				n = min(n, len(in), 1500)
				packets = append(packets, slices.Clone(in[:n]))
				in = in[n:]
				continue
			}
			if len(in) < 2 {
				break
			}
			x, y := in[0], in[1]
			in = in[2:]
			k := pkt{flow: x & 7, v6: x&1 != 0, udp: x&2 != 0, seq: seq[x&7], noDF: x&4 != 0, id: uint16(seq[x&7] / 20), payload: pattern(20, y)}
			switch y % 7 {
			case 0:
				k.payload = pattern(int(y)/7, x)
			case 1:
				k.flags = y
			case 2:
				k.payload = nil
			}
			seq[x&7] += uint32(len(k.payload))
			p := k.bytes()
			if x>>3 == 1 {
				p[int(y)%len(p)] ^= x
			}
			packets = append(packets, p)
		}
		checkMerge(t, m, batchOf(packets...))
	})
}

func TestMergeAllocatesNothing(t *testing.T) {
	b := batchOf(append(segmentsOf(pkt{}, 20, 1000), segmentsOf(pkt{udp: true}, 20, 1000)...)...)
	m := &Merger{TCP: true, UDP: true}
	m.Merge(b)
	if n := testing.AllocsPerRun(50, func() { mergeOnce(m, b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func mergeOnce(m *Merger, b *packet.Batch) {
	w := m.Merge(b)
	for i := range w {
		m.Undo(b, &w[i])
	}
}

func BenchmarkMerge(b *testing.B) {
	run := func(name string, packets [][]byte) {
		b.Run(name, func(b *testing.B) {
			batch := batchOf(packets...)
			m := &Merger{TCP: true, UDP: true}
			n := 0
			for _, p := range packets {
				n += len(p)
			}
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				mergeOnce(m, batch)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(packets)), "ns/packet")
		})
	}
	run("tcp", segmentsOf(pkt{opts: timestamps}, 45, 1368))
	run("udp128", segmentsOf(pkt{udp: true}, 256, 128))
	var acks, mixed [][]byte
	for i := range 256 {
		acks = append(acks, pkt{flow: byte(i), ack: uint32(i)}.bytes())
		mixed = append(mixed, segmentsOf(pkt{flow: byte(i % 16)}, 16, 200)[i/16])
	}
	run("acks", acks)
	run("tcp16flows", mixed)
	run("one", segmentsOf(pkt{udp: true}, 1, 128))
}
