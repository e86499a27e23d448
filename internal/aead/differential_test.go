package aead

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"throughline/internal/wire"
	"throughline/packet"
)

// Every implementation is compared with golang.org/x/crypto, over all shapes that a train can have.

// Every length, alone and in trains of one length.
func TestEveryLength(t *testing.T) {
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		rng := random(10)
		k := newCheckedKey(t, impl, testKey)
		for n := range 2049 {
			trains := []int{1, 2, 5, 9}
			if short() {
				// Every length up to nine blocks, and those around the blocks beyond; one size of train each.
				if n > 9*64 && n%64 > 1 && n%64 < 63 {
					continue
				}
				trains = trains[rng.IntN(len(trains)):][:1]
				if n > 700 {
					trains = []int{1 + 4*(n/64%2)}
				}
			}
			for _, size := range trains {
				slab, train := gappedTrain(rng, rng.IntN(64), slices.Repeat([]int{n}, size), func(int) int { return rng.IntN(32) })
				k.roundTrip(t, slab, train)
			}
		}
		for _, n := range []int{4096, 9000, 32768, 65535 - 32, 65535} {
			if !short() {
				for _, size := range []int{1, 2, 9} {
					slab, train := gappedTrain(rng, rng.IntN(64), slices.Repeat([]int{n}, size), func(i int) int { return i })
					k.roundTrip(t, slab, train)
				}
			}
		}
	})
}

// randomTrain draws a train of n packets: lengths equal or mixed, with gaps or without, in order or not, some dropped.
func randomTrain(rng *rand.Rand, n, longest int) (slab []byte, train []packet.Packet) {
	lengths := make([]int, n)
	kind, most := rng.IntN(6), rng.IntN(longest+1)
	for i := range lengths {
		switch kind {
		case 0: // one length
			lengths[i] = most
		case 1: // one length, except for the last, as segmentation offload gives them
			lengths[i] = most
			if i == n-1 {
				lengths[i] = rng.IntN(most + 1)
			}
		case 2: // acknowledgements among full packets
			lengths[i] = most
			if rng.IntN(3) == 0 {
				lengths[i] = rng.IntN(min(most, 80) + 1)
			}
		case 3: // short ones only
			lengths[i] = rng.IntN(min(most, 200) + 1)
		case 4: // multiples of 16, as WireGuard pads
			lengths[i] = rng.IntN(most/16+1) * 16
		default: // anything
			lengths[i] = rng.IntN(most + 1)
		}
	}
	gap := 1 + rng.IntN(64)
	if rng.IntN(3) == 0 {
		gap = 1 // adjacent packets
	}
	slab, train = gappedTrain(rng, rng.IntN(64), lengths, func(int) int { return rng.IntN(gap) })
	first := rng.Uint64()
	switch rng.IntN(4) {
	case 0:
		first = 1<<32 - rng.Uint64N(uint64(n)+1)
	case 1:
		first = wire.RejectAfterMessages - rng.Uint64N(uint64(n)+1)
	case 2:
		first = -rng.Uint64N(uint64(n) + 1)
	}
	for i := range train {
		train[i].SetCounter(first + uint64(i))
	}
	switch rng.IntN(4) {
	case 0: // in any order, with any counters
		rng.Shuffle(n, func(i, j int) { train[i], train[j] = train[j], train[i] })
		for i := range train {
			train[i].SetCounter(rng.Uint64())
		}
	case 1:
		for i := range train {
			if rng.IntN(5) == 0 {
				train[i].Drop = packet.DropStagedFull
			}
		}
	}
	return slab, train
}

// forge changes some packets of a sealed train, each in one bit or in its length, or none.
func forge(rng *rand.Rand, slab []byte, train []packet.Packet) {
	every := rng.IntN(5)
	for i := range train {
		p := &train[i]
		if p.Drop != 0 || every == 0 || rng.IntN(every) != 0 {
			continue
		}
		switch rng.IntN(6) {
		case 0:
			p.Len = rng.IntN(p.Len + 1)
		case 1:
			p.SetCounter(p.Counter() ^ 1<<rng.IntN(64))
		case 2:
			slab[p.Off+p.Len-1-rng.IntN(16)] ^= 1 << rng.IntN(8)
		default:
			slab[p.Off+rng.IntN(p.Len)] ^= 1 << rng.IntN(8)
		}
	}
}

func TestRandomTrains(t *testing.T) {
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		rng := random(11)
		for round := range fullOrShort(1000, 60) {
			var key [32]byte
			fill(rng, key[:])
			k := newCheckedKey(t, impl, key)
			n, longest := 1+rng.IntN(64), 2048
			if short() {
				longest = 300
			} else if round%50 == 49 {
				n, longest = 1+rng.IntN(packet.MaxPackets), 400
			}
			slab, train := randomTrain(rng, n, longest)
			k.seal(t, slab, train)
			forge(rng, slab, train)
			k.open(t, slab, train)
		}
	})
}

// Every alignment of the first packet to a cache line, and every stride between packets.
func TestEveryStride(t *testing.T) {
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		rng := random(12)
		k := newCheckedKey(t, impl, testKey)
		for base := range 64 {
			for gap := range 64 {
				if short() && gap != base*29%64 {
					continue
				}
				n := []int{128, 96, 130, 64, 1, 200}[(base+gap)%6]
				slab, train := gappedTrain(rng, base, []int{n, n, n, n, n, n, n, n, n}[:3+(base+gap)%7], func(int) int { return gap })
				if at := uintptr(unsafe.Pointer(&slab[0])); at%64 != 0 {
					t.Fatalf("the slab is at %#x, not aligned to 64 bytes: the test controls no alignment", at)
				}
				k.roundTrip(t, slab, train)
			}
		}
	})
}

// Counters whose low half carries into the high half, and at the limits of a session. Whitepaper §6.1.
func TestCounters(t *testing.T) {
	const reject uint64 = wire.RejectAfterMessages
	starts := []uint64{0, 1<<31 - 9, 1<<32 - 9, 1<<32 - 1, 1 << 32, 1<<33 - 9, 1<<60 - 9, 1<<63 - 9, reject - 18, reject - 9, reject, 1<<64 - 18, 1<<64 - 9}
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		k := newCheckedKey(t, impl, testKey)
		for _, start := range starts {
			for _, n := range []int{16, 130, 1420}[:fullOrShort(3, 2)] {
				slab, train := newTrain(random(start), start, slices.Repeat([]int{n}, 18)...)
				k.roundTrip(t, slab, train)
			}
		}
		slab, train := newTrain(random(1), 0, slices.Repeat([]int{64}, 64)...)
		for i := range train {
			train[i].SetCounter(1 << i) // each bit by itself
		}
		k.roundTrip(t, slab, train)
	})
}

// A train of every number of packets, of the most frequent packet sizes.
func TestEveryTrain(t *testing.T) {
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		rng := random(13)
		k := newCheckedKey(t, impl, testKey)
		for n := 1; n <= 65; n += fullOrShort(1, 3) {
			for _, size := range []int{0, 96, 128, 1420}[:fullOrShort(4, 3)] {
				slab, train := newTrain(rng, uint64(n), slices.Repeat([]int{size}, n)...)
				k.roundTrip(t, slab, train)
			}
		}
	})
}

// Falling and rising lengths, and one long packet among short ones, with random drops, to find lanes that are mixed up.
func TestLanesIndependent(t *testing.T) {
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		rng := random(14)
		k := newCheckedKey(t, impl, testKey)
		for _, n := range []int{4, 8, 16, 17, 33} {
			var falling, rising, peak []int
			for i := range n {
				falling = append(falling, 64*(n-i)-i%3)
				rising = append(rising, 64*i+i%3)
				peak = append(peak, 40)
			}
			for i := range n {
				peak[(i+n-1)%n], peak[i] = 40, 1000
				for _, lengths := range [][]int{falling, rising, peak} {
					if short() && i%4 != 1 {
						continue
					}
					slab, train := newTrain(rng, 77, lengths...)
					for j := range train {
						if j != i && rng.IntN(2) == 0 {
							train[j].Drop = packet.DropNoPeer
						}
					}
					k.roundTrip(t, slab, train)
				}
			}
		}
	})
}

// The comparison itself must be able to fail: an implementation that errs in one byte, anywhere, is detected.
func TestComparisonFails(t *testing.T) {
	for _, place := range []string{"text", "tag", "after", "length", "drop"} {
		for _, opens := range []bool{false, true} {
			wrong := func(do func(k *Key, slab []byte, train []packet.Packet)) func(k *Key, slab []byte, train []packet.Packet) {
				return func(k *Key, slab []byte, train []packet.Packet) {
					do(k, slab, train)
					p := &train[len(train)/2]
					switch place {
					case "text":
						slab[p.Off+50] ^= 1
					case "tag":
						slab[p.Off+p.Len-1] ^= 1
					case "after":
						slab[p.Off+116] ^= 1
					case "length":
						p.Len++
					case "drop":
						p.Drop = packet.DropTag
					}
				}
			}
			impl := *portable
			if opens {
				impl.open = wrong(portable.open)
			} else {
				impl.seal = wrong(portable.seal)
			}
			spy := &failure{TB: t}
			func() {
				defer func() { recover() }()
				slab, train := gappedTrain(random(15), 3, []int{100, 100, 100}, func(int) int { return 5 })
				newCheckedKey(t, &impl, testKey).roundTrip(spy, slab, train)
			}()
			if spy.message == "" {
				t.Errorf("a wrong %s (when opening: %v) was not detected", place, opens)
			}
		}
	}
}

// A failure records the message of a failing test, and ends it with a panic.
type failure struct {
	testing.TB
	message string
}

func (f *failure) Fatalf(format string, args ...any) {
	f.message = fmt.Sprintf(format, args...)
	panic(f)
}
