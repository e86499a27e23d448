package aead

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/big"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The portable ChaCha20 and Poly1305, and the slow reference's, by the vectors of RFC 8439 that no train can express.

const (
	zeros = "0000000000000000000000000000000000000000000000000000000000000000"
	one   = "0000000000000000000000000000000000000000000000000000000000000001"
)

// block returns a block of the portable ChaCha20's key stream, for any nonce.
func block(key, nonce []byte, counter uint32) []byte {
	var c chacha20
	c.init((*[32]byte)(key))
	c.seek(counter, binary.LittleEndian.Uint64(nonce[4:]))
	c.state[13] = binary.LittleEndian.Uint32(nonce)
	out := make([]byte, 64)
	c.blocks(out)
	return out
}

func TestBlockVectors(t *testing.T) {
	tests := []struct {
		name, key, nonce string
		counter          uint32
		want             string
	}{
		{"§2.3.2", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "000000090000004a00000000", 1,
			"10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4ed2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"},
		{"§A.1 #1", zeros, zeros[:24], 0,
			"76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"},
		{"§A.1 #2", zeros, zeros[:24], 1,
			"9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"},
		{"§A.1 #3", one, zeros[:24], 1,
			"3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0"},
		{"§A.1 #4", "00ff" + zeros[4:], zeros[:24], 2,
			"72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca13b25aa26cb4a648cb9b9d1be65b2c0924a66c54d545ec1b7374f4872e99f096"},
		{"§A.1 #5", zeros, zeros[:22] + "02", 0,
			"c2c64d378cd536374ae204b9ef933fcd1a8b2288b3dfa49672ab765b54ee27c78a970e0e955c14f3a88e741b97c286f75f8fc299e8148362fa198a39531bed6d"},
		// The one-time keys of Poly1305 are the first half of block 0.
		{"§2.6.2", "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f", "000000000001020304050607", 0,
			"8ad5a08b905f81cc815040274ab29471a833b637e3fd0da508dbb8e2fdd1a646"},
		{"§A.4 #1", zeros, zeros[:24], 0, "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"},
		{"§A.4 #2", one, zeros[:22] + "02", 0, "ecfa254f845f647473d3cb140da9e87606cb33066c447b87bc2666dde3fbb739"},
		{"§A.4 #3", "1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0", zeros[:22] + "02", 0,
			"965e3bc6f9ec7ed9560808f4d229f94b137ff275ca9b3fcbdd59deaad23310ae"},
	}
	for _, tt := range tests {
		key, nonce, want := unhex(t, tt.key), unhex(t, tt.nonce), unhex(t, tt.want)
		if got := block(key, nonce, tt.counter); !bytes.HasPrefix(got, want) {
			t.Errorf("%s: portable %x, want %x", tt.name, got, want)
		}
		if got := refBlock(key, nonce, tt.counter); !bytes.HasPrefix(got[:], want) {
			t.Errorf("%s: reference %x, want %x", tt.name, got, want)
		}
	}
}

func TestQuarterRound(t *testing.T) {
	a, b, c, d := quarterRound(0x11111111, 0x01020304, 0x9b8d6f43, 0x01234567)
	if a != 0xea2a92f4 || b != 0xcb1cf8ce || c != 0x4581472e || d != 0x5881c4bb {
		t.Errorf("RFC 8439 §2.1.1: %x %x %x %x", a, b, c, d)
	}
}

// xor gives the same whether it gets a text at once or block by block, and advances the block counter.
func TestXorResumes(t *testing.T) {
	for n := range 300 {
		var c, d chacha20
		c.init(&testKey)
		c.seek(1, 1<<40+1)
		d = c
		whole, parts := make([]byte, n), make([]byte, n)
		c.xor(whole)
		for part := range slices.Chunk(parts, 64) {
			d.xor(part)
		}
		if want := refChacha(testKey[:], transportNonce(1<<40+1), make([]byte, n)); !bytes.Equal(whole, want) || !bytes.Equal(parts, want) {
			t.Fatalf("%d bytes: at once %x, in blocks %x, want %x", n, whole, parts, want)
		}
		if want := uint32(1 + (n+63)/64); c.state[12] != want {
			t.Fatalf("%d bytes: the block counter is %d, want %d", n, c.state[12], want)
		}
	}
}

// poly is the portable Poly1305 of whole blocks, without a block of lengths.
func poly(key, msg []byte) []byte {
	var m poly1305
	m.init((*[32]byte)(key))
	m.blocks(msg[:len(msg)-16])
	// sum appends one more block, the lengths: here the last block of the message.
	tag := m.sum(binary.LittleEndian.Uint64(msg[len(msg)-16:]), binary.LittleEndian.Uint64(msg[len(msg)-8:]))
	return tag[:]
}

// The vectors of RFC 8439 §A.3 that test carries, and a few more for the same purpose. A key is r and then s.
func TestPolyVectors(t *testing.T) {
	ones := strings.Repeat("ff", 16)
	word := func(s string) string { return s + zeros[:32-len(s)] }
	r2, r4 := word("02")+zeros[:32], "01000000000000000400000000000000"+zeros[:32]
	tests := []struct{ name, key, msg, want string }{
		{"a key of zeros", zeros, strings.Repeat(zeros, 2), zeros[:32]},
		{"2¹³⁰-5 is subtracted in the end", r2, ones, word("03")},
		{"the sum with s overflows", word("02") + ones, word("02"), word("03")},
		{"a carry from the lowest limb", word("01") + zeros[:32], ones + "f0" + ones[2:] + word("11"), word("05")},
		{"a sum of exactly p", word("01") + zeros[:32], ones + "fb" + strings.Repeat("fe", 15) + strings.Repeat("01", 16), zeros[:32]},
		{"just below p", r2, "fd" + ones[2:], "fa" + ones[2:]},
		{"a carry through 2¹²⁸", r4, word("e33594d7505e43b9") + "33" + "94d7505e4379cd01" + zeros[:14] + word("") + word("01"), word("1400000000000000" + "55")},
		{"the same without its end", r4, word("e33594d7505e43b9") + "33" + "94d7505e4379cd01" + zeros[:14] + word(""), word("13")},
	}
	for _, tt := range tests {
		key, msg, want := unhex(t, tt.key), unhex(t, tt.msg), unhex(t, tt.want)
		if got := refPoly(key, msg); !bytes.Equal(got, want) {
			t.Errorf("%s: reference %x, want %x", tt.name, got, want)
		}
		if got := poly(key, msg); !bytes.Equal(got, want) {
			t.Errorf("%s: portable %x, want %x", tt.name, got, want)
		}
	}
	// §2.5.2 ends with a partial block, which only the reference can process.
	key := unhex(t, "85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b")
	if got := refPoly(key, []byte("Cryptographic Forum Research Group")); hex.EncodeToString(got) != "a8061dc1305136c6c22b8baf0c0127a9" {
		t.Errorf("§2.5.2: reference %x", got)
	}
}

// Keys and blocks with bytes at which limbs may overflow: nearly all ones, or nearly all zeros.
func TestPolyAgainstReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		extreme := rapid.OneOf(rapid.SampledFrom([]byte{0, 1, 2, 3, 4, 5, 0x7f, 0x80, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff}), rapid.Byte())
		key := rapid.SliceOfN(extreme, 32, 32).Draw(t, "key")
		var msg []byte
		for range rapid.IntRange(1, 20).Draw(t, "blocks") {
			if rapid.Bool().Draw(t, "repeat") {
				msg = append(msg, bytes.Repeat([]byte{extreme.Draw(t, "byte")}, 16)...)
			} else {
				msg = append(msg, rapid.SliceOfN(extreme, 16, 16).Draw(t, "block")...)
			}
		}
		if got, want := poly(key, msg), refPoly(key, msg); !bytes.Equal(got, want) {
			t.Fatalf("portable %x, want %x", got, want)
		}
	})
}

// The last reduction, for every h near a multiple of p. Messages that lead there can't be found.
func TestPolyLastReduction(t *testing.T) {
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 130), big.NewInt(5))
	limb := new(big.Int).SetUint64(1<<64 - 1)
	for _, multiple := range []int64{0, 1} {
		for d := int64(-40); d <= 40; d++ {
			h := new(big.Int).Add(new(big.Int).Mul(p, big.NewInt(multiple)), big.NewInt(d))
			if h.Sign() < 0 {
				continue
			}
			// With r = 1 the block of lengths, 2¹²⁸, is just added to h: so h begins lower by that.
			before := new(big.Int).Sub(h, new(big.Int).Lsh(big.NewInt(1), 128))
			if before.Sign() < 0 {
				before.Add(before, p)
			}
			m := poly1305{
				r0: 1,
				h0: new(big.Int).And(before, limb).Uint64(),
				h1: new(big.Int).And(new(big.Int).Rsh(before, 64), limb).Uint64(),
				h2: new(big.Int).Rsh(before, 128).Uint64(),
			}
			tag := m.sum(0, 0)
			want := new(big.Int).Mod(h, p)
			want.And(want, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 128), big.NewInt(1)))
			little := want.FillBytes(make([]byte, 16))
			slices.Reverse(little)
			if !bytes.Equal(tag[:], little) {
				t.Errorf("%d p %+d: tag %x, want %x", multiple, d, tag, little)
			}
		}
	}
}

// wipe leaves nothing of a train in the portable implementation's state.
func TestSecretsAreWiped(t *testing.T) {
	var s secrets
	s.cipher.init(&testKey)
	s.begin(1 << 50)
	s.cipher.xor(make([]byte, 100))
	s.mac.write(make([]byte, 100))
	s.mac.sum(0, 100)
	if s.cipher.last == [64]byte{} || s.mac.last == [16]byte{} || s.mac.h0 == 0 {
		t.Error("there is nothing to wipe: the test checks the wrong fields")
	}
	if s.wipe(); s != (secrets{}) {
		t.Errorf("left behind: %+v", s)
	}
}
