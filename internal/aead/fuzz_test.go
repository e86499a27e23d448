package aead

import (
	"runtime"
	"slices"
	"testing"

	"throughline/packet"
)

// Each implementation is compared with the portable one, and that with the slow reference, over trains that the fuzzer
// draws: their texts, keys, counters, lengths and gaps, and which packets are dropped or forged.

func FuzzPortable(f *testing.F) {
	fuzzImplementation(f, portable, 4<<10, func(key [32]byte) sealer { return &reference{key} })
}

func FuzzXCrypto(f *testing.F) { fuzzAgainstPortable(f, "xcrypto") }
func FuzzAVX2(f *testing.F)    { fuzzAgainstPortable(f, "avx2") }
func FuzzAVX512(f *testing.F)  { fuzzAgainstPortable(f, "avx512") }

func fuzzAgainstPortable(f *testing.F, name string) {
	impl, err := Named(name)
	if err != nil {
		switch exists := slices.ContainsFunc(implementations, func(im *Implementation) bool { return im.name == name }); {
		case !exists:
			f.Skipf("there is no %s for %s", name, runtime.GOARCH)
		case cpuSupports[name]:
			f.Fatalf("the CPU supports %s, and yet: %v", name, err)
		default:
			f.Skipf("the CPU doesn't support %s", name)
		}
	}
	fuzzImplementation(f, impl, 48<<10, func(key [32]byte) sealer { return portable.NewKey(&key) })
}

// The third byte that the fuzzer draws for a packet: the size of the gap after it, and flags.
const (
	gapBits = 1<<5 - 1
	leap    = 1 << 5 // its counter isn't the previous packet's plus one
	dropped = 1 << 6
	forged  = 1 << 7
)

// fuzzImplementation draws trains of at most size bytes. Three bytes of shape make a packet: two are its length, one is as above.
func fuzzImplementation(f *testing.F, impl *Implementation, size int, reference func(key [32]byte) sealer) {
	text := []byte("a packet of some length, that is not a multiple of sixteen")
	f.Add(testKey[:], []byte{}, text, uint64(0))
	f.Add(testKey[:], []byte{0, 0, 0}, text, uint64(5))
	f.Add(testKey[:], []byte{58, 0, forged}, text, uint64(5))
	f.Add([]byte{}, []byte{128, 0, 0, 128, 0, 3, 128, 0, leap, 128, 0, dropped}, []byte{}, uint64(1<<32-2))
	f.Add([]byte{255}, []byte{0x8c, 5, 0, 0x8c, 5, 16, 7, 0, forged, 0x8c, 5, 0, 0, 8, 0}, []byte{255}, uint64(1<<64-3))
	f.Add(testKey[:], slices.Repeat([]byte{96, 0, 0}, 64), text, uint64(1<<40))
	f.Add(testKey[:], slices.Repeat([]byte{0x8c, 5, 17, 33, 0, 0}, 16), text, uint64(1<<40))
	f.Fuzz(func(t *testing.T, key, shape, text []byte, counter uint64) {
		var raw [32]byte
		copy(raw[:], key)
		k := checkedKey{impl.NewKey(&raw), reference(raw)}

		var slab []byte
		var train, datagrams []packet.Packet
		var flags []byte
		for ; len(shape) >= 3 && len(train) < 80; shape = shape[3:] {
			n := (int(shape[0]) + int(shape[1])<<8) % 2049
			if len(slab)+n > size {
				break
			}
			p := newPacket(len(slab), n, counter)
			counter++
			if shape[2]&leap != 0 {
				counter *= 0x9e3779b97f4a7c15
			}
			if shape[2]&dropped != 0 {
				p.Drop = packet.DropNoPeer
			}
			for i := range n + 16 + int(shape[2]&gapBits) {
				b := byte(i)
				if len(text) > 0 {
					b = text[(i+len(train))%len(text)]
				}
				slab = append(slab, b)
			}
			train, flags = append(train, p), append(flags, shape[2])
		}
		slab = slices.Clip(slab)

		// First as random datagrams: the text is taken for a ciphertext, with a tag or too short for one.
		datagrams = slices.Clone(train)
		for i := range datagrams {
			if flags[i]&forged == 0 {
				datagrams[i].Len += 16
			}
		}
		k.open(t, slices.Clone(slab), datagrams)

		k.seal(t, slab, train)
		var want []packet.Drop
		for i, p := range train {
			if flags[i]&forged != 0 && p.Drop == 0 {
				at := int(p.Counter()%8191) % p.Len
				slab[p.Off+at] ^= 1 << (flags[i] % 8)
				p.Drop = packet.DropTag
			}
			want = append(want, p.Drop)
		}
		k.open(t, slab, train)
		for i, p := range train {
			if p.Drop != want[i] {
				t.Errorf("packet %d of %d: drop %v, want %v", i, len(train), p.Drop, want[i])
			}
		}
	})
}
