package tun

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"throughline/internal/wire"
	"throughline/packet"
	"throughline/tun/offload"
)

// A scatter reads a super-packet so that the payload of each segment comes to lie where the segment will be sealed, and
// splitting it copies headers only. It has to guess the shape of the next super-packet, and guesses that of the last: in
// bulk TCP that is nearly always right. When it wasn't, what was read is gathered into one piece again.
type scatter struct {
	head, size int // the guess: bytes of headers, and of payload in a segment; no guess while size is 0
	iov        [maxIovecs]unix.Iovec
	off        [maxIovecs]int // where each iovec lies in the slab
	n          int            // iovecs of the present read
}

// maxIovecs bounds the iovecs of a read, one for each segment: those of a super-packet of 64 KiB whose segments have 1024
// bytes or more. One with smaller segments is read whole: the kernel's work for each iovec would cost more than the copy
// saved.
const maxIovecs = 65

// learn makes the shape of the super-packet that was just read the guess for the next.
func (s *scatter) learn(super *offload.Super) {
	s.head, s.size = super.Shape()
	if super.Segments() < 3 || s.size < maxRead/(maxIovecs-1) {
		s.size = 0
	}
}

// forget drops the guess: what was read was no super-packet.
func (s *scatter) forget() { s.size = 0 }

// plan prepares a read to the offset where b's next packet is to be. It reports false when there is no guess, or not
// enough room should it be wrong.
func (s *scatter) plan(b *packet.Batch) bool {
	if s.size == 0 || cap(b.Packets)-len(b.Packets) < maxIovecs {
		return false
	}
	off, _ := b.Next()
	stride := packet.Headroom + wire.Padded(s.head+s.size, b.MTU) + packet.Tailroom
	remaining := maxRead - s.head
	s.n = 0
	for remaining > 0 && s.n < maxIovecs {
		at, n := off+s.n*stride+s.head, min(remaining, s.size)
		if s.n == 0 { // the virtio header, the headers and the first payload together
			at, n = off-offload.HeaderSize, offload.HeaderSize+s.head+n
			remaining -= s.size
		} else {
			remaining -= n
		}
		if at+n+packet.Tailroom+wire.PaddingMultiple > len(b.Slab) {
			return false
		}
		s.off[s.n] = at
		s.iov[s.n].Base = &b.Slab[at]
		s.iov[s.n].SetLen(n)
		s.n++
	}
	return remaining <= 0
}

// read reads as planned.
func (s *scatter) read(fd uintptr) (int, unix.Errno) {
	// The iovecs hold pointers, so the slab they point into stays alive; they lie on the heap with the queue.
	n, _, err := unix.RawSyscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&s.iov[0])), uintptr(s.n))
	return int(n), err
}

// inPlace reports whether the super-packet that was read has the guessed shape, so that each segment lies in its place.
func (s *scatter) inPlace(super *offload.Super) bool {
	head, size := super.Shape()
	return head == s.head && size == s.size
}

// gather moves the n bytes that were read, virtio header included, to where a read without a plan would have put them.
func (s *scatter) gather(b *packet.Batch, n int) {
	to := s.off[0]
	for i := 0; i < s.n && n > 0; i++ {
		length := min(n, int(s.iov[i].Len))
		if i > 0 { // downwards, so in this order nothing is overwritten before it has moved
			copy(b.Slab[to:to+length], b.Slab[s.off[i]:])
		}
		to += length
		n -= length
	}
}
