package aead

import (
	"bytes"
	"encoding/binary"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"throughline/packet"
)

// Random messages never make a carry go through all limbs of Poly1305: that takes 44 or 64 ones in a row. But with the key
// one can construct a message that does: for one in four values of the accumulator there is a block that leads to it.

var (
	two128 = new(big.Int).Lsh(big.NewInt(1), 128)
	prime  = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 130), big.NewInt(5))
)

// extreme draws a value below p with long carries, for limbs of any width, or one that is close to 0 or p.
func extreme(rng *rand.Rand) *big.Int {
	x := new(big.Int)
	if rng.IntN(4) == 0 {
		x.SetInt64(rng.Int64N(13) - 6)
		return x.Mod(x, prime)
	}
	width := []uint{64, 44, 26, 32, 130}[rng.IntN(5)]
	for at := uint(0); at < 130; at += width {
		bits := min(width, 130-at)
		limb := new(big.Int)
		switch rng.IntN(4) {
		case 0:
			limb.SetInt64(rng.Int64N(3))
		case 1:
			limb.SetUint64(rng.Uint64())
			limb.Rsh(limb, 64-min(bits, 64))
		default:
			limb.Lsh(big.NewInt(1), bits)
			limb.Sub(limb, big.NewInt(1+rng.Int64N(2)))
		}
		x.Or(x, limb.Lsh(limb, at))
	}
	return x.Mod(x, prime)
}

// extremeSealed returns a ciphertext of n blocks that takes the accumulator from one extreme to the next, and its tag.
func extremeSealed(rng *rand.Rand, key []byte, counter uint64, n int) (sealed []byte) {
	otk := refBlock(key, transportNonce(counter), 0)
	r, s := refPolyKey(otk[:32])
	inverse := new(big.Int).ModInverse(r, prime)
	lengths := new(big.Int).Lsh(big.NewInt(int64(16*n)), 64)

	h := new(big.Int)
	for i := range n {
		block := new(big.Int)
		for range 100 {
			// (h + block + 2¹²⁸) r = next
			next := extreme(rng)
			if i == n-1 { // and the block of lengths leads from there to the extreme
				next.Mul(next, inverse).Sub(next, two128).Sub(next, lengths)
			}
			block.Mul(next, inverse).Sub(block, two128).Sub(block, h).Mod(block, prime)
			if block.Cmp(two128) < 0 {
				break
			}
			block.SetUint64(rng.Uint64())
		}
		h.Add(h, block).Add(h, two128).Mul(h, r).Mod(h, prime)
		sealed = append(sealed, little16(block)...)
	}
	h.Add(h, lengths).Add(h, two128).Mul(h, r).Mod(h, prime)
	return append(sealed, little16(h.Add(h, s))...)
}

func little16(x *big.Int) []byte {
	b := new(big.Int).Mod(x, two128).FillBytes(make([]byte, 16))
	slices.Reverse(b)
	return b
}

func TestExtremeSums(t *testing.T) {
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		rng := random(50)
		for round := range fullOrShort(400, 12) {
			var key [32]byte
			fill(rng, key[:])
			var slab, want []byte
			var train []packet.Packet
			for range []int{1, 3, 8, 17}[round%4] {
				counter := rng.Uint64()
				n := 1 + rng.IntN(20)
				if n == 20 {
					n = 40 + rng.IntN(60)
				}
				sealed := extremeSealed(rng, key[:], counter, n)
				if !bytes.Equal(sealed[16*n:], refTag(key[:], transportNonce(counter), nil, sealed[:16*n])) {
					t.Fatal("extremeSealed and the reference differ in the tag")
				}
				train = append(train, newPacket(len(slab), 16*n, counter))
				want = append(want, sealed...)
				slab = append(slab, refChacha(key[:], transportNonce(counter), sealed[:16*n])...)
				slab = append(slab, make([]byte, 16)...)
			}
			k := impl.NewKey(&key)
			k.Seal(slab, train)
			if !bytes.Equal(slab, want) {
				t.Fatalf("round %d: sealed %x, want %x", round, slab, want)
			}
			k.Open(slab, train)
			for i, p := range train {
				if p.Drop != 0 {
					t.Fatalf("round %d: packet %d of %d was refused", round, i, len(train))
				}
			}
		}
	})
}

// One block of the portable Poly1305, from any state and with any key.
func TestPolyBlock(t *testing.T) {
	rng := random(51)
	limb := func() uint64 {
		return []uint64{0, 1, 2, 1<<64 - 1, 1<<64 - 2, 1<<64 - 5, 1<<64 - 6, 1 << 63, rng.Uint64()}[rng.IntN(9)]
	}
	value := func(m *poly1305) *big.Int {
		x := new(big.Int).SetUint64(m.h2)
		x.Lsh(x, 64).Add(x, new(big.Int).SetUint64(m.h1))
		return x.Lsh(x, 64).Add(x, new(big.Int).SetUint64(m.h0))
	}
	for range fullOrShort(20000, 2000) {
		var key [32]byte
		for i := 0; i < 32; i += 8 {
			binary.LittleEndian.PutUint64(key[i:], limb())
		}
		if rng.IntN(3) == 0 {
			clear(key[:16])
			key[0] = byte(rng.IntN(4))
		}
		block := binary.LittleEndian.AppendUint64(nil, limb())
		block = binary.LittleEndian.AppendUint64(block, limb())
		var m poly1305
		m.init(&key)
		m.h0, m.h1, m.h2 = limb(), limb(), rng.Uint64N(5)
		before := m

		r, _ := refPolyKey(key[:])
		want := value(&m)
		want.Add(want, two128).Add(want, refLittle(block)).Mul(want, r).Mod(want, prime)
		m.blocks(block)
		if got := value(&m); got.Mod(got, prime).Cmp(want) != 0 || m.h2 > 4 {
			t.Fatalf("from %+v with %x: %x, want %x; h2 is %d", before, block, got, want, m.h2)
		}
	}
}
