//go:build linux || darwin || freebsd || openbsd

package aead

import (
	"runtime/debug"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"throughline/packet"
)

// guarded returns memory of at least n bytes, whole pages, between two inaccessible guard pages.
func guarded(t *testing.T, n int) []byte {
	page := unix.Getpagesize()
	n = (n + page - 1) / page * page
	all, err := unix.Mmap(-1, 0, n+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal("mmap:", err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(all); err != nil {
			t.Error("munmap:", err)
		}
	})
	for _, guard := range [][]byte{all[:page], all[page+n:]} {
		if err := unix.Mprotect(guard, unix.PROT_NONE); err != nil {
			t.Fatal("mprotect:", err)
		}
	}
	return all[page : page+n : page+n]
}

// faults runs f and returns the fault when it accesses a guard page, or nil.
func faults(f func()) (fault any) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { fault = recover() }()
	f()
	return nil
}

// Packets at the very beginning and end of a slab, tag included, between guard pages: no implementation reads or writes
// outside the slab, whatever the lengths.
func TestGuardPages(t *testing.T) {
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		const room = 20000
		rng := random(20)
		memory := guarded(t, room)
		k := newCheckedKey(t, impl, testKey)

		// try places a train at the very beginning of the memory, or at its very end.
		try := func(lengths []int, atEnd bool) {
			_, train := gappedTrain(rng, 0, lengths, func(int) int { return 0 })
			last := train[len(train)-1]
			need := last.Off + last.Len + packet.Tailroom
			slab := memory[:need:need]
			if atEnd {
				slab = memory[len(memory)-need:]
			}
			fill(rng, slab)
			if fault := faults(func() { k.roundTrip(t, slab, train) }); fault != nil {
				t.Fatalf("lengths %v, at the end %v: %v", lengths, atEnd, fault)
			}
		}
		for n := range 1421 {
			if short() && n > 140 && n%64 > 2 {
				continue
			}
			for _, atEnd := range []bool{false, true} {
				try([]int{n}, atEnd)
				if size := 2 + n%8; n%fullOrShort(1, 8) == 0 {
					try(slices.Repeat([]int{n}, size), atEnd)
				}
			}
		}
		for range fullOrShort(500, 40) {
			n := 1 + rng.IntN(24)
			lengths := make([]int, n)
			for i := range lengths {
				lengths[i] = rng.IntN(room/n - 16)
				if rng.IntN(3) == 0 || short() {
					lengths[i] = rng.IntN(min(room/n-16, 100))
				}
			}
			try(lengths, rng.IntN(2) == 0)
		}

		// A forged packet is cleared up to its end; one too short for a tag isn't read at all.
		for _, n := range []int{0, 1, 15, 16, 17, 63, 64, 65, 128, 1420} {
			for _, size := range []int{1, 2, 8} {
				_, train := gappedTrain(rng, 0, slices.Repeat([]int{n + 16}, size), func(int) int { return -16 })
				need := size * (n + 16)
				slab := memory[len(memory)-need:]
				fill(rng, slab)
				if fault := faults(func() { k.open(t, slab, train) }); fault != nil {
					t.Fatalf("forged, %d x %d: %v", size, n, fault)
				}
			}
		}
		for n := range 16 {
			slab := memory[len(memory)-n:]
			train := []packet.Packet{{Len: n}}
			if fault := faults(func() { k.open(t, slab, train) }); fault != nil {
				t.Fatalf("short, %d: %v", n, fault)
			}
		}
	})
}

// The guard pages must fault.
func TestGuardPagesFault(t *testing.T) {
	b := guarded(t, 1)
	if fault := faults(func() { b[0], b[len(b)-1] = 1, 1 }); fault != nil {
		t.Error("between the guard pages:", fault)
	}
	if faults(func() { *(*byte)(unsafe.Add(unsafe.Pointer(&b[0]), len(b))) = 1 }) == nil {
		t.Error("a write after the slab was not caught")
	}
	if faults(func() { b[0] = *(*byte)(unsafe.Add(unsafe.Pointer(&b[0]), -1)) }) == nil {
		t.Error("a read before the slab was not caught")
	}
}
