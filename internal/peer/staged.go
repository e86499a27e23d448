package peer

import "throughline/internal/wire"

// Staged holds the packets that wait for a session, in order: [wire.MaxStaged] at most; when there are as many, a new one
// has the oldest dropped. Kernel: MAX_STAGED_PACKETS. It owns copies, so that their batch can be reused. The zero Staged
// is empty and holds no memory. It is not safe for concurrent use.
type Staged struct {
	packets [][]byte
}

// Push appends a copy of p. It reports whether the oldest packet was dropped for it.
func (s *Staged) Push(p []byte) (dropped bool) {
	if len(s.packets) == wire.MaxStaged {
		copy(s.packets, s.packets[1:])
		s.packets = s.packets[:wire.MaxStaged-1]
		dropped = true
	}
	s.packets = append(s.packets, append([]byte(nil), p...))
	return dropped
}

// Len returns how many packets are staged.
func (s *Staged) Len() int { return len(s.packets) }

// At returns the i-th oldest packet, from 0. It is borrowed until Pop or Clear.
func (s *Staged) At(i int) []byte { return s.packets[i] }

// Pop removes the n oldest packets, and frees the memory with the last.
func (s *Staged) Pop(n int) {
	if n == len(s.packets) {
		s.packets = nil
		return
	}
	clear(s.packets[:n])
	s.packets = s.packets[n:]
}

// Clear removes all packets and returns how many they were.
func (s *Staged) Clear() int {
	n := len(s.packets)
	s.packets = nil
	return n
}
