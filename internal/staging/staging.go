// Package staging keeps copies of the packets of many peers until these have sessions, in order, within one budget of bytes.
//
// The packets lie in segments of memory, in the order in which they came, whoever's they are. When the budget is used up the
// oldest segment is emptied for the next packet: what has waited longest, over all peers, gives way, so peers that never
// answer can't keep out those that are about to. A segment is given back when the last packet in it is gone. The
// memory is the system's, not the garbage collector's where the system allows it (memory_unix.go): the collector lets
// its heap grow to twice of what is in use, and this needn't.
//
// Concurrency: all methods may be called from any goroutine, [Queue.Len] too; each takes the store's lock, for as long as it
// copies, except Len. Of two that use one queue at once either comes first. Packets may give way at any time.
//
// Ownership: packets are copied in, and out into a batch. A [Queue] is embedded in its peer and costs no other memory while it
// is empty. It must not be copied while it isn't.
//
// Limits: [wire.MaxStaged] packets a queue, the oldest gives way; the bytes that [New] is told, in segments of
// 128 KiB, of which one may be kept beyond that for the next packet.
package staging

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"throughline/internal/wire"
	"throughline/packet"
)

// DefaultBytes is the budget unless told.
const DefaultBytes = 64 << 20

const (
	segmentSize = 128 << 10
	minSegments = 2 // one is filled while another is emptied

	// A packet lies behind a header: its owner, its length, and where the next packet of its queue is.
	headerSize = 16
	maxPacket  = segmentSize - headerSize

	gone = ^uint32(0) // the owner of a packet that was taken
)

// A Store holds the packets of all queues. Make one with [New].
type Store struct {
	limit int // segments

	mu       sync.Mutex // guards what follows, and all queues
	segments []*segment // from the oldest to the one being filled; nil: given back
	first    uint64     // the number of segments[0]
	used     int        // those that aren't nil
	spare    []byte
	owners   []*Queue // the queues that aren't empty, at their owner's number; nil: a free number
	free     []uint32 // the free numbers
}

// A segment is memory that packets lie in, one behind the other.
type segment struct {
	memory []byte
	end    int // where the next packet goes
	live   int // how many aren't gone
}

// A Queue is the packets of one peer. The zero Queue is empty. It belongs to the one Store that it is used with.
type Queue struct {
	n          atomic.Int32 // written under Store.mu
	owner      uint32
	head, tail position
}

// A position is a segment's number, and the offset in it: number*segmentSize + offset. Numbers begin with 1, so 0 is none.
type position uint64

// New returns an empty store for packets of so many bytes in all, their headers included; 0 stands for [DefaultBytes],
// and it is never less than 256 KiB.
func New(bytes int) *Store {
	if bytes == 0 {
		bytes = DefaultBytes
	}
	return &Store{limit: max(bytes/segmentSize, minSegments), first: 1}
}

// Len returns how many packets wait.
func (q *Queue) Len() int { return int(q.n.Load()) }

// Push appends a copy of p, of at most 65,535 bytes. It returns how many packets gave way for it: the queue's oldest,
// when it holds as many as it may, or the oldest of all.
func (s *Store) Push(q *Queue, p []byte) (dropped int) {
	if len(p) > maxPacket {
		panic("staging: BUG: a packet is larger than a segment")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.Len() == wire.MaxStaged {
		s.shift(q)
		dropped++
	}
	size := (headerSize + len(p) + 7) &^ 7
	if n := len(s.segments); n == 0 || s.segments[n-1].end+size > segmentSize {
		for s.used >= s.limit || len(s.segments) > 16*s.limit { // the latter: few are left of many
			dropped += s.evict()
		}
		s.grow()
	}
	last := len(s.segments) - 1
	seg := s.segments[last]
	at := position((s.first+uint64(last))*segmentSize) + position(seg.end)
	if q.Len() == 0 {
		q.owner = s.number(q)
		q.head = at
	} else {
		binary.LittleEndian.PutUint64(s.header(q.tail)[8:], uint64(at))
	}
	h := seg.memory[seg.end:]
	binary.LittleEndian.PutUint32(h, q.owner)
	binary.LittleEndian.PutUint32(h[4:], uint32(len(p)))
	clear(h[8:headerSize])
	copy(h[headerSize:], p)
	seg.end = min(seg.end+size, segmentSize)
	seg.live++
	q.tail = at
	q.n.Add(1)
	return dropped
}

// MoveTo moves the oldest packets of a queue to a batch, as many as fit. It does so only if reserve, which is told how many
// they are and must not use the store, returns true; it isn't called for none.
func (s *Store) MoveTo(q *Queue, b *packet.Batch, reserve func(n int) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for at := q.head; n < q.Len(); n++ {
		h := s.header(at)
		if !b.Append(h[headerSize:][:binary.LittleEndian.Uint32(h[4:])]) {
			break
		}
		at = position(binary.LittleEndian.Uint64(h[8:]))
	}
	if n == 0 && q.Len() > 0 {
		panic("staging: BUG: a packet is larger than a batch")
	}
	if n == 0 || !reserve(n) {
		return false
	}
	for range n {
		s.shift(q)
	}
	return true
}

// Clear removes all packets of a queue, and returns how many they were.
func (s *Store) Clear(q *Queue) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := q.Len()
	for range n {
		s.shift(q)
	}
	return n
}

// Close gives all memory back. Nothing is staged any more, nor may be.
func (s *Store) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.segments) > 0 {
		s.evict()
	}
	release(s.spare)
	s.spare = nil
}

// header returns what lies at a position: the header, and the packet behind it.
func (s *Store) header(at position) []byte {
	return s.segments[uint64(at)/segmentSize-s.first].memory[at%segmentSize:]
}

// shift removes the oldest packet of a queue, which isn't empty.
func (s *Store) shift(q *Queue) {
	i := uint64(q.head)/segmentSize - s.first
	seg := s.segments[i]
	h := seg.memory[q.head%segmentSize:]
	binary.LittleEndian.PutUint32(h, gone)
	q.head = position(binary.LittleEndian.Uint64(h[8:]))
	if q.n.Add(-1) == 0 {
		s.owners[q.owner] = nil
		if s.free = append(s.free, q.owner); len(s.free) == len(s.owners) {
			s.owners, s.free = nil, nil
		}
	}
	if seg.live--; seg.live > 0 {
		return
	}
	if int(i) == len(s.segments)-1 {
		seg.end = 0 // it is filled again
		return
	}
	s.giveBack(i)
}

// evict removes all packets of the oldest segment and gives it back. It returns how many they were.
func (s *Store) evict() (dropped int) {
	seg, number := s.segments[0], s.first
	dropped = seg.live
	for off := 0; seg.live > 0; {
		h := seg.memory[off:]
		owner := binary.LittleEndian.Uint32(h)
		off += (headerSize + int(binary.LittleEndian.Uint32(h[4:])) + 7) &^ 7
		if owner != gone {
			s.shift(s.owners[owner]) // of its queue it is the oldest, too; with the last of all the memory is given back
		}
	}
	if len(s.segments) > 0 && s.first == number { // it was the only one: shift has kept it
		s.giveBack(0)
	}
	return dropped
}

// giveBack gives segments[i] back, and forgets those before the oldest that is there.
func (s *Store) giveBack(i uint64) {
	if s.spare == nil {
		s.spare = s.segments[i].memory
	} else {
		release(s.segments[i].memory)
	}
	s.segments[i] = nil
	s.used--
	for len(s.segments) > 0 && s.segments[0] == nil {
		s.segments = s.segments[1:]
		s.first++
	}
}

// grow adds a segment.
func (s *Store) grow() {
	memory := s.spare
	if s.spare = nil; memory == nil {
		memory = allocate()
	}
	s.segments = append(s.segments, &segment{memory: memory})
	s.used++
}

// number gives a queue a number.
func (s *Store) number(q *Queue) uint32 {
	if n := len(s.free); n > 0 {
		number := s.free[n-1]
		s.free = s.free[:n-1]
		s.owners[number] = q
		return number
	}
	s.owners = append(s.owners, q)
	return uint32(len(s.owners) - 1)
}
