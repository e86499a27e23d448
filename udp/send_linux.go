package udp

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"throughline/packet"
	"throughline/udp/internal/cmsg"
)

// In this file and refused_linux.go, a run of the batch is cut into sends, each a datagram or a super-packet of them,
// which the kernel segments (UDP_SEGMENT). A plan is the sends that are handed to one sendmmsg.

const (
	maxSegments = 64  // in a super-packet: the limit of kernels before 6.9
	maxSends    = 128 // in a plan
	maxIovecs   = 512 // in a plan
)

// A send is what is known of msgs[i] beside what the kernel reads.
type send struct {
	run        int // in b.Runs
	first, end int // b.Packets[first:end], of which the live ones are sent
	segment    int // the segments' size; 0: a datagram
	src        bool
}

// A sender is the memory of one call of Send. It comes from a pool, so that calls don't wait for each other, and is on
// the heap, as the kernel reads it.
type sender struct {
	msgs     [maxSends]unix.Mmsghdr
	sends    [maxSends]send
	names    [maxSends]sockaddr
	controls [maxSends][cmsg.SendSize]byte
	iovs     [maxIovecs]unix.Iovec
	n, niov  int // of the plan

	s *socket
	b *packet.Batch

	// The packet the next plan begins with.
	run, pkt int

	refused refused // what is to be done differently for a run

	// Arguments and results of sendmmsg, which the two closures call: they are made once, as a closure made per call is
	// an allocation.
	control func(fd uintptr)
	wait    func(fd uintptr) bool
	from    int
	sent    int
	errno   syscall.Errno
}

var senders = sync.Pool{New: func() any {
	x := new(sender)
	for i := range x.msgs {
		h := &x.msgs[i].Hdr
		h.Name = &x.names[i][0]
		h.Control = &x.controls[i][0]
	}
	x.control = func(fd uintptr) { x.sendmmsg(fd) }
	x.wait = x.sendmmsg
	return x
}}

// send sends the runs of b that are of the socket's family.
func (s *socket) send(b *packet.Batch) error {
	x := senders.Get().(*sender)
	x.s, x.b, x.run, x.pkt, x.refused = s, b, 0, 0, noneRefused
	err := x.sendAll()
	x.s, x.b = nil, nil
	senders.Put(x)
	return err
}

// sendAll makes plans and transmits them, until every live packet is sent or dropped. It returns the first error of a drop.
func (x *sender) sendAll() (first error) {
	for x.plan(); x.n > 0; x.plan() {
		for i := 0; i < x.n; {
			sent, err := x.transmit(i)
			if sent > 0 {
				x.transmitted(i, i+sent)
				i += sent
				continue // if sends[i] is refused, the next call returns why
			}
			what := giveUp
			if errno, ok := err.(syscall.Errno); ok {
				what = x.decide(i, errno)
			}
			if what == retry {
				continue
			}
			if what == replan {
				x.run, x.pkt = x.sends[i].run, x.sends[i].first
				break
			}
			first = firstError(first, x.drop(i, err))
			i++
		}
		clear(x.iovs[:x.niov]) // borrowed
	}
	return first
}

// transmit hands sends[i:n] to the kernel, and returns how many of them it took. When that is none, err is why.
func (x *sender) transmit(i int) (sent int, err error) {
	x.from = i
	// Control, unlike Write, takes no lock: several senders are in the kernel at once.
	if err = x.s.rc.Control(x.control); err == nil && x.errno == unix.EAGAIN {
		err = x.s.rc.Write(x.wait)
	}
	switch {
	case errors.Is(err, net.ErrClosed):
		return 0, net.ErrClosed
	case err != nil:
		return 0, err
	case x.errno != 0:
		return 0, x.errno
	}
	return x.sent, nil
}

// sendmmsg calls sendmmsg(2) for sends[from:n]. It returns false when the socket's buffer is full.
func (x *sender) sendmmsg(fd uintptr) bool {
	for {
		x.sent, x.errno = x.s.sys.sendmmsg(fd, x.msgs[x.from:x.n])
		if x.errno != unix.EINTR {
			return x.errno != unix.EAGAIN
		}
	}
}

// drop drops the packets of sends[i], which err refused.
func (x *sender) drop(i int, err error) error {
	m := &x.sends[i]
	return dropRun(x.b, &packet.Run{First: m.first, N: m.end - m.first, Endpoint: x.b.Runs[m.run].Endpoint}, err)
}

// plan makes a plan of as many sends as there is room for, beginning with the packet at x.pkt, which it advances.
func (x *sender) plan() {
	x.n, x.niov = 0, 0
	for ; x.run < len(x.b.Runs); x.run, x.pkt = x.run+1, 0 {
		r := &x.b.Runs[x.run]
		end := r.First + r.N
		x.pkt = max(x.pkt, r.First)
		if x.pkt >= end || !isFamily(r.Endpoint.Addr.Addr(), x.s.v6) {
			continue
		}
		limit := x.segmentLimit(r.Endpoint.Addr)
		src := x.source(&r.Endpoint)
		plain := 0 // packets before this one are sent as datagrams
		for x.pkt < end {
			if x.b.Packets[x.pkt].Drop != 0 {
				x.pkt++
				continue
			}
			if x.n == maxSends || x.niov > maxIovecs-maxSegments {
				return
			}
			if x.pkt >= plain && x.s.avoidEqual && x.b.Packets[x.pkt].Len < limit {
				plain = x.equals(x.pkt, end)
			}
			if x.pkt < plain {
				x.addSend(x.run, x.pkt, x.pkt+1, limit, src)
			} else {
				x.addSend(x.run, x.pkt, end, limit, src)
			}
		}
	}
}

// segmentLimit returns the size from which on datagrams to a may not be made super-packets.
func (x *sender) segmentLimit(a netip.AddrPort) int {
	if packet.OffloadState(x.s.gso.Load()) != packet.OffloadOn {
		return 0
	}
	limit := x.s.refusing.limit(a)
	if x.refused.run == x.run {
		limit = min(limit, x.refused.limit)
	}
	return limit
}

// source returns the source address to ask for, or the zero Addr.
func (x *sender) source(e *packet.Endpoint) netip.Addr {
	if e.Src.Is4() != e.Addr.Addr().Is4() || e.Src.Is4In6() || x.refused.run == x.run && x.refused.src {
		return netip.Addr{}
	}
	return e.Src
}

// A super is a super-packet that grows datagram by datagram; takes decides where it ends.
type super struct {
	size, segments, total int
	ended, unequal        bool
}

func begin(size int) super { return super{size: size, segments: 1, total: size} }

// takes reports whether a datagram of n bytes may join, and counts it in.
func (t *super) takes(n int) bool {
	if t.ended || n == 0 || n > t.size || t.segments == maxSegments || t.total+n > packet.MaxSuperPacket {
		return false
	}
	t.segments++
	t.total += n
	t.unequal = n < t.size
	t.ended = t.unequal
	return true
}

// equals returns the end of the super-packet that would begin with packet i, if all its segments have one size, else i.
func (x *sender) equals(i, end int) int {
	t := begin(x.b.Packets[i].Len)
	j := i + 1
	for ; j < end; j++ {
		if p := &x.b.Packets[j]; p.Drop == 0 && !t.takes(p.Len) {
			break
		}
	}
	if t.unequal {
		return i
	}
	return j
}

// addSend adds to the plan the send that begins with packet i, which is live, of those before end: a super-packet if
// there is one to be made of datagrams below limit. It advances x.pkt beyond it.
func (x *sender) addSend(run, i, end, limit int, src netip.Addr) {
	m, h := &x.sends[x.n], &x.msgs[x.n].Hdr
	*m = send{run: run, first: i, src: src.IsValid()}
	e := &x.b.Runs[run].Endpoint
	size := x.b.Packets[i].Len
	t := begin(size)
	if size >= limit {
		t.ended = true
	}
	first, behind := x.niov, -1
	for j := i; j < end; j++ {
		p := &x.b.Packets[j]
		if p.Drop != 0 {
			continue
		}
		if j > i && !t.takes(p.Len) {
			break
		}
		data := x.b.Bytes(j) // panics unless it lies in the slab
		if p.Off == behind {
			iov := &x.iovs[x.niov-1]
			iov.SetLen(int(iov.Len) + p.Len)
		} else {
			x.iovs[x.niov].Base = unsafe.SliceData(data)
			x.iovs[x.niov].SetLen(p.Len)
			x.niov++
		}
		behind = p.Off + p.Len
		m.end = j + 1
	}
	x.pkt = m.end

	h.Namelen = x.names[x.n].put(e.Addr, x.s.zones)
	h.Iov = &x.iovs[first]
	h.SetIovlen(x.niov - first)
	c := x.controls[x.n][:0]
	if m.src {
		c = cmsg.AppendSource(c, src, e.SrcIf)
	}
	if t.segments > 1 {
		m.segment = size
		c = cmsg.AppendSegment(c, size)
	}
	h.SetControllen(len(c))
	x.n++
}
