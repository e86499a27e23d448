package tun

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"throughline/internal/wire"
	"throughline/packet"
	"throughline/tun/offload"
)

// A scatter reads a super-packet so that the payload of each segment comes to lie where the segment will be sealed, and
// splitting it copies headers only. It has to guess the shape of the next super-packet, and guesses that of the last:
// in bulk TCP that is nearly always right. When it wasn't, the pieces are put together again.
type scatter struct {
	head, size int // the guess: bytes of headers, and of payload in a segment; no size: there is none
	iov        [maxPieces]unix.Iovec
	off        [maxPieces]int // where each piece lies in the slab
	n          int            // pieces of the present read
}

// maxPieces bounds the pieces of a read: the segments of a super-packet of 64 KiB of MSS 1024 or more. What has smaller
// ones is read whole: the kernel's work for each piece would be dearer than the copy saved.
const maxPieces = 65

// guess takes the shape of a super-packet that was just read, for the next.
func (s *scatter) guess(super *offload.Super) {
	s.head, s.size = super.Shape()
	if super.Segments() < 3 || s.size < maxRead/(maxPieces-1) {
		s.size = 0
	}
}

// forget forgets the guess: what was read was no super-packet.
func (s *scatter) forget() { s.size = 0 }

// plan lays out a read at the offset where b's next packet is to be. It reports false when there is no guess, or not
// enough room for one that is wrong.
func (s *scatter) plan(b *packet.Batch) bool {
	if s.size == 0 || cap(b.Packets)-len(b.Packets) < maxPieces {
		return false
	}
	off, _ := b.Next()
	stride := packet.Headroom + wire.Padded(s.head+s.size, b.MTU) + packet.Tailroom
	left := maxRead - s.head
	s.n = 0
	for left > 0 && s.n < maxPieces {
		at, n := off+s.n*stride+s.head, min(left, s.size)
		if s.n == 0 { // the virtio header, the headers and the first payload in one piece
			at, n = off-offload.HeaderSize, offload.HeaderSize+s.head+n
			left -= s.size
		} else {
			left -= n
		}
		if at+n+packet.Tailroom+wire.PaddingMultiple > len(b.Slab) {
			return false
		}
		s.off[s.n] = at
		s.iov[s.n].Base = &b.Slab[at]
		s.iov[s.n].SetLen(n)
		s.n++
	}
	return left <= 0
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

// gather puts the n bytes that were read together again, virtio header and all, as a plain read would have laid them.
func (s *scatter) gather(b *packet.Batch, n int) {
	to := s.off[0]
	for i := 0; i < s.n && n > 0; i++ {
		piece := min(n, int(s.iov[i].Len))
		if i > 0 { // downwards, so in this order nothing is overwritten before it has moved
			copy(b.Slab[to:to+piece], b.Slab[s.off[i]:])
		}
		to += piece
		n -= piece
	}
}
