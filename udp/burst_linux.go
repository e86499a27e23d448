package udp

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxBurst      = 8       // messages; more save little
	smallDatagram = 2 << 10 // bytes, or fewer: worth a copy
	burstAfter    = 4       // small datagrams in a row
)

// A burst is several messages that were received by one system call. Some may have to wait for the next batch: they may
// be larger than expected, and fill one. The zero burst is empty, and has no memory until it is needed.
type burst struct {
	*burstMemory
	next, n int // messages next to n are yet to be unpacked
}

// burstMemory has room for the largest message in each slot, as any may be a super-packet. What is never written costs
// address space only: with small datagrams that is all but a page of each.
type burstMemory struct {
	msgs  [maxBurst]unix.Mmsghdr
	slots [maxBurst]slot
	data  [maxBurst][maxReceive]byte
}

func newBurstMemory() *burstMemory {
	m := new(burstMemory)
	for i := range m.msgs {
		m.slots[i].point(&m.msgs[i].Hdr)
		m.slots[i].iov = iovec(m.data[i][:])
	}
	return m
}

// receiveBurst receives several messages, for unpack. The burst must be empty.
func (r *receiver) receiveBurst(fd uintptr) syscall.Errno {
	u := &r.burst
	if u.burstMemory == nil {
		u.burstMemory = newBurstMemory()
	}
	for i := range u.n { // those of the last time
		ready(&u.msgs[i].Hdr)
	}
	u.next, u.n = 0, 0
	n, errno := r.s.sys.recvmmsg(fd, u.msgs[:])
	if errno != 0 {
		return errno
	}
	u.n = n
	return 0
}

// unpack copies the burst's messages that aren't yet in a batch into this one. It reports whether all had room.
func (r *receiver) unpack() bool {
	for u := &r.burst; u.next < u.n; u.next++ {
		i := u.next
		m, ok := r.parse(&u.msgs[i].Hdr, &u.slots[i], int(u.msgs[i].Len))
		if !ok {
			continue
		}
		b := r.b
		_, free := b.Free()
		packets := (m.n + m.size - 1) / m.size
		if r.got() && (m.n > len(free) || packets > cap(b.Packets)-len(b.Packets)) {
			r.more = true
			return false
		}
		if m.n > len(free) {
			continue // truncated, as it would have been by the kernel
		}
		copy(free, u.data[i][:m.n])
		r.record(&m)
	}
	return true
}

func iovec(b []byte) (v unix.Iovec) {
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
	return v
}
