package tun

import (
	"fmt"
	"math/bits"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"throughline/packet"
	"throughline/tun/offload"
)

// maxRead is the largest packet that a TUN hands over: the kernel's GSO_LEGACY_MAX_SIZE, which bounds super-packets, and
// more than any MTU. A read with less room would cut a packet silently.
const maxRead = 65536

// maxRefused is how many reads in a row the kernel may refuse. It refuses one for a packet that its header can't describe
// (tun_put_user: EINVAL for a GSO type it doesn't know), and that packet is gone then; so many are no packet's fault.
const maxRefused = 16

// A queue reads from and writes to a TUN's descriptor. Its reading half and its writing half share nothing that changes
// but the states of offloads.
type queue struct {
	rc          syscall.RawConn
	vnet        int              // the length of the virtio header before each packet: offload.HeaderSize, or 0
	gone        func() bool      // reports whether the interface is gone; then the device ends
	state       [4]atomic.Uint32 // packet.OffloadState of each of packet.TUNOffloads, by the number of its bit
	separateUDP atomic.Bool      // UDPGRO is suspended: datagrams aren't merged

	// The reading half.
	read            func(fd uintptr) bool // made once: a closure made per call is an allocation
	rb              *packet.Batch
	rerr            error
	more            bool
	refused         int // reads refused in a row
	super           offload.Super
	scatter         scatter
	remainder       []byte // the segments that the last batch had no room for, as a super-packet; its memory is kept
	remainderHeader offload.Header

	// The writing half.
	write      func(fd uintptr) bool
	wb         *packet.Batch
	werr       error
	merger     offload.Merger
	writes     []offload.Write
	w          int  // index in writes, or without virtio headers in wb.Packets, of the write to be done now
	single     int  // when a merged write was refused: the packet of it to be written now, else -1
	anyRefused bool // one of its packets was refused too
	refusal    unix.Errno
	iov        [offload.MaxIovecs]unix.Iovec

	// The system calls; a test's kernel may refuse what this one takes.
	sysRead   func(fd uintptr, p []byte) (int, unix.Errno)
	sysWrite  func(fd uintptr, p []byte) unix.Errno
	sysWritev func(fd uintptr, iov []unix.Iovec) unix.Errno
}

func (q *queue) init(rc syscall.RawConn, vnet int, gone func() bool) {
	q.rc, q.vnet, q.gone, q.single = rc, vnet, gone, -1
	q.read, q.write = q.drain, q.writeAll
	q.sysRead, q.sysWrite, q.sysWritev = sysRead, sysWrite, sysWritev
}

// Read implements [Queue].
func (q *queue) Read(b *packet.Batch) (more bool, err error) {
	if _, room := b.Next(); room < maxRead {
		return false, fmt.Errorf("tun: read: a batch with room for %d bytes, and a read may bring %d", room, maxRead)
	}
	q.rb, q.rerr, q.more = b, nil, false
	defer func() { q.rb = nil }()
	if len(q.remainder) > 0 {
		off, _ := b.Next()
		q.split(copy(b.Slab[off:], q.remainder), q.remainderHeader)
		if _, room := b.Next(); room < maxRead || len(q.remainder) > 0 {
			return true, nil
		}
	}
	if err := q.rc.Read(q.read); err != nil {
		if q.gone() {
			err = errGone
		}
		return false, err
	}
	return q.more, q.rerr
}

// drain reads until the TUN is empty or the batch has no room for another read. It reports false when there was nothing,
// to be called again when there is.
func (q *queue) drain(fd uintptr) bool {
	b := q.rb
	for {
		off, room := b.Next()
		if room < maxRead || len(q.remainder) > 0 {
			q.more = true
			return true
		}
		scattered := q.vnet > 0 && q.scatter.plan(b)
		var n int
		var err unix.Errno
		if scattered {
			n, err = q.scatter.read(fd)
		} else {
			n, err = q.sysRead(fd, b.Slab[off-q.vnet:off+room])
		}
		switch {
		case err == 0 && scattered:
			q.refused = 0
			q.takeScattered(off, n-q.vnet)
		case err == 0:
			q.refused = 0
			q.take(off, n-q.vnet)
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			q.refused = 0
			return len(b.Packets) > 0
		case q.ends(err):
			return true
		default:
			q.drop(0)
		}
	}
}

// ends counts a refused read, and reports whether Read is to return. Packets read before are returned without the error:
// the next Read meets it again.
func (q *queue) ends(err unix.Errno) bool {
	q.refused++
	switch gone := q.gone(); {
	case !gone && q.refused < maxRefused:
		return false
	case len(q.rb.Packets) > 0:
	case gone:
		q.rerr = errGone
	default:
		q.rerr = os.NewSyscallError("tun: read", err)
	}
	return true
}

// take places the packet of n bytes just read at off, or its segments if it is a super-packet.
func (q *queue) take(off, n int) {
	b := q.rb
	if n <= 0 {
		q.drop(0)
		return
	}
	if q.vnet == 0 {
		b.Place(n)
		return
	}
	h := offload.ReadHeader(b.Slab[off-offload.HeaderSize:])
	if h.GSOType != offload.GSONone {
		q.split(n, h)
		return
	}
	q.scatter.forget()
	if !offload.Complete(h, b.Slab[off:off+n]) {
		q.drop(n)
		return
	}
	b.Place(n)
}

// takeScattered places the n bytes of a scatter read at off. When the guess was right no payload moves.
func (q *queue) takeScattered(off, n int) {
	b, g := q.rb, &q.scatter
	if first := g.head + g.size; n > first {
		h := offload.ReadHeader(b.Slab[off-offload.HeaderSize:])
		if h.GSOType != offload.GSONone && q.super.Parse(h, b.Slab[off:off+first], n) && g.inPlace(&q.super) {
			if q.super.Lay(b) != q.super.Segments() {
				panic("tun: BUG: a scattered super-packet has more segments than were planned")
			}
			q.super.Finish(b)
			return
		}
		g.gather(b, n+offload.HeaderSize)
	}
	q.take(off, n)
}

// split places the segments of the super-packet of n bytes that lies where the next packet is to lie, and keeps those
// that there is no room for until the next Read.
func (q *queue) split(n int, h offload.Header) {
	b := q.rb
	off, _ := b.Next()
	p := b.Slab[off : off+n]
	q.remainder = q.remainder[:0]
	if !q.super.Parse(h, p, n) {
		q.drop(n)
		return
	}
	if q.super.Lay(b) < q.super.Segments() {
		// Segments of a hundred bytes or so, of a peer with a tiny MSS: rare enough to copy.
		if q.remainder == nil {
			q.remainder = make([]byte, 0, maxRead)
		}
		q.remainder, q.remainderHeader = q.remainder[:q.super.Remainder(q.remainder[:cap(q.remainder)], p)], h
	}
	q.super.Spread(b)
	q.super.Finish(b)
	q.scatter.learn(&q.super)
}

// drop places the malformed packet of n bytes, so that it is counted; at most its first 128 bytes, for debugging.
func (q *queue) drop(n int) {
	q.rb.Place(min(n, 128))
	q.rb.Packets[len(q.rb.Packets)-1].Drop = packet.DropMalformed
}

// Write implements [Queue].
func (q *queue) Write(b *packet.Batch) error {
	q.wb, q.werr, q.w = b, nil, 0
	defer func() { q.wb = nil }()
	if q.vnet > 0 {
		q.merger.TCP, q.merger.UDP = q.is(packet.TCPGRO), q.is(packet.UDPGRO) && !q.separateUDP.Load()
		q.writes = q.merger.Merge(b)
	} else {
		q.w = nextLive(b, -1)
	}
	if err := q.rc.Write(q.write); err != nil {
		if q.gone() {
			err = errGone
		}
		return err
	}
	return q.werr
}

// nextLive returns the first packet after i that is to be written, or len(b.Packets).
func nextLive(b *packet.Batch, i int) int {
	for i++; i < len(b.Packets); i++ {
		if p := &b.Packets[i]; p.Drop == 0 && p.Len > 0 {
			break
		}
	}
	return i
}

// writeAll writes q.writes from q.w on. It reports false when the TUN takes nothing now, to be called again when it does.
func (q *queue) writeAll(fd uintptr) bool {
	if q.vnet == 0 {
		return q.writePlain(fd)
	}
	b := q.wb
	for q.w < len(q.writes) {
		w := &q.writes[q.w]
		var err unix.Errno
		switch {
		case q.single >= 0:
			err = q.sysWrite(fd, offload.Single(b, q.single))
		case w.N == 1:
			p := b.Packets[w.First]
			err = q.sysWrite(fd, b.Slab[p.Off-offload.HeaderSize:p.Off+p.Len])
		default:
			err = q.sysWritev(fd, q.iovecs(w))
		}
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return false
		case err == unix.EBADFD:
			q.gone()
			q.werr, q.single = errGone, -1
			return true
		case q.single >= 0:
			if err != 0 {
				b.Packets[q.single].Drop = packet.DropTUN
				q.anyRefused = true
			}
			if q.single = q.merger.Next(q.single); q.single >= 0 {
				continue
			}
			if !q.anyRefused {
				q.withdraw(w)
			}
		case err != 0 && w.N > 1:
			// Refused as a whole. Each packet is tried by itself; one that the kernel refuses is dropped alone.
			q.merger.Undo(b, w)
			q.single, q.anyRefused, q.refusal = w.First, false, err
			continue
		case err != 0:
			b.Packets[w.First].Drop = packet.DropTUN
		}
		q.w++
	}
	return true
}

// withdraw stops merging packets of w's protocol: the kernel refused w, and took all its packets one by one. Some kernels
// refuse every merged write, some those with a short last packet (Linux 6.6.44). A kernel that was short of memory is
// asked again.
func (q *queue) withdraw(w *offload.Write) {
	if q.refusal == unix.ENOMEM || q.refusal == unix.ENOBUFS {
		return
	}
	if w.UDP {
		q.set(packet.UDPGRO, packet.OffloadWithdrawn)
	} else {
		q.set(packet.TCPGRO, packet.OffloadWithdrawn)
	}
}

// writePlain is writeAll for a TUN without virtio headers.
func (q *queue) writePlain(fd uintptr) bool {
	b := q.wb
	for q.w < len(b.Packets) {
		switch err := q.sysWrite(fd, b.Bytes(q.w)); err {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		case unix.EBADFD:
			q.gone()
			q.werr = errGone
			return true
		case 0:
		default:
			b.Packets[q.w].Drop = packet.DropTUN
		}
		q.w = nextLive(b, q.w)
	}
	return true
}

// iovecs returns what w writes: virtio header, headers and payload of the first packet, then the payload of each other.
func (q *queue) iovecs(w *offload.Write) []unix.Iovec {
	n, from := 0, -offload.HeaderSize
	for i := w.First; i >= 0; i = q.merger.Next(i) {
		p := &q.wb.Packets[i]
		q.iov[n].Base = &q.wb.Slab[p.Off+from]
		q.iov[n].SetLen(p.Len - from)
		n++
		from = w.Head
	}
	return q.iov[:n]
}

// stateOf returns where the state of o, one offload, is kept.
func (q *queue) stateOf(o packet.Offload) *atomic.Uint32 {
	return &q.state[bits.TrailingZeros8(uint8(o))]
}

func (q *queue) is(o packet.Offload) bool {
	return packet.OffloadState(q.stateOf(o).Load()) == packet.OffloadOn
}

func (q *queue) set(o packet.Offload, to packet.OffloadState) { q.stateOf(o).Store(uint32(to)) }

func (q *queue) offloads() packet.OffloadStates {
	states := make(packet.OffloadStates)
	for o := range packet.TUNOffloads.Each() {
		states[o] = packet.OffloadState(q.stateOf(o).Load())
	}
	if states[packet.UDPGRO] == packet.OffloadOn && q.separateUDP.Load() {
		states[packet.UDPGRO] = packet.OffloadOff
	}
	return states
}

func sysRead(fd uintptr, p []byte) (int, unix.Errno) {
	// The slice is not empty, and the pointer is converted in the call itself.
	n, _, err := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return int(n), err
}

func sysWrite(fd uintptr, p []byte) unix.Errno {
	// As in sysRead; a TUN takes a packet whole or not at all.
	_, _, err := unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return err
}

func sysWritev(fd uintptr, iov []unix.Iovec) unix.Errno {
	// The iovecs hold pointers, so the slab they point into stays alive.
	_, _, err := unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
	return err
}
