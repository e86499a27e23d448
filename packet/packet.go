// Package packet is the batch: a slab of memory and the packets that lie in it, which all of the packet path works on.
//
// A batch is filled by one reader (a TUN queue or a UDP socket), worked on in place, and written by one writer. Nothing
// is copied between slabs. Batches are reused for ever; a batch belongs to one goroutine at a time and has no lock.
//
// Layout, the same in both directions: the IP packet lies at Off with [Headroom] bytes before it and [Tailroom] bytes
// after its padded length, so that sealing turns it into a datagram, and opening a datagram into a packet, without moving
// a byte. [Batch.Append] lays packets so that the datagrams they become touch each other: a train of them is contiguous
// memory, which a socket can send by one system call.
//
// Limits: a batch holds at most [MaxPackets] packets and the bytes of its slab, [SlabSize] unless it was made smaller.
package packet

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"throughline/internal/wire"
)

const (
	// Headroom is the bytes free before each IP packet, for the transport header, or for a virtio header when it is
	// written to a TUN.
	Headroom = wire.TransportHeaderSize

	// Tailroom is the bytes free after each padded IP packet, for the tag.
	Tailroom = wire.TagSize

	// MaxSuperPacket bounds the bytes of a super-packet of datagrams (UDP_SEGMENT), UDP headers excluded. With the
	// headers that the kernel adds it stays below 64 KiB: a longer one the kernel would segment before its driver could.
	MaxSuperPacket = 64<<10 - 64

	// SlabSize is the bytes of a slab: room for the largest super-packet twice.
	SlabSize = 160 << 10

	// MaxPackets bounds the packets in one batch. It also bounds what a batch can reorder: far below the replay window.
	MaxPackets = 512
)

// An Endpoint is a peer's outer address and port, and the local address that it is sent to from. It is a value; equal
// endpoints compare equal with ==.
type Endpoint struct {
	Addr  netip.AddrPort // the peer's; unmapped (never IPv4 in IPv6)
	Src   netip.Addr     // the local address its last datagram arrived at; the zero Addr lets the kernel choose
	SrcIf uint32         // the index of the interface it arrived on; 0 lets the kernel choose
}

// A Packet describes one packet or datagram of a batch. It is in one of three states, by its Drop: live (zero), dropped
// (with the reason), or [Taken] out of the batch. The length is no state: a live packet of no bytes, padding cut off, is
// a keepalive (whitepaper §6.5), which counts as received, and of which there is nothing to write to a TUN.
type Packet struct {
	Off, Len int // its bytes are Slab[Off : Off+Len]

	// Four zero bytes and the counter. It is stored as the nonce because a cipher.AEAD takes a slice: one made for the
	// call would be an allocation.
	nonce [nonceSize]byte

	Drop Drop // why it goes no further in this batch; zero while it is live
}

const nonceSize = 12

// Counter returns the counter that the packet is sealed or opened with, once it is part of a train. Whitepaper §5.4.6.
func (p *Packet) Counter() uint64 { return binary.LittleEndian.Uint64(p.nonce[nonceSize-8:]) }

// SetCounter sets the counter.
func (p *Packet) SetCounter(counter uint64) {
	binary.LittleEndian.PutUint64(p.nonce[nonceSize-8:], counter)
}

// Nonce returns the counter as the cipher takes it: four zero bytes, and the counter in little endian. It is borrowed,
// not to be written, and changes with the counter. Whitepaper §5.4.6.
func (p *Packet) Nonce() []byte { return p.nonce[:] }

// SortByCounter sorts a train into the order in which it was sent, which the network may have changed: what is in order
// can be merged. Mostly it is in order, which one pass finds.
func SortByCounter(train []Packet) {
	byCounter := func(p, q Packet) int { return cmp.Compare(p.Counter(), q.Counter()) }
	if !slices.IsSortedFunc(train, byCounter) {
		slices.SortStableFunc(train, byCounter)
	}
}

// LiveBytes returns how many bytes the live packets have.
func LiveBytes(packets []Packet) (n uint64) {
	for i := range packets {
		if packets[i].Drop == 0 {
			n += uint64(packets[i].Len)
		}
	}
	return n
}

// A Run is datagrams consecutive in a batch, Packets[First:First+N], that come from or go to one endpoint.
type Run struct {
	First, N int
	Endpoint Endpoint
}

// A Batch is a slab and the packets in it.
type Batch struct {
	Slab    []byte   // owned by the batch
	Packets []Packet // in the order they were read
	Runs    []Run    // in order: a socket sets them on receipt, over all packets; the engine over those to send
	MTU     int      // bounds the padding of the packets laid by Append and Place; 0: no bound
	used    int      // bytes of Slab laid out
}

// New returns an empty batch with a slab of [SlabSize] bytes.
func New() *Batch { return NewSize(SlabSize, MaxPackets) }

// NewSize returns an empty batch with a slab of size bytes and room for n packets.
func NewSize(size, n int) *Batch {
	return &Batch{Slab: make([]byte, size), Packets: make([]Packet, 0, n), Runs: make([]Run, 0, min(n, 64))}
}

// Reset empties the batch. What lay in the slab stays there until it is overwritten.
func (b *Batch) Reset() {
	b.Packets = b.Packets[:0]
	clear(b.Runs) // endpoints hold pointers (zones)
	b.Runs = b.Runs[:0]
	b.used = 0
}

// SetTrain makes the batch one train: its counters are those from counter on, and it is one run to the endpoint.
func (b *Batch) SetTrain(counter uint64, to Endpoint) {
	for i := range b.Packets {
		b.Packets[i].SetCounter(counter + uint64(i))
	}
	b.Runs = append(b.Runs, Run{N: len(b.Packets), Endpoint: to})
}

// Bytes returns packet i. The slice is borrowed until the batch is reset.
func (b *Batch) Bytes(i int) []byte {
	p := &b.Packets[i]
	return b.Slab[p.Off : p.Off+p.Len : p.Off+p.Len]
}

// Next returns the offset at which the next IP packet is to be laid, and how many bytes it may have there, padding and
// tag already subtracted; zero or less when the batch is full. A reader reads to Slab[off:off+room] (it may use the
// Headroom before off) and then calls [Batch.Place].
func (b *Batch) Next() (off, room int) {
	if len(b.Packets) == cap(b.Packets) {
		return b.used + Headroom, 0
	}
	return b.used + Headroom, len(b.Slab) - b.used - Headroom - Tailroom - wire.PaddingMultiple
}

// Place records the IP packet of n bytes that was laid at the offset [Batch.Next] gave, and moves on behind its
// padding and tag. n must be at most the room that Next gave.
func (b *Batch) Place(n int) {
	off := b.used + Headroom
	b.Packets = append(b.Packets, Packet{Off: off, Len: n})
	b.used = off + wire.Padded(n, b.MTU) + Tailroom
}

// Append copies the IP packet p behind those that are there. It reports whether there was room.
func (b *Batch) Append(p []byte) bool {
	off, room := b.Next()
	if room <= 0 || len(p) > room {
		return false
	}
	copy(b.Slab[off:], p)
	b.Place(len(p))
	return true
}

// Free returns the part of the slab not laid out yet, and the offset it begins at. A socket receives into it and then
// calls [Batch.Received].
func (b *Batch) Free() (off int, free []byte) { return b.used, b.Slab[b.used:] }

// Received records n bytes that a socket received at the offset [Batch.Free] gave, from one endpoint: one datagram, or
// when 0 < size < n several that were coalesced, each of size bytes but the last. The next datagram will lie behind them,
// at a multiple of 16. It returns how many datagrams it omitted because the batch has no room for more packets.
func (b *Batch) Received(n, size int, from Endpoint) (omitted int) {
	if size <= 0 || size > n {
		size = n
	}
	first, off, end := len(b.Packets), b.used, b.used+n
	for off < end && len(b.Packets) < cap(b.Packets) {
		l := min(size, end-off)
		b.Packets = append(b.Packets, Packet{Off: off, Len: l})
		off += l
	}
	if size > 0 {
		omitted = (end - off + size - 1) / size
	}
	if k := len(b.Packets) - first; k > 0 {
		b.Runs = append(b.Runs, Run{First: first, N: k, Endpoint: from})
	}
	b.used = min((end+15)&^15, len(b.Slab))
	return omitted
}
