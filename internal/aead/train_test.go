package aead

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/crypto/chacha20poly1305"

	"throughline/packet"
)

// How test trains are made, and compared with golang.org/x/crypto, every byte of the slab.

var testKey = [32]byte{1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0xfe, 31: 0x80}

// eachImplementation runs a test for every implementation that this machine can use.
func eachImplementation(t *testing.T, run func(t *testing.T, impl *Implementation)) {
	for _, impl := range Implementations() {
		t.Run(impl.String(), func(t *testing.T) { run(t, impl) })
	}
}

// raceEnabled is true under the race detector, which makes Go code some twenty times as slow.
var raceEnabled bool

// short reports whether the tests shall do little: under -short, as in an emulator, and under the race detector.
func short() bool { return testing.Short() || raceEnabled }

// fullOrShort returns full, or few if the tests shall do little: a number of repetitions, or a longest length.
func fullOrShort(full, few int) int {
	if short() {
		return few
	}
	return full
}

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func fill(rng *rand.Rand, b []byte) {
	for ; len(b) >= 8; b = b[8:] {
		binary.LittleEndian.PutUint64(b, rng.Uint64())
	}
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
}

func transportNonce(counter uint64) []byte {
	return binary.LittleEndian.AppendUint64(make([]byte, 4, 12), counter)
}

// newPacket describes n bytes at off, with their counter.
func newPacket(off, n int, counter uint64) packet.Packet {
	p := packet.Packet{Off: off, Len: n}
	p.SetCounter(counter)
	return p
}

// newTrain makes packets of the given lengths as a batch has them, with headroom, and tailroom for the tag, and random
// text; every other byte of the slab is 0xa5.
func newTrain(rng *rand.Rand, first uint64, lengths ...int) (slab []byte, train []packet.Packet) {
	for i, n := range lengths {
		slab = append(slab, bytes.Repeat([]byte{0xa5}, packet.Headroom)...)
		train = append(train, newPacket(len(slab), n, first+uint64(i)))
		slab = append(slab, make([]byte, n)...)
		fill(rng, slab[len(slab)-n:])
		slab = append(slab, bytes.Repeat([]byte{0xa5}, packet.Tailroom)...)
	}
	return slab, train
}

// gappedTrain makes packets with gaps of any size: the first one base bytes after a multiple of 64 in memory, each followed
// by room for its tag and then by gap(i) more bytes. The slab ends with the last gap, and has no capacity beyond.
// All bytes are random, also between the packets.
func gappedTrain(rng *rand.Rand, base int, lengths []int, gap func(i int) int) (slab []byte, train []packet.Packet) {
	end := base
	for i, n := range lengths {
		train = append(train, newPacket(end, n, uint64(i)))
		end += n + packet.Tailroom + gap(i)
	}
	slab = make([]byte, end+63)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(slab))) % 64)
	slab = slab[skip : skip+end : skip+end]
	fill(rng, slab)
	return slab, train
}

// A sealer seals and opens trains: a Key, or what one is compared with.
type sealer interface {
	Seal(slab []byte, train []packet.Packet)
	Open(slab []byte, train []packet.Packet)
}

// A library is golang.org/x/crypto, packet by packet, as a program without trains uses it. One goroutine at a time.
type library struct {
	cipher.AEAD
	nonce [chacha20poly1305.NonceSize]byte
}

func newLibrary(t testing.TB, key [32]byte) sealer {
	lib, err := chacha20poly1305.New(key[:])
	if err != nil {
		t.Fatal(err)
	}
	return &library{AEAD: lib}
}

func (l *library) Seal(slab []byte, train []packet.Packet) {
	for i := range train {
		if p := &train[i]; p.Drop == 0 {
			binary.LittleEndian.PutUint64(l.nonce[4:], p.Counter())
			text := slab[p.Off : p.Off+p.Len]
			l.AEAD.Seal(text[:0], l.nonce[:], text, nil)
			p.Len += 16
		}
	}
}

func (l *library) Open(slab []byte, train []packet.Packet) {
	for i := range train {
		p := &train[i]
		if p.Drop != 0 {
			continue
		}
		if p.Len < 16 {
			p.Drop = packet.DropTag
			continue
		}
		binary.LittleEndian.PutUint64(l.nonce[4:], p.Counter())
		sealed := slab[p.Off : p.Off+p.Len]
		if _, err := l.AEAD.Open(sealed[:0], l.nonce[:], sealed, nil); err != nil {
			clear(sealed[:p.Len-16])
			p.Drop = packet.DropTag
			continue
		}
		p.Len -= 16
	}
}

// A checkedKey is a Key and a reference: it does everything with both, and compares.
type checkedKey struct {
	*Key
	reference sealer
}

func newCheckedKey(t testing.TB, impl *Implementation, key [32]byte) checkedKey {
	return checkedKey{impl.NewKey(&key), newLibrary(t, key)}
}

// seal seals the train and compares slab and train with the reference's.
func (k checkedKey) seal(t testing.TB, slab []byte, train []packet.Packet) {
	t.Helper()
	want, wantTrain, before := bytes.Clone(slab), slices.Clone(train), slices.Clone(train)
	k.reference.Seal(want, wantTrain)
	k.Seal(slab, train)
	compare(t, "Seal", before, train, wantTrain, slab, want)
}

// open opens the train and compares slab and train with the reference's. A tag, and a packet that is shorter than one,
// may be left or cleared; anything else there could be the right tag, which a forger must not learn.
func (k checkedKey) open(t testing.TB, slab []byte, train []packet.Packet) {
	t.Helper()
	want, wantTrain, given, before := bytes.Clone(slab), slices.Clone(train), bytes.Clone(slab), slices.Clone(train)
	k.reference.Open(want, wantTrain)
	k.Open(slab, train)
	for i, p := range before {
		if p.Drop == 0 && p.Len > 0 {
			tag, end := p.Off+max(0, p.Len-16), p.Off+p.Len
			if got := slab[tag:end]; bytes.Equal(got, make([]byte, end-tag)) {
				clear(want[tag:end])
			} else if !bytes.Equal(got, given[tag:end]) {
				t.Fatalf("Open changed the tag of packet %d to %x, from %x", i, got, given[tag:end])
			}
		}
	}
	compare(t, "Open", before, train, wantTrain, slab, want)
}

// roundTrip seals a train and opens it again.
func (k checkedKey) roundTrip(t testing.TB, slab []byte, train []packet.Packet) {
	t.Helper()
	k.seal(t, slab, train)
	k.open(t, slab, train)
}

func compare(t testing.TB, what string, before, got, want []packet.Packet, slab, wantSlab []byte) {
	t.Helper()
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%s: packet %d of %d is %+v, want %+v", what, i, len(want), got[i], want[i])
		}
	}
	if bytes.Equal(slab, wantSlab) {
		return
	}
	at := 0
	for slab[at] == wantSlab[at] {
		at++
	}
	where := "outside the packets"
	for i, p := range before {
		if in := at - p.Off; p.Drop == 0 && in >= 0 && in < max(p.Len, want[i].Len) {
			where = fmt.Sprintf("byte %d of packet %d, which has %d", in, i, p.Len)
		}
	}
	t.Fatalf("%s of %d packets: slab[%d] is %#02x, want %#02x: %s", what, len(want), at, slab[at], wantSlab[at], where)
}
