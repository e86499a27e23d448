package aead

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"throughline/packet"
)

// x/crypto's cipher, and the copy of the key in it, is made by the first packet that needs it, and only once.
func TestLibraryIsMadeLate(t *testing.T) {
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		k := impl.NewKey(&testKey)
		if k.lib.made.Load() != nil {
			t.Error("it is made with the key")
		}
		slab, train := newTrain(random(1), 0, 128)
		k.Seal(slab, train)
		if made := k.lib.made.Load() != nil; made != (impl != portable) {
			t.Errorf("after a packet of 128 bytes it is made: %v", made)
		}
	})
	k := xcrypto.NewKey(&testKey)
	var all sync.WaitGroup
	libs := make([]any, 8)
	for i := range libs {
		all.Go(func() { libs[i] = k.library() })
	}
	all.Wait()
	for _, lib := range libs {
		if lib != libs[0] {
			t.Fatal("goroutines at once got different ciphers")
		}
	}
	// Whichever of them was dropped, the one that stays has the key.
	slab, train := newTrain(random(2), 0, 100)
	k.Seal(slab, train)
	if portable.NewKey(&testKey).Open(slab, train); train[0].Drop != 0 {
		t.Error("its packets don't open")
	}
}

// Nothing of the key is left where we can look: not in the Key, not in x/crypto's cipher, not in pooled workspaces.
func TestWipe(t *testing.T) {
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		k := impl.NewKey(&testKey)
		for _, lengths := range [][]int{{128}, {1420}, {1420, 1420, 1420, 1420, 1420, 1420, 1420, 1420, 128, 4096}} {
			slab, train := newTrain(random(1), 0, lengths...)
			k.Seal(slab, train)
			k.Open(slab, train)
			if train[0].Drop != 0 {
				t.Fatal("it doesn't open")
			}
		}
		lib := k.lib.made.Load()
		k.Wipe()
		if k.raw != [32]byte{} {
			t.Error("the Key still has its key")
		}
		if lib != nil {
			zero := xcrypto.NewKey(new([32]byte)).library()
			n := make([]byte, 12)
			if !bytes.Equal((*lib).Seal(nil, n, n, nil), zero.Seal(nil, n, n, nil)) {
				t.Error("x/crypto's cipher still has it")
			}
			if k.lib.made.Load() != nil {
				t.Error("x/crypto's cipher is still there")
			}
		}
		k.Wipe() // again, which does nothing
	})
}

// A Key that was wiped doesn't open what it sealed before.
func TestWipedKeyOpensNothing(t *testing.T) {
	for _, impl := range Implementations() {
		k := impl.NewKey(&testKey)
		slab, train := newTrain(random(1), 0, 100, 100, 100, 100, 1420)
		k.Seal(slab, train)
		k.Wipe()
		k.Open(slab, train)
		for i, p := range train {
			if p.Drop != packet.DropTag {
				t.Error(fmt.Sprint(impl), "packet", i, "has drop", p.Drop)
			}
		}
	}
}
