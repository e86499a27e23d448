package aead

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"throughline/packet"
)

// What every implementation guarantees for each packet.

// The train is compared with the slow reference: every byte of the slab, not only those of the packets.
func TestTrainAgainstReference(t *testing.T) {
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		rapid.Check(t, func(t *rapid.T) { againstReference(t, impl) })
	})
}

func againstReference(t *rapid.T, impl *Implementation) {
	longest := fullOrShort(1500, 200)
	lengths := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 70), rapid.IntRange(71, longest)), 0, 6).Draw(t, "lengths")
	first := rapid.Uint64Max(1<<64-10).Draw(t, "first")
	dropped := rapid.SliceOfN(rapid.Bool(), len(lengths), len(lengths)).Draw(t, "dropped")
	seed := rapid.Uint64().Draw(t, "seed")
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)

	slab, train := newTrain(random(seed), first, lengths...)
	plain, want := bytes.Clone(slab), bytes.Clone(slab)
	for i, p := range train {
		if dropped[i] {
			train[i].Drop = packet.DropNoPeer
			continue
		}
		copy(want[p.Off:], refSeal(key[:], transportNonce(p.Counter()), nil, slab[p.Off:p.Off+p.Len]))
	}
	k := impl.NewKey(&key)
	k.Seal(slab, train)
	if !bytes.Equal(slab, want) {
		t.Fatalf("sealed slab differs from the reference's")
	}
	for i, p := range train {
		if grown := p.Len - lengths[i]; grown != 16 && !dropped[i] || grown != 0 && dropped[i] {
			t.Fatalf("packet %d grew by %d", i, grown)
		}
	}
	k.Open(slab, train)
	for i, p := range train {
		if p.Len != lengths[i] {
			t.Fatalf("packet %d has %d bytes after Open, want %d", i, p.Len, lengths[i])
		}
		if wantDrop := map[bool]packet.Drop{true: packet.DropNoPeer}[dropped[i]]; p.Drop != wantDrop {
			t.Fatalf("packet %d: drop %v, want %v", i, p.Drop, wantDrop)
		}
		if !bytes.Equal(slab[p.Off:p.Off+p.Len], plain[p.Off:p.Off+p.Len]) {
			t.Fatalf("packet %d came back changed", i)
		}
	}
}

// Adjacent packets, as a batch has them for one sendmsg: the tag of the first must not reach the second.
func TestSealAdjacent(t *testing.T) {
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		b := packet.New()
		b.Append(bytes.Repeat([]byte{1}, 48))
		b.Append(bytes.Repeat([]byte{2}, 48))
		for i := range b.Packets {
			b.Packets[i].SetCounter(uint64(i))
		}
		newCheckedKey(t, impl, testKey).roundTrip(t, b.Slab, b.Packets)
		for i := range b.Packets {
			if got := b.Bytes(i); !bytes.Equal(got, bytes.Repeat([]byte{byte(i + 1)}, 48)) || b.Packets[i].Drop != 0 {
				t.Errorf("packet %d is %x, drop %v", i, got, b.Packets[i].Drop)
			}
		}
	})
}

// Every flipped bit of ciphertext and tag is detected, drops that packet alone, and leaves nothing to read.
func TestOpenFlippedBit(t *testing.T) {
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		const n = 37
		slab, train := newTrain(random(2), 7, n, n, n)
		k := newCheckedKey(t, impl, testKey)
		k.seal(t, slab, train)
		sealed, sealedTrain := bytes.Clone(slab), slices.Clone(train)
		for bit := 0; bit < (n+16)*8; bit += fullOrShort(1, 5) {
			copy(slab, sealed)
			copy(train, sealedTrain)
			mid := &train[1]
			slab[mid.Off+bit/8] ^= 1 << (bit % 8)
			k.open(t, slab, train)
			if mid.Drop != packet.DropTag || mid.Len != n+16 {
				t.Fatalf("bit %d: drop %v, len %d", bit, mid.Drop, mid.Len)
			}
			if !bytes.Equal(slab[mid.Off:mid.Off+n], make([]byte, n)) {
				t.Fatalf("bit %d: the packet is not cleared: %x", bit, slab[mid.Off:mid.Off+n])
			}
			if train[0].Drop != 0 || train[2].Drop != 0 {
				t.Fatalf("bit %d: packets beside the forged one: %+v, %+v", bit, train[0], train[2])
			}
		}
	})
}

// A flipped bit anywhere in any packet of a long and mixed train: exactly that packet is refused.
func TestOpenFlippedBitInLongTrain(t *testing.T) {
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		rng := random(3)
		lengths := []int{0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 192, 255, 256, 257, 511, 512, 1023, 1420, 1504}
		rng.Shuffle(len(lengths), func(i, j int) { lengths[i], lengths[j] = lengths[j], lengths[i] })
		slab, train := newTrain(rng, 1<<33, lengths...)
		k := newCheckedKey(t, impl, testKey)
		k.seal(t, slab, train)
		sealed, sealedTrain := bytes.Clone(slab), slices.Clone(train)
		for i := range sealedTrain {
			p := sealedTrain[i]
			at := []int{0, p.Len - 16, p.Len - 9, p.Len - 8, p.Len - 1}
			for range fullOrShort(30, 0) {
				at = append(at, rng.IntN(p.Len))
			}
			if short() {
				at = at[i%len(at):][:1]
			}
			for _, at := range at {
				copy(slab, sealed)
				copy(train, sealedTrain)
				slab[p.Off+at] ^= 1 << rng.IntN(8)
				k.open(t, slab, train)
				for j, q := range train {
					if (q.Drop != 0) != (i == j) {
						t.Fatalf("byte %d of packet %d is wrong; packet %d has drop %v", at, i, j, q.Drop)
					}
				}
			}
		}
	})
}

// leaky is a cipher that decrypts before it checks the tag, as cipher.AEAD allows.
type leaky struct{ cipher.AEAD }

func (leaky) Open(dst, nonce, sealed, _ []byte) ([]byte, error) {
	copy(dst[:len(sealed)], refChacha(testKey[:], nonce, sealed[:len(sealed)-16]))
	return nil, errors.New("wrong tag")
}

func TestOpenClears(t *testing.T) {
	k := xcrypto.NewKey(&testKey)
	k.lib.made.Store(new(cipher.AEAD(leaky{k.library()})))
	slab, train := newTrain(random(9), 0, 100)
	k.Seal(slab, train)
	k.Open(slab, train)
	if p := train[0]; p.Drop != packet.DropTag || !bytes.Equal(slab[p.Off:p.Off+100], make([]byte, 100)) {
		t.Errorf("drop %v, and in the slab %x", p.Drop, slab[p.Off:p.Off+100])
	}
}

func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(slab []byte, p *packet.Packet)
	}{
		{"another counter", func(_ []byte, p *packet.Packet) { p.SetCounter(p.Counter() + 1) }},
		{"a counter that differs in bit 31", func(_ []byte, p *packet.Packet) { p.SetCounter(p.Counter() ^ 1<<31) }},
		{"a counter that differs in bit 32", func(_ []byte, p *packet.Packet) { p.SetCounter(p.Counter() ^ 1<<32) }},
		{"a counter that differs in its top bit", func(_ []byte, p *packet.Packet) { p.SetCounter(p.Counter() ^ 1<<63) }},
		{"one byte short", func(_ []byte, p *packet.Packet) { p.Len-- }},
		{"one byte long", func(_ []byte, p *packet.Packet) { p.Len++ }},
		{"begins a byte late", func(_ []byte, p *packet.Packet) { p.Off++ }},
		{"only half a tag", func(_ []byte, p *packet.Packet) { p.Len = 8 }},
		{"one byte less than a tag", func(_ []byte, p *packet.Packet) { p.Len = 15 }},
		{"only a tag", func(_ []byte, p *packet.Packet) { p.Len = 16 }},
		{"empty", func(_ []byte, p *packet.Packet) { p.Len = 0 }},
		{"zeros", func(slab []byte, p *packet.Packet) { clear(slab[p.Off : p.Off+p.Len]) }},
	}
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		k := newCheckedKey(t, impl, testKey)
		for _, tt := range tests {
			for _, n := range []int{1, 3, 9, 20} { // the changed packet alone, and among others
				slab, train := newTrain(random(3), 99, append(slices.Repeat([]int{64}, n), 0)...)
				train = train[:n] // the last one makes room for the others to be too long
				k.seal(t, slab, train)
				p := &train[n/2]
				tt.change(slab, p)
				length := p.Len
				k.open(t, slab, train)
				if p.Drop != packet.DropTag || p.Len != length {
					t.Errorf("%s, of %d: drop %v, len %d; want %v, %d", tt.name, n, p.Drop, p.Len, packet.DropTag, length)
				}
			}
		}
		slab, train := newTrain(random(3), 99, 64)
		k.seal(t, slab, train)
		other := testKey
		other[31] ^= 1
		newCheckedKey(t, impl, other).open(t, slab, train)
		if train[0].Drop != packet.DropTag {
			t.Error("opened with the wrong key")
		}
	})
}

// A packet that is too short for a tag is refused wherever it is in the train, and its neighbours aren't.
func TestOpenTooShort(t *testing.T) {
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		k := newCheckedKey(t, impl, testKey)
		for short := range 16 {
			slab, train := newTrain(random(4), 5, 100, 40, 0, 300, 40, 16)
			k.seal(t, slab, train)
			for _, i := range []int{0, 3, 5} {
				train[i].Len = short
			}
			k.open(t, slab, train)
			for i, p := range train {
				if want := i == 0 || i == 3 || i == 5; (p.Drop == packet.DropTag) != want {
					t.Fatalf("%d bytes: packet %d has drop %v", short, i, p.Drop)
				}
			}
		}
	})
}

// Packets that are dropped already aren't touched, whatever Off and Len they have.
func TestDroppedUntouched(t *testing.T) {
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		k := newCheckedKey(t, impl, testKey)
		for _, which := range []uint{0b1, 0b10, 0b1000_0001, 0b1010_1010, 0b1111_1110, 0b1111_1111} {
			slab, train := newTrain(random(5), 1<<40, 100, 0, 1420, 64, 7, 128, 128, 600)
			for i := range train {
				if which>>i&1 == 1 {
					train[i].Drop = packet.DropNoPeer
					if i%2 == 1 {
						train[i].Off, train[i].Len = len(slab)+1000*i, -i
					}
				}
			}
			k.roundTrip(t, slab, train)
		}
	})
}

// A packet outside the slab is a bug of ours. It must not become a write somewhere else.
func TestOutsideTheSlab(t *testing.T) {
	tests := []struct {
		name string
		p    packet.Packet
	}{
		{"no room for a tag", packet.Packet{Off: 1900, Len: 100}},
		{"no room for a byte of the tag", packet.Packet{Off: 1900, Len: 85}},
		{"its end", packet.Packet{Off: 1950, Len: 64}},
		{"all of it", packet.Packet{Off: 2048, Len: 64}},
		{"far away", packet.Packet{Off: math.MaxInt - 1000, Len: 64}},
		{"before it", packet.Packet{Off: -1, Len: 64}},
		{"a negative length", packet.Packet{Off: 100, Len: -17}},
		{"an end that overflows", packet.Packet{Off: 100, Len: math.MaxInt - 50}},
		{"a beginning that overflows", packet.Packet{Off: math.MaxInt - 8, Len: 64}},
	}
	const size = 2000
	panics := func(f func()) (did bool) {
		defer func() { did = recover() != nil }()
		f()
		return
	}
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		k := impl.NewKey(&testKey)
		for _, tt := range tests {
			for _, n := range []int{1, 2, 8} {
				around := bytes.Repeat([]byte{0xa5}, 3*size)
				slab := around[size : 2*size : 2*size]
				train := make([]packet.Packet, n)
				for i := range train {
					train[i] = packet.Packet{Off: 200 * i, Len: 100}
				}
				p := &train[n-1]
				*p = tt.p
				if !panics(func() { k.Seal(slab, train) }) {
					t.Errorf("%s: Seal of %d accepted it", tt.name, n)
				}
				for i := range train {
					train[i] = packet.Packet{Off: 200 * i, Len: 100}
				}
				*p = tt.p
				p.Len += 16
				if !panics(func() { k.Open(slab, train) }) && p.Drop == 0 {
					t.Errorf("%s: Open of %d accepted it", tt.name, n)
				}
				if bytes.Count(around[:size], []byte{0xa5}) != size || bytes.Count(around[2*size:], []byte{0xa5}) != size {
					t.Fatalf("%s: wrote outside the slab", tt.name)
				}
			}
		}
	})
}

// A keepalive is a tag and nothing else. Whitepaper §6.5.
func TestEmptyPacket(t *testing.T) {
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		k := newCheckedKey(t, impl, testKey)
		slab, train := newTrain(random(4), 0, 0)
		k.seal(t, slab, train)
		if train[0].Len != 16 {
			t.Fatalf("a sealed keepalive has %d bytes, want 16", train[0].Len)
		}
		k.open(t, slab, train)
		if train[0].Len != 0 || train[0].Drop != 0 {
			t.Errorf("an opened keepalive is %+v", train[0])
		}
		k.Seal(nil, nil)
		k.Open(nil, nil)
	})
}

// NewKey copies the key: the caller wipes its own.
func TestNewKeyCopies(t *testing.T) {
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		key := testKey
		k := newCheckedKey(t, impl, key)
		k.Key = impl.NewKey(&key)
		clear(key[:])
		slab, train := newTrain(random(5), 3, 20, 1420, 64, 64, 64, 64, 64, 64, 64, 64)
		k.roundTrip(t, slab, train)
	})
}

func TestKeyIsHidden(t *testing.T) {
	k := Best().NewKey(&testKey)
	j, err := json.Marshal(map[string]any{"key": k})
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	slog.New(slog.NewTextHandler(&logged, nil)).Info("key", "k", k)
	s := fmt.Sprintf("%v %+v %#v %s %x %d %v %s %s", k, k, k, k, k, k, *k, j, &logged)
	for _, leak := range []string{"01020304", "1 2 3 4", "0x1, 0x2", "1,2,3,4"} {
		if strings.Contains(s, leak) {
			t.Errorf("%q shows the key", s)
		}
	}
	if !strings.HasPrefix(s, "(hidden)") {
		t.Errorf("%q doesn't begin with (hidden)", s)
	}
}
