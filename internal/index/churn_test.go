//go:build !race

// One goroutine, millions of rounds: nothing for the race detector, which makes it a hundred times as slow.

package index

import (
	"math/rand/v2"
	"testing"
)

// Millions of sessions come and go: the table stays as small as what lives, and searches stay short.
func TestChurn(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var tab Table[entry]
	const live, rounds = 1000, 2_000_000
	v := new(entry)
	ring := make([]uint32, live)
	for i := range ring {
		ring[i] = tab.Insert(v, rng.Uint32)
	}
	largest := 0
	for i := range rounds {
		at := i % live
		if !tab.Delete(ring[at], v) {
			t.Fatalf("round %d: %d is gone", i, ring[at])
		}
		ring[at] = tab.Insert(v, rng.Uint32)
		largest = max(largest, slotsOf(&tab))
	}
	if tab.Len() != live || largest > 4*live {
		t.Errorf("%d indices in use took up to %d slots, want %d at most", tab.Len(), largest, 4*live)
	}
	for _, i := range ring {
		if tab.Lookup(i) != v {
			t.Fatalf("%d was lost", i)
		}
	}
	for n, i := range ring {
		tab.Delete(i, v)
		if bad := wellFormed(&tab); bad != "" {
			t.Fatalf("after %d deletions: %s", n+1, bad)
		}
	}
	if slotsOf(&tab) != 0 {
		t.Error("an empty table holds on to its memory")
	}
}
