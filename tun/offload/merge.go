package offload

import (
	"math"
	"math/bits"

	"throughline/packet"
)

// Limits of one write.
const (
	// MaxIovecs is how many packets one write can have, each an iovec: IOV_MAX, Linux uapi/linux/uio.h.
	MaxIovecs = 1024

	// maxDatagrams is how many UDP datagrams one write may hold: UDP_MAX_SEGMENTS as it was until Linux 6.9.
	maxDatagrams = 64
)

// A Write is what one system call writes: a packet, or several of one flow.
type Write struct {
	First int  // the index of its first packet
	N     int  // how many packets it holds
	Len   int  // the bytes of the IP packet written
	Head  int  // the length of the headers, which only the first packet's are written of; set when N > 1
	UDP   bool // its packets are UDP's, else TCP's or of any other kind

	last, size  int    // the last packet's index, the first's payload bytes
	seq         uint32 // the sequence number of the next packet that joins
	id          uint16 // the IPv4 identification of the next packet that joins
	flow, addrs uint32
	l4          int
	v6          bool
	verified    bool // the first packet's checksums were checked and are right
	closed      bool // nothing more joins

	// The first packet's own header fields, while it carries those of the whole.
	ipLen, ipSum, l4Len, l4Sum uint16
	flags                      byte
}

// A Merger makes of a batch's packets as few writes as it can. It merges only what segmentation would split into the same
// packets again: packets of one flow whose headers differ only in what segmentation computes (sequence number, length,
// checksum, and IPv4 identification, which for packets with DF set has no meaning: RFC 6864 §4.1).
//
//   - TCP: consecutive data segments with ACK alone or ACK and PSH set, and equal acknowledgment, window and options. PSH
//     and a segment shorter than the first end a write. A segment with another flag ends it and goes alone. A segment
//     without payload goes alone but doesn't end it: two-way traffic is full of them, and a later segment of its sender
//     that acknowledges more ends the write by itself.
//   - UDP: datagrams of one size, the last may be shorter. Those without checksum or payload go alone.
//   - A packet joins only if its checksums and those of the first are right; for the kernel doesn't verify them again.
//     One with a wrong checksum goes alone, unchanged.
//   - IPv4 with options, IPv6 with extension headers and fragments go alone, and end the writes between their addresses.
//
// The order within each flow is kept: a write stands where its first packet stood, and whatever goes alone ends the write
// before it, but for a TCP segment without payload, which may come to lie behind later data.
//
// The zero Merger merges nothing. Its memory grows to that of the largest batch it saw and stays.
type Merger struct {
	TCP, UDP bool // what to merge; may be changed between batches

	writes []Write
	next   []int32           // by packet: the next one in the same write, or -1
	table  [tableSize]uint16 // by hash of the flow: the number of its open write, plus one
}

const (
	tableSize  = 1024 // twice what a batch holds
	tableProbe = 4
)

const _ = uint(tableSize - 2*packet.MaxPackets)
const _ = uint(math.MaxUint16 - packet.MaxPackets - 1)

// A kind says what a packet means for its flow's open write, the one that further packets may join.
type kind uint8

const (
	unmerged kind = iota // of no flow that is merged
	alone                // of a flow, but can't be merged, and doesn't end its write
	closing              // can't be merged, and ends its flow's write
	unclear              // of some flow between its addresses; ends them all
	data                 // may be merged
)

// A segment is what classify finds out about a packet, as far as its kind needs it.
type segment struct {
	l4, hdr     int
	flow, addrs uint32
	udp, v6     bool
}

// Merge looks through the live packets of b that are not empty, and returns the writes they make, in order.
// Before each write's first packet, in its headroom, it puts the virtio header; a first packet of several gets the headers
// of the whole. The writes are borrowed until the next call.
func (m *Merger) Merge(b *packet.Batch) []Write {
	if n := len(b.Packets); n > len(m.next) {
		n = max(n, cap(b.Packets))
		m.writes, m.next = make([]Write, 0, n), make([]int32, n)
	}
	m.writes = m.writes[:0]
	clear(m.table[:])
	var s segment
	opened := 0 // no write is open from here on in m.writes
	for i := range b.Packets {
		if pk := &b.Packets[i]; pk.Drop != 0 || pk.Len == 0 {
			continue
		}
		p := b.Bytes(i)
		k := m.classify(p, &s)
		var slot *uint16
		switch k {
		case data, closing:
			slot = m.find(s.flow)
			if *slot != 0 && m.writes[*slot-1].flow == s.flow {
				w := &m.writes[*slot-1]
				if k == data && m.join(b, w, i, p, &s) {
					continue
				}
				w.closed = true
			}
		case unclear:
			for j := range m.writes[:opened] {
				if w := &m.writes[j]; w.addrs == s.addrs {
					w.closed = true
				}
			}
		}
		m.next[i] = -1
		m.writes = append(m.writes, Write{First: i, N: 1, Len: len(p), last: i, closed: true})
		if k == data && len(m.writes) <= math.MaxUint16 {
			m.open(&m.writes[len(m.writes)-1], p, &s)
			*slot = uint16(len(m.writes))
			opened = len(m.writes)
		}
	}
	for i := range m.writes {
		m.finish(b, &m.writes[i])
	}
	return m.writes
}

// Next returns the packet that follows packet i in the write it belongs to, or -1.
func (m *Merger) Next(i int) int { return int(m.next[i]) }

// find returns the slot of the flow with this hash: the one with its open write, else a free one, else another flow's,
// whose write is ended. Flows of one hash share a slot; they end each other's writes.
func (m *Merger) find(hash uint32) *uint16 {
	for j := range uint32(tableProbe) {
		slot := &m.table[(hash+j)%tableSize]
		if *slot == 0 || m.writes[*slot-1].flow == hash {
			return slot
		}
	}
	return &m.table[hash%tableSize]
}

// classify returns a packet's kind, and sets the fields of s that the kind needs.
func (m *Merger) classify(p []byte, s *segment) kind {
	if len(p) < ip4Size {
		return unmerged
	}
	var proto byte
	plain := true // no options, no extension headers, no fragment, lengths agree
	switch p[0] >> 4 {
	case 4:
		s.v6, s.l4, proto = false, ip4Size, p[ip4Proto]
		s.addrs = mix(native64(p[ip4Addrs:]), 0)
		plain = p[0] == 0x45 && be16(p[ip4Len:]) == len(p) && be16(p[ip4Frag:])&ip4MoreOrOffset == 0
	case 6:
		if len(p) < ip6Size {
			return unmerged
		}
		s.v6, s.l4, proto = true, ip6Size, p[ip6Next]
		a := p[ip6Addrs:ip6Size]
		s.addrs = mix(native64(a[16:]), mix(native64(a[24:]), mix(native64(a), mix(native64(a[8:]), 6))))
		switch proto {
		case 0, 43, 44, 51, 60: // hop-by-hop, routing, fragment, authentication, destination: RFC 8200 §4.1
			return unclear
		}
		plain = be16(p[ip6Len:]) == len(p)-ip6Size
	default:
		return unmerged
	}
	switch {
	case proto == protoTCP && m.TCP:
		if !plain || len(p) < s.l4+tcpSize {
			return unclear
		}
		t := p[s.l4:]
		s.udp, s.hdr = false, s.l4+int(t[tcpOff]>>4)*4
		s.flow = mix(uint64(native32(t)), s.addrs)
		switch {
		case t[tcpFlags]&^psh != ack || t[tcpOff]&15 != 0 || s.hdr < s.l4+tcpSize || s.hdr > len(p):
			return closing
		case s.hdr == len(p):
			return alone
		}
		return data
	case proto == protoUDP && m.UDP:
		if !plain || len(p) < s.l4+udpSize {
			return unclear
		}
		t := p[s.l4:]
		s.udp, s.hdr = true, s.l4+udpSize
		s.flow = ^mix(uint64(native32(t)), s.addrs)
		if be16(t[udpLen:]) != len(t) || be16(t[udpSum:]) == 0 || s.hdr == len(p) {
			return closing
		}
		return data
	}
	return unmerged
}

// mix hashes x into h.
func mix(x uint64, h uint32) uint32 {
	hi, lo := bits.Mul64(x^uint64(h)<<13^0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
	return uint32(hi ^ lo ^ (hi^lo)>>32)
}

// open makes w, which holds the packet p alone, a write that others may join.
func (m *Merger) open(w *Write, p []byte, s *segment) {
	w.Head, w.l4, w.v6, w.UDP, w.flow, w.addrs = s.hdr, s.l4, s.v6, s.udp, s.flow, s.addrs
	w.size = len(p) - s.hdr
	w.closed = !s.udp && p[s.l4+tcpFlags]&psh != 0
	if !s.udp {
		w.seq = be32(p[s.l4+tcpSeq:]) + uint32(w.size)
	}
	if !s.v6 {
		w.id = uint16(be16(p[ip4ID:]) + 1)
	}
}

// join adds packet i to w if it belongs there.
func (m *Merger) join(b *packet.Batch, w *Write, i int, p []byte, s *segment) bool {
	size := len(p) - s.hdr
	if w.closed || w.UDP != s.udp || w.v6 != s.v6 || w.Head != s.hdr ||
		size > w.size || w.Len+size > maxLen || w.N == MaxIovecs || s.udp && w.N == maxDatagrams {
		return false
	}
	first := b.Bytes(w.First)
	if s.v6 {
		if native32(p) != native32(first) || native16(p[ip6Next:]) != native16(first[ip6Next:]) ||
			string(p[ip6Addrs:ip6Size]) != string(first[ip6Addrs:ip6Size]) {
			return false
		}
	} else {
		if native16(p) != native16(first) || native32(p[ip4Frag:]) != native32(first[ip4Frag:]) ||
			native64(p[ip4Addrs:]) != native64(first[ip4Addrs:]) {
			return false
		}
		if be16(p[ip4Frag:])&ip4DF == 0 && uint16(be16(p[ip4ID:])) != w.id {
			return false
		}
	}
	t, f := p[s.l4:s.hdr], first[s.l4:s.hdr]
	if native32(t) != native32(f) { // ports
		return false
	}
	if !s.udp {
		if be32(t[tcpSeq:]) != w.seq || native32(t[tcpAck:]) != native32(f[tcpAck:]) ||
			t[tcpOff] != f[tcpOff] || native16(t[tcpWindow:]) != native16(f[tcpWindow:]) ||
			native16(t[tcpUrgent:]) != native16(f[tcpUrgent:]) || string(t[tcpSize:]) != string(f[tcpSize:]) {
			return false
		}
	}
	if !verify(p, s) || !w.verified && !verify(first, s) {
		return false
	}
	w.verified = true
	m.next[w.last], m.next[i] = int32(i), -1
	w.last, w.N, w.Len = i, w.N+1, w.Len+size
	w.seq += uint32(size)
	w.id++
	w.closed = size < w.size
	if !s.udp && t[tcpFlags]&psh != 0 {
		w.flags, w.closed = psh, true
	}
	return true
}

// verify reports whether the checksums of p are right.
func verify(p []byte, s *segment) bool {
	if !s.v6 && Fold(Sum(p[:ip4Size], 0)) != 0xffff {
		return false
	}
	proto := protoTCP
	if s.udp {
		proto = protoUDP
	}
	t := p[s.l4:]
	return Fold(Sum(t, pseudo(p, s.v6, proto, len(t)))) == 0xffff
}

// finish writes the virtio header of w and, when it holds several packets, makes the first one's headers those of the
// whole: lengths, PSH, and in the transport checksum's place the pseudo-header's sum, which the kernel completes.
func (m *Merger) finish(b *packet.Batch, w *Write) {
	off := b.Packets[w.First].Off
	virtio := b.Slab[off-HeaderSize : off]
	if w.N == 1 {
		clear(virtio) // the empty header: no offload
		return
	}
	p := b.Bytes(w.First)
	t := p[w.l4:]
	h := Header{Flags: NeedsCsum, HdrLen: uint16(w.Head), GSOSize: uint16(w.size), CsumStart: uint16(w.l4)}
	if w.v6 {
		w.ipLen = uint16(be16(p[ip6Len:]))
		putBE16(p[ip6Len:], w.Len-ip6Size)
	} else {
		w.ipLen, w.ipSum = uint16(be16(p[ip4Len:])), uint16(be16(p[ip4Sum:]))
		putBE16(p[ip4Len:], w.Len)
		ip4Checksum(p[:ip4Size])
	}
	proto, sumAt := protoTCP, tcpSum
	if w.UDP {
		proto, sumAt = protoUDP, udpSum
		h.GSOType = GSOUDP
		w.l4Len = uint16(be16(t[udpLen:]))
		putBE16(t[udpLen:], w.Len-w.l4)
	} else {
		h.GSOType = GSOTCPv4
		if w.v6 {
			h.GSOType = GSOTCPv6
		}
		t[tcpFlags] |= w.flags // its own PSH is clear, or nothing had joined
	}
	h.CsumOffset = uint16(sumAt)
	w.l4Sum = uint16(be16(t[sumAt:]))
	putBE16(t[sumAt:], int(Fold(pseudo(p, w.v6, proto, w.Len-w.l4))))
	h.Put(virtio)
}

// Undo gives the first packet of w its own headers back, so that the packets of w can be written one by one ([Single]).
func (m *Merger) Undo(b *packet.Batch, w *Write) {
	if w.N == 1 {
		return
	}
	p := b.Bytes(w.First)
	t := p[w.l4:]
	if w.v6 {
		putBE16(p[ip6Len:], int(w.ipLen))
	} else {
		putBE16(p[ip4Len:], int(w.ipLen))
		putBE16(p[ip4Sum:], int(w.ipSum))
	}
	if w.UDP {
		putBE16(t[udpLen:], int(w.l4Len))
		putBE16(t[udpSum:], int(w.l4Sum))
	} else {
		t[tcpFlags] &^= w.flags
		putBE16(t[tcpSum:], int(w.l4Sum))
	}
}

// Single returns packet i with an empty virtio header before it, as it is written alone. The slice is borrowed.
func Single(b *packet.Batch, i int) []byte {
	p := b.Packets[i]
	clear(b.Slab[p.Off-HeaderSize : p.Off])
	return b.Slab[p.Off-HeaderSize : p.Off+p.Len]
}

// Probe returns a merged write, virtio header included, of two short packets that no host accepts: from and to 127.0.0.1,
// which a packet from an interface must not be (RFC 1122 §3.2.1.3). A kernel that refuses merged writes, or those whose
// last packet is short, refuses it.
func Probe(udp bool) []byte {
	const l4, payload, size = ip4Size, 3, 2
	hdr, proto, sumAt, kind := l4+tcpSize, protoTCP, tcpSum, uint8(GSOTCPv4)
	if udp {
		hdr, proto, sumAt, kind = l4+udpSize, protoUDP, udpSum, GSOUDP
	}
	b := make([]byte, HeaderSize+hdr+payload)
	p := b[HeaderSize:]
	p[0], p[8], p[ip4Proto] = 0x45, 1, byte(proto)
	putBE16(p[ip4Len:], len(p))
	p[ip4Frag] = ip4DF >> 8
	copy(p[ip4Addrs:], []byte{127, 0, 0, 1, 127, 0, 0, 1})
	ip4Checksum(p[:l4])
	t := p[l4:]
	if udp {
		putBE16(t[udpLen:], len(t))
	} else {
		t[tcpOff], t[tcpFlags] = tcpSize/4<<4, ack
	}
	putBE16(t[sumAt:], int(Fold(pseudo(p, false, proto, len(t)))))
	Header{NeedsCsum, kind, uint16(hdr), size, l4, uint16(sumAt)}.Put(b)
	return b
}
