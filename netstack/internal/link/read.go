package link

import (
	"fmt"
	"slices"

	"throughline/internal/wire"
	"throughline/packet"
	"throughline/tun/offload"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// maxSuper is the size of the largest super-packet with its headers, in bytes.
const maxSuper = 1 << 16

// Read implements [tun.Queue]: it returns packets that gVisor sends.
func (l *Link) Read(b *packet.Batch) (more bool, err error) {
	if _, room := b.Next(); room < maxSuper {
		return false, fmt.Errorf("netstack: read: the batch has room for %d bytes, and a packet may have %d", room, maxSuper)
	}
	if len(l.remainder) > 0 {
		return l.readRemainder(b)
	}
	l.mu.Lock()
	for l.queue.n == 0 && !l.closed {
		l.idle = true
		l.filled.Wait()
	}
	if l.closed {
		l.mu.Unlock()
		return false, errClosed
	}
	_, room := b.Next()
	room += packet.Headroom + packet.Tailroom
	count := cap(b.Packets) - len(b.Packets)
	l.taken = l.taken[:0]
	for l.queue.n > 0 {
		n, bytes, _ := l.needs(l.queue.peek())
		if n > count || bytes > room {
			if len(l.taken) > 0 {
				break
			}
			count, room = 0, 0 // a super-packet that even an empty batch has no room for is taken alone
		}
		p := l.queue.pop()
		l.taken = append(l.taken, p)
		l.bytes -= p.Size()
		count, room = count-n, room-bytes
	}
	more = l.queue.n > 0
	l.wakeSender()
	l.mu.Unlock()
	for i, p := range l.taken {
		l.lay(b, p)
		p.DecRef()
		l.taken[i] = nil
	}
	return more || len(l.remainder) > 0, nil
}

// needs returns how many packets p is split into, and how many bytes of the slab they take at most. mtu is not 0 if they are
// fragments.
func (l *Link) needs(p *stack.PacketBuffer) (n, bytes, mtu int) {
	n, bytes = 1, p.Size()
	if mss := int(p.GSOOptions.MSS); p.GSOOptions.Type != stack.GSONone && p.Data().Size() > mss && mss > 0 {
		n = (p.Data().Size() + mss - 1) / mss
		bytes += (n - 1) * p.HeaderSize()
	} else if p.GSOOptions.Type == stack.GSONone {
		if n, mtu = l.paths.fragments(p.NetworkHeader().Slice(), bytes); n > 1 {
			bytes += n * (header6 + fragment6)
		}
	}
	return n, bytes + n*(packet.Headroom+packet.Tailroom+wire.PaddingMultiple), mtu
}

// lay puts p, or its segments if it is a super-packet, into b.
func (l *Link) lay(b *packet.Batch, p *stack.PacketBuffer) {
	off, _ := b.Next()
	size, head := p.Size(), p.HeaderSize()
	views, skip := p.AsViewList()
	from := source{v: views.Front(), off: skip}
	gso := p.GSOOptions
	n, bytes, mtu := l.needs(p)
	_, all := b.Next()
	full := n > cap(b.Packets)-len(b.Packets) || bytes > all+packet.Headroom+packet.Tailroom
	if mtu > 0 && !full {
		l.whole = slices.Grow(l.whole[:0], size)[:size]
		from.read(l.whole)
		layFragments(b, l.whole, mtu)
		return
	}
	if n == 1 || mtu > 0 { // a packet that was found to be too big just now, when there is no room for fragments, goes whole
		from.read(b.Slab[off : off+size])
		if gso.Type != stack.GSONone && gso.NeedsCsum {
			l4 := head - len(p.TransportHeader().Slice())
			h := offload.Header{Flags: offload.NeedsCsum, CsumStart: uint16(l4), CsumOffset: gso.CsumOffset}
			if !offload.Complete(h, b.Slab[off:off+size]) {
				panic("link: BUG: a segment of gVisor's without a place for its checksum")
			}
		}
		b.Place(size)
		return
	}
	if full {
		l.remainder = l.remainder[:0]
		if cap(l.remainder) == 0 {
			l.remainder = make([]byte, 0, maxSuper)
		}
		l.remainder = l.remainder[:size]
		from.read(l.remainder)
		l.remainderHeader = superHeader(gso)
		l.layRemainder(b)
		return
	}
	// The headers are copied to the first segment's place, and then each segment's payload to its own.
	from.read(b.Slab[off : off+head])
	if !l.super.Parse(superHeader(gso), b.Slab[off:off+head], size) {
		panic("link: BUG: a super-packet of gVisor's can't be split")
	}
	first := len(b.Packets)
	l.super.Lay(b)
	for i := first; i < len(b.Packets); i++ {
		from.read(b.Bytes(i)[head:])
	}
	l.super.Finish(b)
}

// superHeader returns the virtio header of a super-packet of gVisor's.
func superHeader(gso stack.GSO) offload.Header {
	h := offload.Header{Flags: offload.NeedsCsum, GSOType: offload.GSOTCPv4, GSOSize: gso.MSS}
	if gso.Type == stack.GSOTCPv6 {
		h.GSOType = offload.GSOTCPv6
	}
	return h
}

// readRemainder puts what is left of a super-packet into b, which happens when a tiny MSS makes more segments than a batch
// has packets.
func (l *Link) readRemainder(b *packet.Batch) (more bool, err error) {
	l.layRemainder(b)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false, errClosed
	}
	return len(l.remainder) > 0 || l.queue.n > 0, nil
}

// layRemainder puts as much of the remainder into b as there is room for.
func (l *Link) layRemainder(b *packet.Batch) {
	off, _ := b.Next()
	p := b.Slab[off : off+copy(b.Slab[off:], l.remainder)]
	if !l.super.Parse(l.remainderHeader, p, len(p)) {
		panic("link: BUG: a super-packet of gVisor's can't be split")
	}
	l.super.Lay(b)
	l.remainder = l.remainder[:l.super.Remainder(l.remainder[:cap(l.remainder)], p)]
	l.super.Spread(b)
	l.super.Finish(b)
}

// A source is a position in a packet whose bytes are in several buffers.
type source struct {
	v   *buffer.View
	off int
}

// read fills dst with the next bytes. There must be as many.
func (s *source) read(dst []byte) {
	for {
		n := copy(dst, s.v.AsSlice()[s.off:])
		dst, s.off = dst[n:], s.off+n
		if len(dst) == 0 {
			return
		}
		s.v, s.off = s.v.Next(), 0
	}
}
