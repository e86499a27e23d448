// Package replay is the window that accepts each counter of a session once. Whitepaper §5.4.6, RFC 6479.
//
// It knows nothing of keys: only counters whose packets were authenticated may be passed to it, or a forger moves the
// window. A [Window] is a value of about 1 KiB, owned by one session and one direction. It has no lock: one goroutine at
// a time may use it.
//
// Limits: a counter is accepted at most once, and only if it is less than [wire.ReplayWindow] below the highest.
package replay

import "throughline/internal/wire"

const (
	wordBits = 64
	words    = wire.ReplayWindow / wordBits

	// The ring is indexed by masking, and each of its bits is one counter of the window.
	_ = uint(wire.ReplayWindow - words*wordBits)
	_ = -uint(words & (words - 1))
)

// A Window remembers which of the last [wire.ReplayWindow] counters, up to the highest accepted, came already. The zero
// Window is ready and has seen none.
//
// As in RFC 6479 the bitmap is a ring of words, so that nothing is shifted. The RFC clears whole words and therefore
// needs a spare one; this window clears bit by bit, and so remembers exactly as many counters as it has bits. In order,
// the commonest case, that costs nothing: the one bit that would be forgotten is the one that is set.
type Window struct {
	last uint64        // the highest counter accepted; 0 also before the first
	ring [words]uint64 // the bit of counter c is bit c%64 of word c/64%words; set: c came
}

// Accept reports whether counter is new, and marks it. A counter that came before is refused, as is one older than the
// window, and one at or above [wire.RejectAfterMessages] (whitepaper §6.1), which marks nothing.
func (w *Window) Accept(counter uint64) bool {
	if counter >= wire.RejectAfterMessages {
		return false
	}
	word, bit := &w.ring[counter/wordBits%words], uint64(1)<<(counter%wordBits)
	switch {
	case counter == w.last+1:
		w.last = counter
	case counter > w.last:
		w.forget(w.last+1, counter)
		w.last = counter
	case w.last-counter >= wire.ReplayWindow || *word&bit != 0:
		return false
	}
	*word |= bit
	return true
}

// forget clears the bits of the counters from first up to end, which is not among them: until now they stood for the
// counters one window earlier.
func (w *Window) forget(first, end uint64) {
	if end-first >= wire.ReplayWindow {
		clear(w.ring[:])
		return
	}
	below := uint64(1)<<(first%wordBits) - 1 // the bits of the first word that stay
	above := ^uint64(0) << (end % wordBits)  // those of the last word that stay
	i, last := first/wordBits, end/wordBits
	if i == last {
		w.ring[i%words] &= below | above
		return
	}
	w.ring[i%words] &= below
	for i++; i < last; i++ {
		w.ring[i%words] = 0
	}
	w.ring[last%words] &= above
}

// Reset makes w the zero Window.
func (w *Window) Reset() { *w = Window{} }
