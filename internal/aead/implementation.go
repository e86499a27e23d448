package aead

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"throughline/internal/wire"
	"throughline/packet"
)

// An Implementation seals and opens trains with ChaCha20-Poly1305. All give the same bytes and refuse the same packets;
// they differ in speed and in the CPUs they need. An Implementation is immutable.
type Implementation struct {
	name      string
	supported func() bool // whether this CPU has the instructions it uses
	seal      func(k *Key, slab []byte, train []packet.Packet)
	open      func(k *Key, slab []byte, train []packet.Packet)
}

// usable reports whether this machine can use the implementation. CPUID alone isn't trusted: the implementation must
// also pass its self-test, which takes less than 100 µs.
func (im *Implementation) usable() bool { return im.supported() && im.selfTest() }

// selfTest reports whether the implementation agrees with the portable one on trains of few and many, short and long
// packets, which take different code paths, the last packet of each being forged.
func (im *Implementation) selfTest() bool {
	key := [wire.KeySize]byte{1, 2, 3}
	k, ref := im.NewKey(&key), portable.NewKey(&key)
	for _, lengths := range [][]int{{100}, {800}, {128, 128, 128, 128, 128}, {1420, 1404, 0, 17, 96, 1420, 300, 1420, 1, 64}} {
		var train []packet.Packet
		end := 0
		for i, n := range lengths {
			train = append(train, packet.Packet{Off: end, Len: n})
			train[i].SetCounter(1<<32 - 2 + uint64(i))
			end += n + wire.TagSize
		}
		slab := make([]byte, end)
		for i := range slab {
			slab[i] = byte(i * 7)
		}
		wantSlab, wantTrain := bytes.Clone(slab), slices.Clone(train)
		same := func() bool { return bytes.Equal(slab, wantSlab) && slices.Equal(train, wantTrain) }
		k.Seal(slab, train)
		ref.Seal(wantSlab, wantTrain)
		if !same() {
			return false
		}
		forged := train[len(train)-1].Off
		slab[forged] ^= 1
		wantSlab[forged] ^= 1
		k.Open(slab, train)
		ref.Open(wantSlab, wantTrain)
		for i := range train { // the tag of a refused packet is unspecified
			for _, s := range [][]byte{slab, wantSlab} {
				clear(s[train[i].Off+lengths[i]:][:wire.TagSize])
			}
		}
		if !same() {
			return false
		}
	}
	return true
}

// Implementations returns those that this machine can use, the fastest first. The slice is the caller's.
func Implementations() []*Implementation {
	var usable []*Implementation
	for _, im := range implementations {
		if im.usable() {
			usable = append(usable, im)
		}
	}
	return usable
}

// Best returns the fastest implementation that this machine can use.
func Best() *Implementation {
	for _, im := range implementations {
		if im.usable() {
			return im
		}
	}
	panic("aead: BUG: no usable implementation")
}

// Named returns the implementation of that name, or an error that lists those this machine can use.
func Named(name string) (*Implementation, error) {
	var names []string
	for _, im := range Implementations() {
		if im.name == name {
			return im, nil
		}
		names = append(names, im.name)
	}
	return nil, fmt.Errorf("this machine has no %q: it has %s", name, strings.Join(names, ", "))
}

// String returns the implementation's name.
func (im *Implementation) String() string { return im.name }
