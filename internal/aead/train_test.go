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

// How trains are laid, and compared with golang.org/x/crypto, every byte of the slab.

var testKey = [32]byte{1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0xfe, 31: 0x80}

// eachWay runs a test for every way that this machine can go.
func eachWay(t *testing.T, run func(t *testing.T, w *Way)) {
	for _, w := range Ways() {
		t.Run(w.String(), func(t *testing.T) { run(t, w) })
	}
}

// raced says that the race detector is on. It makes Go code some twenty times as slow.
var raced bool

// brief says that the tests shall do little: an emulator runs them, or the race detector does.
func brief() bool { return testing.Short() || raced }

// unlessBrief is how often something is repeated, or how long it may be.
func unlessBrief(most, few int) int {
	if brief() {
		return few
	}
	return most
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

// numbered describes n bytes at off, with their counter.
func numbered(off, n int, counter uint64) packet.Packet {
	p := packet.Packet{Off: off, Len: n}
	p.SetCounter(counter)
	return p
}

// layTrain lays packets of the given lengths as a batch does, headroom before and room for the tag behind, every other
// byte of the slab filled with 0xa5.
func layTrain(rng *rand.Rand, first uint64, lengths ...int) (slab []byte, train []packet.Packet) {
	for i, n := range lengths {
		slab = append(slab, bytes.Repeat([]byte{0xa5}, packet.Headroom)...)
		train = append(train, numbered(len(slab), n, first+uint64(i)))
		slab = append(slab, make([]byte, n)...)
		fill(rng, slab[len(slab)-n:])
		slab = append(slab, bytes.Repeat([]byte{0xa5}, packet.Tailroom)...)
	}
	return slab, train
}

// layout lays packets with gaps of any size: the first one base bytes behind a multiple of 64 in memory, each with room
// for its tag and then gap(i) more bytes behind it. The slab ends with the last gap, and has no capacity beyond.
// All is random, also between the packets.
func layout(rng *rand.Rand, base int, lengths []int, gap func(i int) int) (slab []byte, train []packet.Packet) {
	end := base
	for i, n := range lengths {
		train = append(train, numbered(end, n, uint64(i)))
		end += n + packet.Tailroom + gap(i)
	}
	slab = make([]byte, end+63)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(slab))) % 64)
	slab = slab[skip : skip+end : skip+end]
	fill(rng, slab)
	return slab, train
}

// A sealer is what can stand beside a way, to be compared with it.
type sealer interface {
	Seal(slab []byte, train []packet.Packet)
	Open(slab []byte, train []packet.Packet)
}

// A library is golang.org/x/crypto, packet by packet, as who has no trains would use it. One goroutine at a time.
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

// A twin is a Key and what stands beside it: it does all with both, and compares.
type twin struct {
	*Key
	beside sealer
}

func newTwin(t testing.TB, w *Way, key [32]byte) twin {
	return twin{w.NewKey(&key), newLibrary(t, key)}
}

// seal seals the train and compares all that it did with what it should have done.
func (w twin) seal(t testing.TB, slab []byte, train []packet.Packet) {
	t.Helper()
	want, wantTrain, before := bytes.Clone(slab), slices.Clone(train), slices.Clone(train)
	w.beside.Seal(want, wantTrain)
	w.Seal(slab, train)
	compare(t, "Seal", before, train, wantTrain, slab, want)
}

// open opens the train and compares all that it did with what it should have done. A tag, and a packet that is shorter
// than one, may be left or cleared; anything else there could be the tag that a forger looks for.
func (w twin) open(t testing.TB, slab []byte, train []packet.Packet) {
	t.Helper()
	want, wantTrain, given, before := bytes.Clone(slab), slices.Clone(train), bytes.Clone(slab), slices.Clone(train)
	w.beside.Open(want, wantTrain)
	w.Open(slab, train)
	for i, p := range before {
		if p.Drop == 0 && p.Len > 0 {
			tag, end := p.Off+max(0, p.Len-16), p.Off+p.Len
			if got := slab[tag:end]; bytes.Equal(got, make([]byte, end-tag)) {
				clear(want[tag:end])
			} else if !bytes.Equal(got, given[tag:end]) {
				t.Fatalf("Open made of the tag of packet %d %x, which was %x", i, got, given[tag:end])
			}
		}
	}
	compare(t, "Open", before, train, wantTrain, slab, want)
}

// round seals a train and opens it again.
func (w twin) round(t testing.TB, slab []byte, train []packet.Packet) {
	t.Helper()
	w.seal(t, slab, train)
	w.open(t, slab, train)
}

func compare(t testing.TB, what string, before, got, want []packet.Packet, slab, wantSlab []byte) {
	t.Helper()
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%s made of packet %d of %d %+v, want %+v", what, i, len(want), got[i], want[i])
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
