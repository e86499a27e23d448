package udp

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Control messages. A message is a header (length, level, type; the length counts the header), data, and padding to
// the machine's alignment. recvmsg(2), cmsg(3).
const (
	cmsgHeader = unix.SizeofCmsghdr
	cmsgAlign  = cmsgHeader - 8 // of the length, which is a machine word: 8 or 4

	// receiveControl holds what a socket may bring with a datagram: PKTINFO and UDP_GRO (64 bytes), with room to spare.
	receiveControl = 128

	// sendControl holds PKTINFO and UDP_SEGMENT: exactly, for IPv6 on a 64-bit machine.
	sendControl = 64
)

// A control is what is understood of the control messages of a received datagram.
type control struct {
	src   netip.Addr // the local address it came to
	ifi   uint32     // the interface it came in by
	size  int        // of each coalesced datagram but the last; 0 when there is but one
	valid bool       // the messages are well-formed
}

func cmsgLen(b []byte) uint64 {
	if cmsgAlign == 8 {
		return binary.NativeEndian.Uint64(b)
	}
	return uint64(binary.NativeEndian.Uint32(b))
}

func putCmsgLen(b []byte, n int) {
	if cmsgAlign == 8 {
		binary.NativeEndian.PutUint64(b, uint64(n))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(n))
	}
}

// parseControl reads control messages. What it doesn't know it leaves out.
func parseControl(b []byte) (c control) {
	for len(b) >= cmsgHeader {
		n := cmsgLen(b)
		if n < cmsgHeader || n > uint64(len(b)) {
			return c
		}
		level := int(binary.NativeEndian.Uint32(b[cmsgAlign:]))
		kind := int(binary.NativeEndian.Uint32(b[cmsgAlign+4:]))
		data := b[cmsgHeader:n]
		switch {
		case level == unix.SOL_UDP && kind == unix.UDP_GRO && len(data) >= 4:
			c.size = int(int32(binary.NativeEndian.Uint32(data)))
		case level == unix.SOL_IP && kind == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			c.ifi = binary.NativeEndian.Uint32(data)
			c.src = netip.AddrFrom4([4]byte(data[4:8])) // spec_dst: ours, even when it came to a broadcast address
		case level == unix.SOL_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			c.ifi = binary.NativeEndian.Uint32(data[16:])
			if a := netip.AddrFrom16([16]byte(data)); !a.IsMulticast() {
				c.src = a
			}
		}
		next := (int(n) + cmsgAlign - 1) &^ (cmsgAlign - 1)
		b = b[min(next, len(b)):]
	}
	c.valid = true
	return c
}

// appendCmsg appends a control message with room for size bytes of data, all zero, and returns the data.
func appendCmsg(b []byte, level, kind, size int) (all, data []byte) {
	first := len(b)
	space := (cmsgHeader + size + cmsgAlign - 1) &^ (cmsgAlign - 1)
	b = b[:first+space]
	clear(b[first:]) // the padding too: nothing of an earlier send goes to the kernel
	putCmsgLen(b[first:], cmsgHeader+size)
	binary.NativeEndian.PutUint32(b[first+cmsgAlign:], uint32(level))
	binary.NativeEndian.PutUint32(b[first+cmsgAlign+4:], uint32(kind))
	return b, b[first+cmsgHeader : first+cmsgHeader+size]
}

// appendSource appends the control message that asks for a source. An interface is named only for a link-local source,
// which is nothing without; else it would take the choice of the way from the routes, which may have changed.
func appendSource(b []byte, src netip.Addr, ifi uint32) []byte {
	if src.Is4() {
		b, data := appendCmsg(b, unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		a := src.As4()
		copy(data[4:8], a[:]) // spec_dst
		return b
	}
	b, data := appendCmsg(b, unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	a := src.As16()
	copy(data, a[:])
	if isLinkLocal(src) {
		binary.NativeEndian.PutUint32(data[16:], ifi)
	}
	return b
}

// appendSegment appends the control message that asks for segmentation. The kernel wants 16 bits here, though a whole
// int where it is a socket's option.
func appendSegment(b []byte, size int) []byte {
	b, data := appendCmsg(b, unix.SOL_UDP, unix.UDP_SEGMENT, 2)
	binary.NativeEndian.PutUint16(data, uint16(size))
	return b
}
