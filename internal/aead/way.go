package aead

import (
	"fmt"
	"strings"

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

// Ways returns the ways that this machine can go, the best first.
func Ways() []*Way {
	var here []*Way
	for _, w := range ways {
		if w.runs() {
			here = append(here, w)
		}
	}
	return here
}

// Best returns the fastest way that this machine can go.
func Best() *Way {
	for _, w := range ways {
		if w.runs() {
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
	return nil, fmt.Errorf("this machine has no cipher %q: it has %s", name, strings.Join(names, ", "))
}

// String returns the way's name.
func (w *Way) String() string { return w.name }
