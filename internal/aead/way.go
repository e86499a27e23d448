package aead

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"throughline/internal/wire"
	"throughline/packet"
)

// A Way is one way to seal and open trains. All give the same bytes, and refuse the same packets; they differ in what
// they cost, and in the CPUs they run on. A Way never changes.
type Way struct {
	name string
	runs func() bool // whether this CPU has what the way needs
	seal func(k *Key, slab []byte, train []packet.Packet)
	open func(k *Key, slab []byte, train []packet.Packet)
}

func always() bool { return true }

// usable reports whether the way can be gone on this machine. What the CPU says of itself is not all: a train is sealed
// and opened, and a way that then differs from the portable one is not used. It takes less than 100 µs.
func (w *Way) usable() bool { return w.runs() && w.agrees() }

// agrees compares the way with the portable one: trains of few and many, short and long packets, as the ways tell them
// apart, one of them forged.
func (w *Way) agrees() bool {
	key := [wire.KeySize]byte{1, 2, 3}
	k, ref := w.NewKey(&key), portable.NewKey(&key)
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
		for i := range train { // what a refused packet's tag becomes is each way's own affair
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

// Ways returns the ways that this machine can go, the best first.
func Ways() []*Way {
	var here []*Way
	for _, w := range ways {
		if w.usable() {
			here = append(here, w)
		}
	}
	return here
}

// Best returns the fastest way that this machine can go.
func Best() *Way {
	for _, w := range ways {
		if w.usable() {
			return w
		}
	}
	panic("aead: BUG: no way runs everywhere")
}

// Named returns the way of that name, or an error that lists those this machine can go.
func Named(name string) (*Way, error) {
	var names []string
	for _, w := range Ways() {
		if w.name == name {
			return w, nil
		}
		names = append(names, w.name)
	}
	return nil, fmt.Errorf("this machine has no %q: it has %s", name, strings.Join(names, ", "))
}

// String returns the way's name.
func (w *Way) String() string { return w.name }
