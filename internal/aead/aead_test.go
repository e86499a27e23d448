package aead

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"throughline/packet"
)

var testKey = [32]byte{1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0xfe, 31: 0x80}

func transportNonce(counter uint64) []byte {
	return binary.LittleEndian.AppendUint64(make([]byte, 4, 12), counter)
}

// layTrain lays packets of the given lengths as a batch does, headroom before and room for the tag behind, every other
// byte of the slab filled with 0xa5.
func layTrain(rng *rand.Rand, first uint64, lengths ...int) (slab []byte, train []packet.Packet) {
	for i, n := range lengths {
		slab = append(slab, bytes.Repeat([]byte{0xa5}, packet.Headroom)...)
		train = append(train, packet.Packet{Off: len(slab), Len: n, Counter: first + uint64(i)})
		for range n {
			slab = append(slab, byte(rng.Uint32()))
		}
		slab = append(slab, bytes.Repeat([]byte{0xa5}, packet.Tailroom)...)
	}
	return slab, train
}

// The train is compared with the slow reference: every byte of the slab, not only those of the packets.
func TestTrainAgainstReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lengths := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 70), rapid.IntRange(71, 1500)), 0, 6).Draw(t, "lengths")
		first := rapid.Uint64Max(1<<64-10).Draw(t, "first")
		dropped := rapid.SliceOfN(rapid.Bool(), len(lengths), len(lengths)).Draw(t, "dropped")
		seed := rapid.Uint64().Draw(t, "seed")
		var key [32]byte
		binary.LittleEndian.PutUint64(key[:], seed)

		slab, train := layTrain(rand.New(rand.NewPCG(seed, 1)), first, lengths...)
		plain, want := bytes.Clone(slab), bytes.Clone(slab)
		for i, p := range train {
			if dropped[i] {
				train[i].Drop = packet.DropNoPeer
				continue
			}
			copy(want[p.Off:], refSeal(key[:], transportNonce(p.Counter), nil, slab[p.Off:p.Off+p.Len]))
		}
		k := Best().NewKey(&key)
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
	})
}

// Two packets that touch, as a batch lays them for one sendmsg: the tag of the first must not reach the second.
func TestSealTouching(t *testing.T) {
	b := packet.New()
	b.Append(bytes.Repeat([]byte{1}, 48))
	b.Append(bytes.Repeat([]byte{2}, 48))
	for i := range b.Packets {
		b.Packets[i].Counter = uint64(i)
	}
	k := Best().NewKey(&testKey)
	k.Seal(b.Slab, b.Packets)
	k.Open(b.Slab, b.Packets)
	for i := range b.Packets {
		if got := b.Bytes(i); !bytes.Equal(got, bytes.Repeat([]byte{byte(i + 1)}, 48)) || b.Packets[i].Drop != 0 {
			t.Errorf("packet %d is %x, drop %v", i, got, b.Packets[i].Drop)
		}
	}
}

// Every single flipped bit of ciphertext and tag is found, costs that packet alone, and leaves nothing to read.
func TestOpenFlippedBit(t *testing.T) {
	const n = 37
	slab, train := layTrain(rand.New(rand.NewPCG(1, 2)), 7, n, n, n)
	plain := bytes.Clone(slab)
	k := Best().NewKey(&testKey)
	k.Seal(slab, train)
	sealed, sealedTrain := bytes.Clone(slab), slices.Clone(train)
	for bit := range (n + 16) * 8 {
		copy(slab, sealed)
		copy(train, sealedTrain)
		mid := &train[1]
		slab[mid.Off+bit/8] ^= 1 << (bit % 8)
		k.Open(slab, train)
		if mid.Drop != packet.DropTag || mid.Len != n+16 {
			t.Fatalf("bit %d: drop %v, len %d", bit, mid.Drop, mid.Len)
		}
		if !bytes.Equal(slab[mid.Off:mid.Off+n], make([]byte, n)) {
			t.Fatalf("bit %d: the packet is not cleared: %x", bit, slab[mid.Off:mid.Off+n])
		}
		for _, p := range []packet.Packet{train[0], train[2]} {
			if p.Drop != 0 || p.Len != n || !bytes.Equal(slab[p.Off:p.Off+n], plain[p.Off:p.Off+n]) {
				t.Fatalf("bit %d: a packet beside the forged one: %+v", bit, p)
			}
		}
	}
}

// leaky is a cipher that decrypts before it looks at the tag, as cipher.AEAD allows.
type leaky struct{ cipher.AEAD }

func (leaky) Open(dst, nonce, sealed, _ []byte) ([]byte, error) {
	copy(dst[:len(sealed)], chacha(testKey[:], nonce, sealed[:len(sealed)-16]))
	return nil, errors.New("wrong tag")
}

func TestOpenClears(t *testing.T) {
	k := &Key{way: xcrypto, lib: leaky{Best().NewKey(&testKey).lib}}
	slab, train := layTrain(rand.New(rand.NewPCG(1, 9)), 0, 100)
	k.Seal(slab, train)
	k.Open(slab, train)
	if p := train[0]; p.Drop != packet.DropTag || !bytes.Equal(slab[p.Off:p.Off+100], make([]byte, 100)) {
		t.Errorf("drop %v, and in the slab %x", p.Drop, slab[p.Off:p.Off+100])
	}
}

func TestOpenRefuses(t *testing.T) {
	k := Best().NewKey(&testKey)
	tests := []struct {
		name  string
		spoil func(slab []byte, p *packet.Packet)
	}{
		{"another counter", func(_ []byte, p *packet.Packet) { p.Counter++ }},
		{"a counter that differs in its top bit", func(_ []byte, p *packet.Packet) { p.Counter ^= 1 << 63 }},
		{"one byte short", func(_ []byte, p *packet.Packet) { p.Len-- }},
		{"one byte long", func(_ []byte, p *packet.Packet) { p.Len++ }},
		{"begins a byte late", func(_ []byte, p *packet.Packet) { p.Off++ }},
		{"only half a tag", func(_ []byte, p *packet.Packet) { p.Len = 8 }},
		{"one byte less than a tag", func(_ []byte, p *packet.Packet) { p.Len = 15 }},
		{"empty", func(_ []byte, p *packet.Packet) { p.Len = 0 }},
		{"zeros", func(slab []byte, p *packet.Packet) { clear(slab[p.Off : p.Off+p.Len]) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			slab, train := layTrain(rand.New(rand.NewPCG(1, 3)), 99, 64, 0)
			k.Seal(slab, train)
			p := &train[0]
			tt.spoil(slab, p)
			n := p.Len
			k.Open(slab, train[:1])
			if p.Drop != packet.DropTag || p.Len != n {
				t.Errorf("drop %v, len %d; want %v, %d", p.Drop, p.Len, packet.DropTag, n)
			}
		})
	}
	t.Run("another key", func(t *testing.T) {
		slab, train := layTrain(rand.New(rand.NewPCG(1, 3)), 99, 64)
		k.Seal(slab, train)
		other := testKey
		other[31] ^= 1
		Best().NewKey(&other).Open(slab, train)
		if train[0].Drop != packet.DropTag {
			t.Error("opened with the wrong key")
		}
	})
}

// A keepalive is a tag and nothing else. Whitepaper §6.5.
func TestEmptyPacket(t *testing.T) {
	k := Best().NewKey(&testKey)
	slab, train := layTrain(rand.New(rand.NewPCG(1, 4)), 0, 0)
	k.Seal(slab, train)
	if train[0].Len != 16 {
		t.Fatalf("a sealed keepalive has %d bytes, want 16", train[0].Len)
	}
	k.Open(slab, train)
	if train[0].Len != 0 || train[0].Drop != 0 {
		t.Errorf("an opened keepalive is %+v", train[0])
	}
	k.Seal(nil, nil)
	k.Open(nil, nil)
}

// NewKey copies: the caller wipes its own.
func TestNewKeyCopies(t *testing.T) {
	key := testKey
	k := Best().NewKey(&key)
	clear(key[:])
	slab, train := layTrain(rand.New(rand.NewPCG(1, 5)), 3, 20)
	k.Seal(slab, train)
	Best().NewKey(&testKey).Open(slab, train)
	if train[0].Drop != 0 {
		t.Error("the key changed with the caller's copy")
	}
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
		t.Errorf("%q doesn't say that it hides", s)
	}
}

// Both lanes' workers use one key at once, on disjoint packets of one slab and of several.
func TestConcurrent(t *testing.T) {
	k := Best().NewKey(&testKey)
	const workers, rounds, each = 4, 30, 8
	lengths := slices.Repeat([]int{200}, workers*each)
	slab, train := layTrain(rand.New(rand.NewPCG(1, 6)), 0, lengths...)
	plain := bytes.Clone(slab)
	var wg sync.WaitGroup
	for w := range workers {
		mine := train[w*each : (w+1)*each]
		wg.Go(func() {
			for range rounds {
				k.Seal(slab, mine)
				k.Open(slab, mine)
			}
		})
	}
	wg.Wait()
	for i, p := range train {
		if p.Drop != 0 || p.Len != 200 || !bytes.Equal(slab[p.Off:p.Off+p.Len], plain[p.Off:p.Off+p.Len]) {
			t.Fatalf("packet %d came back changed: %+v", i, p)
		}
	}
}

// FuzzOpen opens what a stranger sends and compares with the reference.
func FuzzOpen(f *testing.F) {
	nonce := transportNonce(5)
	f.Add(refSeal(testKey[:], nonce, nil, []byte("a packet")), uint64(5))
	f.Add(refSeal(testKey[:], nonce, nil, nil), uint64(5))
	f.Add([]byte("short"), uint64(0))
	k := Best().NewKey(&testKey)
	f.Fuzz(func(t *testing.T, datagram []byte, counter uint64) {
		want, ok := refOpen(testKey[:], transportNonce(counter), nil, datagram)
		slab := bytes.Clone(datagram)
		train := []packet.Packet{{Len: len(slab), Counter: counter}}
		k.Open(slab, train)
		if p := train[0]; ok != (p.Drop == 0) {
			t.Fatalf("drop %v, but the reference says %v", p.Drop, ok)
		} else if ok && !bytes.Equal(slab[:p.Len], want) {
			t.Fatalf("opened %x, want %x", slab[:p.Len], want)
		}
	})
}
