// Package cmsg reads and writes the control messages of Linux's UDP sockets: where a datagram came to, what its source is
// to be, and how large segments are. It allocates nothing, and knows no other messages. Functions are safe for concurrent
// use as far as their arguments are.
//
// A message is a header (length, level, type; the length counts the header), data, and padding to the machine's
// alignment. recvmsg(2), cmsg(3).
//
// Limits: a message to send fits into SendSize bytes, what comes with a datagram into ReceiveSize.
package cmsg

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Sizes in bytes of buffers for control messages.
const (
	// ReceiveSize holds what a socket may bring with a datagram: PKTINFO and UDP_GRO (64 bytes), with room to spare.
	ReceiveSize = 128

	// SendSize holds PKTINFO and UDP_SEGMENT: exactly, for IPv6 on a 64-bit machine.
	SendSize = 64
)

const (
	header = unix.SizeofCmsghdr
	align  = header - 8 // of the length, which is a machine word: 8 or 4
)

// A Control is what is understood of the control messages of a received datagram.
type Control struct {
	Src   netip.Addr // the local address it came to
	SrcIf uint32     // the index of the interface it came in by
	Size  int        // of each coalesced datagram but the last, in bytes; 0 when there is but one
	Valid bool       // the messages are well-formed
}

func length(b []byte) uint64 {
	if align == 8 {
		return binary.NativeEndian.Uint64(b)
	}
	return uint64(binary.NativeEndian.Uint32(b))
}

func putLength(b []byte, n int) {
	if align == 8 {
		binary.NativeEndian.PutUint64(b, uint64(n))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(n))
	}
}

// Parse reads control messages, with padding behind the last or without. What it doesn't know it leaves out.
func Parse(b []byte) (c Control) {
	for len(b) >= header {
		n := length(b)
		if n < header || n > uint64(len(b)) {
			return c
		}
		level := int(binary.NativeEndian.Uint32(b[align:]))
		kind := int(binary.NativeEndian.Uint32(b[align+4:]))
		data := b[header:n]
		switch {
		case level == unix.SOL_UDP && kind == unix.UDP_GRO && len(data) >= 4:
			c.Size = int(int32(binary.NativeEndian.Uint32(data)))
		case level == unix.SOL_IP && kind == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			c.SrcIf = binary.NativeEndian.Uint32(data)
			c.Src = netip.AddrFrom4([4]byte(data[4:8])) // spec_dst: ours, even when it came to a broadcast address
		case level == unix.SOL_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			c.SrcIf = binary.NativeEndian.Uint32(data[16:])
			if a := netip.AddrFrom16([16]byte(data)); !a.IsMulticast() {
				c.Src = a
			}
		}
		next := (int(n) + align - 1) &^ (align - 1)
		b = b[min(next, len(b)):]
	}
	c.Valid = true
	return c
}

// appendMessage appends a control message with room for size bytes of data, all zero, and returns the data.
func appendMessage(b []byte, level, kind, size int) (all, data []byte) {
	first := len(b)
	space := (header + size + align - 1) &^ (align - 1)
	b = b[:first+space]
	clear(b[first:]) // the padding too: nothing of an earlier send goes to the kernel
	putLength(b[first:], header+size)
	binary.NativeEndian.PutUint32(b[first+align:], uint32(level))
	binary.NativeEndian.PutUint32(b[first+align+4:], uint32(kind))
	return b, b[first+header : first+header+size]
}

// AppendSource appends the control message that asks for the source src, on the interface with the index srcIf. The
// interface is named only for a link-local source, which is nothing without; else it would take the choice of the link
// from the routes, which may have changed.
func AppendSource(b []byte, src netip.Addr, srcIf uint32) []byte {
	if src.Is4() {
		b, data := appendMessage(b, unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		a := src.As4()
		copy(data[4:8], a[:]) // spec_dst
		return b
	}
	b, data := appendMessage(b, unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	a := src.As16()
	copy(data, a[:])
	if src.IsLinkLocalUnicast() || src.IsLinkLocalMulticast() {
		binary.NativeEndian.PutUint32(data[16:], srcIf)
	}
	return b
}

// AppendSegment appends the control message that asks for segments of size bytes. The kernel wants 16 bits here, though a
// whole int where it is a socket's option.
func AppendSegment(b []byte, size int) []byte {
	b, data := appendMessage(b, unix.SOL_UDP, unix.UDP_SEGMENT, 2)
	binary.NativeEndian.PutUint16(data, uint16(size))
	return b
}
