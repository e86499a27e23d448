package aead

import (
	"bytes"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"testing"

	"throughline/packet"
)

// The implementations while the runtime collects garbage, moves stacks, preempts, and runs goroutines in parallel.

// A sealedTrain is a train with its expected results, computed before the stress begins.
type sealedTrain struct {
	key           [32]byte
	plain, sealed []byte
	before, after []packet.Packet
}

func prepare(t testing.TB, rng *rand.Rand, n, longest int) (s sealedTrain) {
	fill(rng, s.key[:])
	s.plain, s.before = randomTrain(rng, n, longest)
	s.sealed, s.after = bytes.Clone(s.plain), slices.Clone(s.before)
	newCheckedKey(t, portable, s.key).seal(t, s.sealed, s.after)
	return s
}

// check seals and opens the train in a slab that nothing else references. It returns what went wrong, or "".
func (s *sealedTrain) check(k *Key) string {
	slab, train := bytes.Clone(s.plain), slices.Clone(s.before)
	k.Seal(slab, train)
	if !bytes.Equal(slab, s.sealed) || !slices.Equal(train, s.after) {
		return "Seal gave a wrong result"
	}
	k.Open(slab, train)
	if !slices.Equal(train, s.before) {
		return "Open dropped packets, or gave wrong lengths"
	}
	for _, p := range train {
		if !bytes.Equal(slab[p.Off:p.Off+p.Len], s.plain[p.Off:p.Off+p.Len]) {
			return "a packet came back changed"
		}
	}
	return ""
}

// The garbage collector runs all the time, and what it frees is allocated and overwritten at once: an implementation that
// hides a pointer from it reads or writes memory that isn't its own.
func TestCollector(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		rng := random(30)
		var trains []sealedTrain
		for range fullOrShort(20, 3) {
			trains = append(trains, prepare(t, rng, 1+rng.IntN(64), fullOrShort(1500, 200)))
		}
		stop := make(chan struct{})
		var others sync.WaitGroup
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					runtime.GC()
				}
			}
		})
		others.Go(func() {
			for size := 1 << 10; ; size = size%(1<<17) + 1<<10 {
				select {
				case <-stop:
					return
				default:
					junk := make([]byte, size)
					for i := range junk {
						junk[i] = 0xee
					}
					runtime.Gosched()
				}
			}
		})
		for round := range fullOrShort(600, 12) {
			s := &trains[round%len(trains)]
			if wrong := s.check(impl.NewKey(&s.key)); wrong != "" { // nothing else references the Key, too
				t.Errorf("round %d, %d packets: %s", round, len(s.before), wrong)
				break
			}
		}
		close(stop)
		others.Wait()
	})
}

// deep calls f with n frames of a few hundred bytes above it.
//
//go:noinline
func deep(n int, f func()) byte {
	var frame [200]byte
	if n > 0 {
		frame[n%len(frame)] = deep(n-1, f)
	} else {
		f()
	}
	return frame[n%7] + frame[n%len(frame)]
}

// Each implementation is called at every stack depth, so that the stack is grown and moved in every place.
func TestStacks(t *testing.T) {
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		s := prepare(t, random(31), 19, 300)
		k := impl.NewKey(&s.key)
		for depth := 0; depth < 300; depth += fullOrShort(1, 17) {
			var wrong string
			var one sync.WaitGroup
			one.Go(func() {
				deep(depth, func() { wrong = s.check(k) })
				if wrong == "" && depth%16 == 0 {
					runtime.GC() // shrinks the stack again
					deep(depth/2, func() { wrong = s.check(k) })
				}
			})
			one.Wait()
			if wrong != "" {
				t.Fatalf("at depth %d: %s", depth, wrong)
			}
		}
	})
}

// Workers share a key, on adjacent packets of one slab, and also have keys and slabs of their own.
func TestConcurrent(t *testing.T) {
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		const workers = 4
		rng := random(32)
		shared := impl.NewKey(&testKey)
		slab, train := gappedTrain(rng, 0, slices.Repeat([]int{200, 64, 1420, 16}, workers*3), func(int) int { return 0 })
		plain, before := bytes.Clone(slab), slices.Clone(train)
		var all sync.WaitGroup
		for worker := range workers {
			mine := train[worker*12 : (worker+1)*12]
			own := prepare(t, rng, 1+rng.IntN(40), fullOrShort(1500, 200))
			key := impl.NewKey(&own.key)
			all.Go(func() {
				for round := range fullOrShort(40, 10) {
					shared.Seal(slab, mine)
					shared.Open(slab, mine)
					if wrong := own.check(key); wrong != "" {
						t.Errorf("worker %d, round %d: %s", worker, round, wrong)
						return
					}
				}
			})
		}
		all.Wait()
		if !slices.Equal(train, before) {
			t.Fatalf("descriptors changed: %+v", train)
		}
		for i, p := range train {
			if !bytes.Equal(slab[p.Off:p.Off+p.Len], plain[p.Off:p.Off+p.Len]) {
				t.Fatalf("packet %d came back changed: %+v", i, p)
			}
		}
	})
}
