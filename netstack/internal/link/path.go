package link

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"throughline/packet"
)

// How many destinations' path MTUs are kept, and for how long. RFC 8201 §4 recommends 10 minutes.
const (
	maxPaths = 256
	pathLife = 10 * time.Minute
)

// Sizes of IPv6, in bytes. RFC 8200.
const (
	minMTU6      = header.IPv6MinimumMTU
	header6      = header.IPv6MinimumSize
	fragment6    = header.IPv6FragmentHeaderSize
	nextHeader   = 6 // where in a header the type of the next one is
	tooBigHeader = header.ICMPv6PacketTooBigMinimumSize
)

// paths are the path MTUs of destinations over IPv6 that are smaller than the link's. gVisor remembers them for TCP alone:
// other packets, which may not be fragmented on their way, would be lost for good. The table is replaced, not changed, so
// that reading it takes no lock; it is nil, and costs one load, until a packet was too big. One goroutine at a time may call
// learn.
type paths struct {
	table atomic.Pointer[map[[16]byte]path]
}

// A path is the path MTU of one destination.
type path struct {
	mtu     int // in bytes
	expires time.Time
}

// mtu returns the path MTU to a destination, or 0 if it isn't known to be smaller than the link's.
func (p *paths) mtu(to [16]byte, now time.Time) int {
	t := p.table.Load()
	if t == nil {
		return 0
	}
	if e, ok := (*t)[to]; ok && now.Before(e.expires) {
		return e.mtu
	}
	return 0
}

// learn reads an inbound packet, and remembers the MTU that it reports if it is an ICMPv6 message that a packet was too big.
// One that reports less than any link has is ignored, and none makes a path MTU larger. RFC 8201 §4.
func (p *paths) learn(b []byte, now time.Time) {
	if len(b) < header6+tooBigHeader+header6 || b[0]>>4 != 6 || b[nextHeader] != byte(header.ICMPv6ProtocolNumber) ||
		b[header6] != byte(header.ICMPv6PacketTooBig) {
		return
	}
	msg, quoted := header.ICMPv6(b[header6:]), header.IPv6(b[header6+tooBigHeader:])
	outer := header.IPv6(b)
	mtu := binary.BigEndian.Uint32(msg[4:])
	if mtu < minMTU6 || mtu > 1<<16 || quoted[0]>>4 != 6 || quoted.SourceAddress() != outer.DestinationAddress() || !valid(outer, msg) {
		return
	}
	to := quoted.DestinationAddress().As16()
	if old := p.mtu(to, now); old != 0 && old <= int(mtu) {
		return
	}
	next := map[[16]byte]path{}
	if t := p.table.Load(); t != nil {
		maps.Copy(next, *t)
		maps.DeleteFunc(next, func(_ [16]byte, e path) bool { return !now.Before(e.expires) })
	}
	delete(next, to)
	if len(next) == maxPaths { // the oldest gives way
		var oldest [16]byte
		for a, e := range next {
			if o, ok := next[oldest]; !ok || e.expires.Before(o.expires) {
				oldest = a
			}
		}
		delete(next, oldest)
	}
	next[to] = path{int(mtu), now.Add(pathLife)}
	p.table.Store(&next)
}

// valid reports whether the checksum of an ICMPv6 message is right.
func valid(ip header.IPv6, msg header.ICMPv6) bool {
	sum := header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), uint16(len(msg)))
	return checksum.Checksum(msg, sum) == 0xffff
}

// fragments returns how many fragments an outbound packet must be sent in, of which head is the beginning, and the path MTU;
// 1 for almost all. TCP is left to gVisor, which makes its segments smaller.
func (p *paths) fragments(head []byte, size int) (n, mtu int) {
	if size <= minMTU6 || p.table.Load() == nil || len(head) < header6 || head[0]>>4 != 6 ||
		tcpip.TransportProtocolNumber(head[nextHeader]) == header.TCPProtocolNumber {
		return 1, 0
	}
	if mtu = p.mtu([16]byte(head[24:40]), time.Now()); mtu == 0 || size <= mtu {
		return 1, 0
	}
	skip := header6
	if head[nextHeader] == header.IPv6FragmentHeader {
		skip += fragment6
	}
	part := fragmentPayload(mtu)
	return (size - skip + part - 1) / part, mtu
}

// fragmentPayload returns how many bytes a fragment carries that isn't the last one: a multiple of 8.
func fragmentPayload(mtu int) int { return (mtu - header6 - fragment6) &^ 7 }

// layFragments puts a packet into b as fragments, for which there must be room. A packet that is a fragment already, as the
// datagram is larger than the link's MTU, is split into smaller ones of the same datagram. RFC 8200 §4.5.
func layFragments(b *packet.Batch, whole []byte, mtu int) {
	head, data := whole[:header6], whole[header6:]
	first, next, last, id := 0, head[nextHeader], uint16(0), rand.Uint32()
	if next == header.IPv6FragmentHeader {
		f := data[:fragment6]
		offset := binary.BigEndian.Uint16(f[2:])
		first, next, last, id = int(offset&^7), f[0], offset&1, binary.BigEndian.Uint32(f[4:])
		data = data[fragment6:]
	}
	for at, part := 0, fragmentPayload(mtu); at < len(data); at += part {
		n := min(part, len(data)-at)
		off, _ := b.Next()
		d := b.Slab[off : off+header6+fragment6+n]
		copy(d, head)
		binary.BigEndian.PutUint16(d[4:], uint16(fragment6+n))
		d[nextHeader] = header.IPv6FragmentHeader
		offset := uint16(first+at) | 1
		if at+n == len(data) {
			offset = uint16(first+at) | last
		}
		f := d[header6:]
		f[0], f[1] = next, 0
		binary.BigEndian.PutUint16(f[2:], offset)
		binary.BigEndian.PutUint32(f[4:], id)
		copy(f[fragment6:], data[at:at+n])
		b.Place(len(d))
	}
}
