// Package offload turns the kernel's super-packets into packets and packets into super-packets.
//
// A TUN with IFF_VNET_HDR puts a [Header] before each packet. Read: the kernel may hand over one packet of up to 64 KiB
// that stands for many (TCP or UDP segmentation offload), or one whose checksum isn't filled in; [Super] and [Complete]
// make of them the packets that go on the wire, in the batch's slab. Written: consecutive packets of one flow in a batch
// make one write ([Merger]), payload never copied.
//
// It does no I/O, allocates nothing on the packet path, and trusts nothing it is given: neither the kernel's header nor
// the packets. Headers it doesn't know are passed through (merge) or refused (split). Nothing here is safe for concurrent
// use; a Super and a Merger belong to one goroutine. A batch is borrowed for the length of a call.
//
// Limits: a packet or a super-packet has at most 64 KiB, a write at most [MaxIovecs] packets, of UDP at most 64.
package offload

import (
	"encoding/binary"

	"throughline/packet"
)

// HeaderSize is the length of the virtio-net header before each packet. It fits into the headroom of a packet, so that
// header and packet are one piece of memory.
const HeaderSize = 10

const _ = uint(packet.Headroom - HeaderSize)

// Bits of Header.Flags and values of Header.GSOType. Linux, include/uapi/linux/virtio_net.h.
const (
	NeedsCsum = 1 // the checksum field holds the sum of the pseudo-header only; the receiver completes it
	DataValid = 2 // the checksum was verified; a TUN ignores it when written to

	GSONone  = 0
	GSOTCPv4 = 1
	GSOTCPv6 = 4
	GSOUDP   = 5    // UDP_L4: each segment a datagram of its own
	GSOECN   = 0x80 // beside GSOTCPv4 or GSOTCPv6: CWR is set
)

// A Header is the virtio-net header of one packet.
type Header struct {
	Flags      uint8  // bits such as NeedsCsum
	GSOType    uint8  // a value such as GSOTCPv4
	HdrLen     uint16 // a hint; wrong for packets the host forwards
	GSOSize    uint16 // payload bytes of each segment but the last
	CsumStart  uint16 // where summing begins
	CsumOffset uint16 // where the sum goes, from CsumStart
}

// ReadHeader reads a header from the first HeaderSize bytes of b. Its fields have the host's byte order.
func ReadHeader(b []byte) Header {
	_ = b[HeaderSize-1]
	return Header{
		Flags:      b[0],
		GSOType:    b[1],
		HdrLen:     binary.NativeEndian.Uint16(b[2:]),
		GSOSize:    binary.NativeEndian.Uint16(b[4:]),
		CsumStart:  binary.NativeEndian.Uint16(b[6:]),
		CsumOffset: binary.NativeEndian.Uint16(b[8:]),
	}
}

// Put writes h to the first HeaderSize bytes of b.
func (h Header) Put(b []byte) {
	_ = b[HeaderSize-1]
	b[0], b[1] = h.Flags, h.GSOType
	binary.NativeEndian.PutUint16(b[2:], h.HdrLen)
	binary.NativeEndian.PutUint16(b[4:], h.GSOSize)
	binary.NativeEndian.PutUint16(b[6:], h.CsumStart)
	binary.NativeEndian.PutUint16(b[8:], h.CsumOffset)
}

// Offsets and values in IPv4, IPv6, TCP and UDP headers. RFC 791, 8200, 9293, 768.
const (
	ip4Len, ip4ID, ip4Frag, ip4Proto, ip4Sum, ip4Addrs, ip4Size = 2, 4, 6, 9, 10, 12, 20
	ip6Len, ip6Next, ip6Addrs, ip6Size                          = 4, 6, 8, 40

	ip4MoreOrOffset = 0x3fff // of the field at ip4Frag: MF and the fragment's offset
	ip4DF           = 0x4000

	protoTCP, protoUDP = 6, 17

	tcpSeq, tcpAck, tcpOff, tcpFlags, tcpWindow, tcpSum, tcpUrgent, tcpSize = 4, 8, 12, 13, 14, 16, 18, 20
	udpLen, udpSum, udpSize                                                 = 4, 6, 8

	fin, psh, ack, cwr = 1, 8, 16, 128
)

// maxLen is the largest packet in which a 16-bit length field can be right for both IP versions.
const maxLen = 65535

func be16(b []byte) int          { return int(binary.BigEndian.Uint16(b)) }
func putBE16(b []byte, v int)    { binary.BigEndian.PutUint16(b, uint16(v)) }
func be32(b []byte) uint32       { return binary.BigEndian.Uint32(b) }
func native64(b []byte) uint64   { return binary.NativeEndian.Uint64(b) }
func native32(b []byte) uint32   { return binary.NativeEndian.Uint32(b) }
func native16(b []byte) uint16   { return binary.NativeEndian.Uint16(b) }
func addBE16(b []byte, d int)    { putBE16(b, be16(b)+d) }
func addBE32(b []byte, d uint32) { binary.BigEndian.PutUint32(b, be32(b)+d) }
