package udp

import (
	"errors"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"throughline/packet"
	"throughline/udp/internal/cmsg"
)

const (
	// maxReceive is the most that one message can bring: a super-packet, or the largest datagram there is. With less
	// room than that, something could be truncated.
	maxReceive = 64 << 10

	// maxCoalesced is how many datagrams a super-packet can have: the limit of UDP_SEGMENT since 6.9, when it comes over
	// loopback or a veth as it was sent.
	maxCoalesced = 128

	// receiveTries bounds the errors and the messages without bytes that one drain ignores: it doesn't see that the
	// socket is closed.
	receiveTries = 256
)

// A receiver receives from one socket. It is part of its socket, on the heap, as the kernel writes to its fields.
//
// Super-packets and single datagrams are received by recvmsg straight into the slab, each right behind the last. When
// small datagrams come one by one and there are more, a burst of them is received by recvmmsg, and copied: the copy of a
// small datagram costs less than a system call. (Measured on loopback in a virtual machine, for 128 and 1452 bytes: 0.9
// and 1.0 µs a datagram against 1.35 and 1.4.) recvmmsg alone wouldn't do, as it needs to know beforehand where each
// message is to lie, with room for the largest.
type receiver struct {
	s    *socket
	read func(fd uintptr) bool // drain, made once: a method value allocates

	hdr    unix.Msghdr
	direct slot
	burst  burst
	small  int // messages in a row that were one small datagram

	// During a call of Receive.
	b     *packet.Batch
	first int // packets in b when it began
	more  bool
	errno syscall.Errno
}

// A slot is where the kernel puts what it returns of a message: its data by iov, sender and control messages.
type slot struct {
	iov     unix.Iovec
	name    sockaddr
	control [cmsg.ReceiveSize]byte
}

// point makes h receive into the slot.
func (sl *slot) point(h *unix.Msghdr) {
	h.Name = &sl.name[0]
	h.Iov = &sl.iov
	h.SetIovlen(1)
	h.Control = &sl.control[0]
	ready(h)
}

// ready resets the fields of h that the kernel writes.
func ready(h *unix.Msghdr) {
	h.Namelen = uint32(len(sockaddr{}))
	h.SetControllen(cmsg.ReceiveSize)
	h.Flags = 0
}

func (r *receiver) init(s *socket) {
	r.s = s
	r.read = r.drain
}

// Receive implements [Receiver].
func (r *receiver) Receive(b *packet.Batch) (more bool, err error) {
	r.b, r.first, r.more, r.errno = b, len(b.Packets), false, 0
	for err == nil && r.errno == 0 && len(b.Packets) == r.first {
		err = r.s.rc.Read(r.read)
	}
	r.b, r.direct.iov.Base = nil, nil // borrowed
	switch {
	case len(b.Packets) > r.first:
		return r.more, nil
	case errors.Is(err, net.ErrClosed):
		return false, net.ErrClosed
	case err != nil:
		return false, err
	}
	return false, r.errno
}

// got reports whether this call of Receive has appended packets.
func (r *receiver) got() bool { return len(r.b.Packets) > r.first }

// drain receives what is there. It returns false when nothing was, to be called again when something is.
func (r *receiver) drain(fd uintptr) bool {
	b := r.b
	if !r.unpack() {
		return true
	}
	room := 1
	if r.s.gro {
		room = maxCoalesced
	}
	for range receiveTries {
		_, free := b.Free()
		if r.got() && (len(free) < maxReceive || cap(b.Packets)-len(b.Packets) < room) {
			r.more = true
			return true
		}
		var errno syscall.Errno
		if r.got() && r.small >= burstAfter {
			if errno = r.receiveBurst(fd); errno == 0 && !r.unpack() {
				return true
			}
		} else {
			errno = r.receiveOne(fd, free)
		}
		switch {
		case errno == 0:
		case errno == unix.EAGAIN:
			return r.got()
		case passing(errno): // it is about an earlier send, not about the queue
		case r.got():
			return true
		default:
			r.errno = errno
			return true
		}
	}
	r.more = r.got()
	return true
}

// receiveOne receives a message into free, the free part of the slab.
func (r *receiver) receiveOne(fd uintptr, free []byte) syscall.Errno {
	free = free[:min(len(free), maxReceive)]
	r.direct.point(&r.hdr)
	r.direct.iov = iovec(free)
	n, errno := r.s.sys.recvmsg(fd, &r.hdr)
	if errno != 0 {
		return errno
	}
	if m, ok := r.parse(&r.hdr, &r.direct, n); ok {
		r.record(&m)
	}
	return 0
}

// A message is what recvmsg returns once: a datagram, or a super-packet of them.
type message struct {
	n, size int // bytes; those of each datagram but the last
	from    packet.Endpoint
}

// parse returns the message of n bytes that the kernel put into h and sl; false if it is truncated, has no sender or no
// bytes, or its control messages are malformed.
func (r *receiver) parse(h *unix.Msghdr, sl *slot, n int) (m message, ok bool) {
	if n == 0 || h.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return m, false
	}
	c := cmsg.Parse(sl.control[:min(uint64(h.Controllen), cmsg.ReceiveSize)])
	from := sl.name.get(h.Namelen, r.s.zones)
	if !c.Valid || !from.IsValid() {
		return m, false
	}
	if c.Size <= 0 || c.Size > n {
		c.Size = n
	}
	if c.Size < n || n > smallDatagram {
		r.small = 0
	} else {
		r.small = min(r.small+1, burstAfter)
	}
	return message{n: n, size: c.Size, from: packet.Endpoint{Addr: from, Src: c.Src, SrcIf: c.SrcIf}}, true
}

// record records m, whose data lie at the beginning of the free part of the slab, and joins it to the last run when it
// is of the same endpoint.
func (r *receiver) record(m *message) {
	b := r.b
	b.Received(m.n, m.size, m.from)
	last := len(b.Runs) - 1
	if last < 1 || b.Runs[last-1].First < r.first || b.Runs[last-1].Endpoint != b.Runs[last].Endpoint {
		return
	}
	b.Runs[last-1].N += b.Runs[last].N
	b.Runs[last].Endpoint.Addr = netip.AddrPort{} // holds a pointer
	b.Runs = b.Runs[:last]
}

// passing reports whether errno only interrupts, or reports an ICMP error that answers something sent earlier.
func passing(errno syscall.Errno) bool {
	switch errno {
	case unix.EINTR, unix.ECONNREFUSED, unix.ECONNRESET, unix.EHOSTUNREACH, unix.EHOSTDOWN, unix.ENETUNREACH,
		unix.ENETDOWN, unix.ENONET, unix.ENOPROTOOPT, unix.EPROTO, unix.EMSGSIZE, unix.EACCES, unix.EPERM:
		return true
	}
	return false
}
