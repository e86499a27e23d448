//go:build !race

// Under the race detector sync.Pool throws things away at random, so allocations are counted without it.

package aead

import (
	"math/rand/v2"
	"testing"

	"throughline/packet"
)

// TestNoAllocations: trains add no allocation to those of the cipher, and the cipher has none where it is written in
// assembly (amd64 with AVX2). The portable code of x/crypto has one or two for each packet.
func TestNoAllocations(t *testing.T) {
	k := Best().NewKey(&testKey)
	n, text := make([]byte, 12), make([]byte, 1420, 1436)
	perSeal := testing.AllocsPerRun(100, func() { k.lib.Seal(text[:0], n, text, nil) })
	sealed := k.lib.Seal(nil, n, text, nil)
	perForged := testing.AllocsPerRun(100, func() { n[11]++; k.lib.Open(sealed[:0], n, sealed, nil) })
	if perSeal+perForged > 0 {
		t.Logf("this machine's cipher allocates by itself: %v to seal, %v to open", perSeal, perForged)
	}

	slab, train := layTrain(rand.New(rand.NewPCG(1, 7)), 0, 1420, 0, 128, 1420)
	packets := float64(len(train))
	if got, want := testing.AllocsPerRun(200, func() { k.Seal(slab, train); k.Open(slab, train) }), packets*(perSeal+perForged); got > want {
		t.Errorf("Seal and Open allocate %v times, want %v", got, want)
	}
	if train[0].Drop != 0 {
		t.Error("the packets didn't open")
	}
	if got, want := testing.AllocsPerRun(200, func() {
		for i := range train {
			train[i].Drop = 0
		}
		k.Open(slab, train)
	}), packets*perForged; got > want {
		t.Errorf("Open of forged packets allocates %v times, want %v", got, want)
	}
	if train[0].Drop != packet.DropTag {
		t.Error("the forged packets weren't refused")
	}
}
