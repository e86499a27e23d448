//go:build !race

// Under the race detector sync.Pool drops items at random, so allocations are counted without it.

package aead

import (
	"testing"

	"throughline/packet"
)

// No implementation allocates, but those that leave packets to x/crypto allocate what that does: nothing where it has
// assembly (amd64), otherwise once or twice for each packet.
func TestNoAllocations(t *testing.T) {
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		k := impl.NewKey(&testKey)
		var perSeal, perForged float64
		if impl != portable {
			n, text := make([]byte, 12), make([]byte, 1420, 1436)
			perSeal = testing.AllocsPerRun(100, func() { k.library().Seal(text[:0], n, text, nil) })
			sealed := k.library().Seal(nil, n, text, nil)
			perForged = testing.AllocsPerRun(100, func() { n[11]++; k.library().Open(sealed[:0], n, sealed, nil) })
			if perSeal+perForged > 0 {
				t.Logf("x/crypto allocates here: %v times to seal, %v to open", perSeal, perForged)
			}
		}
		for _, lengths := range [][]int{{1420}, {128}, {0}, {1420, 0, 128, 1420}, {96, 96, 96, 96, 96, 96, 96, 96, 96, 1, 1420, 1420, 1420, 1420, 1420, 1420, 1420, 1420}} {
			slab, train := newTrain(random(7), 0, lengths...)
			packets := float64(len(train))
			if got, want := testing.AllocsPerRun(fullOrShort(200, 20), func() { k.Seal(slab, train); k.Open(slab, train) }), packets*(perSeal+perForged); got > want {
				t.Errorf("%d packets: Seal and Open allocate %v times, want %v", len(train), got, want)
			}
			if train[0].Drop != 0 {
				t.Error("the packets didn't open")
			}
			for i := range train {
				train[i].Len += 16 // the bytes after the text aren't its tag any more
			}
			slab[train[0].Off] ^= 1
			if got, want := testing.AllocsPerRun(fullOrShort(200, 20), func() {
				for i := range train {
					train[i].Drop = 0
				}
				k.Open(slab, train)
			}), packets*perForged; got > want {
				t.Errorf("%d packets: Open of forged packets allocates %v times, want %v", len(train), got, want)
			}
			if train[0].Drop != packet.DropTag {
				t.Error("the forged packets weren't refused")
			}
		}
	})
}
