package udp

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"throughline/packet"
)

const (
	// maxReceive is the most that one recvmsg can bring: a train of datagrams, or one as large as there is. With less
	// room than that, something could be truncated.
	maxReceive = 64 << 10

	// maxCoalesced is how many datagrams a train can have: the limit of UDP_SEGMENT since 6.9, when it comes over
	// loopback or a veth as it was sent.
	maxCoalesced = 128

	// receiveTries bounds what is passed over, refused or without bytes, before a receiver comes up for air: it would
	// not see that it is closed.
	receiveTries = 256
)

// A receiver receives from one socket. It lies on the heap, as part of its socket: the kernel writes to its fields.
//
// It receives by one recvmsg for each datagram or train, into the slab, each right behind the last. recvmmsg would save
// system calls, but wants to know beforehand where each lies, with room for the largest: with GRO the slab holds two
// such, and without it the datagrams would have to be moved together afterwards.
type receiver struct {
	s    *socket
	read func(fd uintptr) bool // drain, made once: a method value allocates

	hdr     unix.Msghdr
	iov     unix.Iovec
	name    sockaddr
	control [receiveControl]byte

	// During a call of Receive.
	b     *packet.Batch
	first int // packets in b when it began
	more  bool
	errno syscall.Errno
}

func (r *receiver) init(s *socket) {
	r.s = s
	r.read = r.drain
	r.hdr.Name = &r.name[0]
	r.hdr.Iov = &r.iov
	r.hdr.SetIovlen(1)
	r.hdr.Control = &r.control[0]
}

// Receive implements [Receiver].
func (r *receiver) Receive(b *packet.Batch) (more bool, err error) {
	r.b, r.first, r.more, r.errno = b, len(b.Packets), false, 0
	for err == nil && r.errno == 0 && len(b.Packets) == r.first {
		err = r.s.rc.Read(r.read)
	}
	r.b, r.iov.Base = nil, nil // borrowed
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

// drain takes what is there. It returns false when nothing was, to be called again when something is.
func (r *receiver) drain(fd uintptr) bool {
	b := r.b
	room := 1
	if r.s.gro {
		room = maxCoalesced
	}
	for range receiveTries {
		off, free := b.Free()
		got := len(b.Packets) > r.first
		if got && (len(free) < maxReceive || cap(b.Packets)-len(b.Packets) < room) {
			r.more = true
			return true
		}
		n, errno := r.recvmsg(fd, free)
		switch {
		case errno == 0:
			r.take(off, n)
		case errno == unix.EAGAIN:
			return got
		case passing(errno): // it tells of an earlier send; the queue is another matter
		case got:
			return true
		default:
			r.errno = errno
			return true
		}
	}
	r.more = len(b.Packets) > r.first
	return true
}

func (r *receiver) recvmsg(fd uintptr, free []byte) (int, syscall.Errno) {
	free = free[:min(len(free), maxReceive)]
	r.iov.Base = unsafe.SliceData(free)
	r.iov.SetLen(len(free))
	r.hdr.Namelen = uint32(len(r.name))
	r.hdr.SetControllen(len(r.control))
	return r.s.sys.recvmsg(fd, &r.hdr)
}

// take records the n bytes received at off. A datagram that is truncated, that has no sender, or whose control messages
// are not to be trusted is left where it lies, to be overwritten; so is one without bytes.
func (r *receiver) take(off, n int) {
	if n == 0 || r.hdr.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return
	}
	c := parseControl(r.control[:min(uint64(r.hdr.Controllen), receiveControl)])
	from := r.name.get(r.hdr.Namelen, r.s.zones)
	if !c.valid || !from.IsValid() {
		return
	}
	b := r.b
	b.Received(n, c.size, packet.Endpoint{Addr: from, Src: c.src, SrcIf: c.ifi})
	joinRuns(b, r.first)
}

// joinRuns makes the last run part of the one before when they are of one endpoint. Runs are of this call when they
// begin at packet first or later.
func joinRuns(b *packet.Batch, first int) {
	last := len(b.Runs) - 1
	if last < 1 || b.Runs[last-1].First < first || b.Runs[last-1].Endpoint != b.Runs[last].Endpoint {
		return
	}
	b.Runs[last-1].N += b.Runs[last].N
	b.Runs[last].Endpoint.Addr = netip.AddrPort{} // holds a pointer
	b.Runs = b.Runs[:last]
}

// passing reports whether errno only interrupts, or tells of an ICMP error that answers something sent earlier.
func passing(errno syscall.Errno) bool {
	switch errno {
	case unix.EINTR, unix.ECONNREFUSED, unix.ECONNRESET, unix.EHOSTUNREACH, unix.EHOSTDOWN, unix.ENETUNREACH,
		unix.ENETDOWN, unix.ENONET, unix.ENOPROTOOPT, unix.EPROTO, unix.EMSGSIZE, unix.EACCES, unix.EPERM:
		return true
	}
	return false
}
