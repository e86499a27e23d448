package noise

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/bits"
	"testing"

	"golang.org/x/crypto/blake2s"
)

// slowBLAKE2s is RFC 7693 §3 to the letter.
func slowBLAKE2s(size int, key, data []byte) []byte {
	iv := [8]uint32{0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19}
	sigma := [10][16]int{
		{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
		{14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
		{11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
		{7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
		{9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
		{2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
		{12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
		{13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
		{6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
		{10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
	}
	h := iv
	h[0] ^= 0x01010000 ^ uint32(len(key))<<8 ^ uint32(size)
	total := uint64(len(data))
	if len(key) > 0 {
		data = append(append(append([]byte{}, key...), make([]byte, 64-len(key))...), data...)
		total += 64
	}
	for done := uint64(0); ; {
		var block [64]byte
		n := copy(block[:], data)
		data = data[n:]
		done += uint64(n)
		last := done == total
		var m [16]uint32
		for i := range m {
			m[i] = uint32(block[4*i]) | uint32(block[4*i+1])<<8 | uint32(block[4*i+2])<<16 | uint32(block[4*i+3])<<24
		}
		var v [16]uint32
		copy(v[:8], h[:])
		copy(v[8:], iv[:])
		v[12] ^= uint32(done)
		v[13] ^= uint32(done >> 32)
		if last {
			v[14] = ^v[14]
		}
		for _, s := range sigma {
			for i, g := range [8][4]int{{0, 4, 8, 12}, {1, 5, 9, 13}, {2, 6, 10, 14}, {3, 7, 11, 15},
				{0, 5, 10, 15}, {1, 6, 11, 12}, {2, 7, 8, 13}, {3, 4, 9, 14}} {
				a, b, c, d := g[0], g[1], g[2], g[3]
				v[a] += v[b] + m[s[2*i]]
				v[d] = bits.RotateLeft32(v[d]^v[a], -16)
				v[c] += v[d]
				v[b] = bits.RotateLeft32(v[b]^v[c], -12)
				v[a] += v[b] + m[s[2*i+1]]
				v[d] = bits.RotateLeft32(v[d]^v[a], -8)
				v[c] += v[d]
				v[b] = bits.RotateLeft32(v[b]^v[c], -7)
			}
		}
		for i := range h {
			h[i] ^= v[i] ^ v[i+8]
		}
		if last {
			break
		}
	}
	var out []byte
	for _, w := range h {
		out = append(out, byte(w), byte(w>>8), byte(w>>16), byte(w>>24))
	}
	return out[:size]
}

// RFC 7693: appendix B for BLAKE2s, and the self-test of appendix E, which proves the slow BLAKE2s, keyed and unkeyed,
// at every size; then the fast one against the slow one at the sizes and lengths WireGuard uses.
func TestRFC7693(t *testing.T) {
	const abc = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"
	if sum := blake2s.Sum256([]byte("abc")); hex.EncodeToString(sum[:]) != abc {
		t.Errorf("BLAKE2s(abc) = %x", sum)
	}
	sequence := func(n int, seed uint32) []byte {
		out := make([]byte, n)
		a, b := 0xDEAD4BAD*seed, uint32(1)
		for i := range out {
			a, b = b, a+b
			out[i] = byte(b >> 24)
		}
		return out
	}
	var all []byte
	for _, size := range []int{16, 20, 28, 32} {
		for _, n := range []int{0, 3, 64, 65, 255, 1024} {
			in := sequence(n, uint32(n))
			all = append(all, slowBLAKE2s(size, nil, in)...)
			all = append(all, slowBLAKE2s(size, sequence(size, uint32(size)), in)...)
		}
	}
	if got := hex.EncodeToString(slowBLAKE2s(32, nil, all)); got != "6a411f08ce25adcdfb02aba641451cec53c598b24f4fc787fbdc88797f4c1dfe" {
		t.Fatalf("the self-test of RFC 7693 yields %s", got)
	}

	key := randomBytes(1, 32)
	for n := range 300 {
		in := randomBytes(2, n)
		if sum := blake2s.Sum256(in); !bytes.Equal(sum[:], slowBLAKE2s(32, nil, in)) {
			t.Errorf("HASH of %d bytes differs", n)
		}
		for _, k := range []int{16, 32} { // §5.4.4: mac1 has a key of 32 bytes, mac2 one of 16
			h, err := blake2s.New128(key[:k])
			if err != nil {
				t.Fatal(err)
			}
			h.Write(in)
			if !bytes.Equal(h.Sum(nil), slowBLAKE2s(16, key[:k], in)) {
				t.Errorf("MAC of %d bytes under a key of %d differs", n, k)
			}
		}
	}
}

// HMAC and HKDF against formulas over the slow BLAKE2s, and against the standard library's HMAC.
func TestKDF(t *testing.T) {
	slowHMAC := func(key, in []byte) []byte {
		k := append(append([]byte{}, key...), make([]byte, 64-len(key))...)
		inner, outer := make([]byte, 64), make([]byte, 64)
		for i := range k {
			inner[i], outer[i] = k[i]^0x36, k[i]^0x5c
		}
		return slowBLAKE2s(32, nil, append(outer, slowBLAKE2s(32, nil, append(inner, in...))...))
	}
	for n := range 34 {
		key, in := [32]byte(randomBytes(byte(n), 32)), randomBytes(byte(n+100), n)
		var got [32]byte
		hmac(&got, &key, in)
		if want := slowHMAC(key[:], in); !bytes.Equal(got[:], want) || !bytes.Equal(want, paperHMAC(key[:], in)) {
			t.Errorf("HMAC of %d bytes = %x, want %x", n, got, want)
		}
		if n > 32 {
			continue
		}
		t0 := slowHMAC(key[:], in)
		t1 := slowHMAC(t0, []byte{1})
		t2 := slowHMAC(t0, append(bytes.Clone(t1), 2))
		t3 := slowHMAC(t0, append(bytes.Clone(t2), 3))
		for outputs := 1; outputs <= 3; outputs++ {
			var out [3][32]byte
			kdf(&key, in, []*[32]byte{&out[0], &out[1], &out[2]}[:outputs]...)
			for i, want := range [][]byte{t1, t2, t3}[:outputs] {
				if !bytes.Equal(out[i][:], want) {
					t.Errorf("output %d of KDF%d of %d bytes = %x, want %x", i+1, outputs, n, out[i], want)
				}
			}
		}
		aliased, second := key, [32]byte{}
		kdf(&aliased, in, &aliased, &second)
		if !bytes.Equal(aliased[:], t1) || !bytes.Equal(second[:], t2) {
			t.Errorf("KDF2 of %d bytes onto its own key differs", n)
		}
	}
}

// The AEAD as the handshake uses it, the counter zero: RFC 8439 §2.8.2's construction against a plain call.
func TestSealOpen(t *testing.T) {
	for n := range 70 {
		var s, o symmetric
		copy(s.h[:], randomBytes(1, 32))
		o.h = s.h
		key, plain := [32]byte(randomBytes(2, 32)), randomBytes(3, n)
		want := paperSeal(key[:], plain, s.h[:])
		sealed := make([]byte, n+16)
		if err := s.seal(sealed, &key, plain); err != nil || !bytes.Equal(sealed, want) {
			t.Fatalf("seal of %d bytes = %x, %v, want %x", n, sealed, err, want)
		}
		before, opened := o, make([]byte, n)
		sealed[n] ^= 1
		if err := o.open(opened, &key, sealed); !errors.Is(err, errAuth) || o != before || !bytes.Equal(opened, make([]byte, n)) {
			t.Fatalf("open of a forgery: %v, opened %x", err, opened)
		}
		sealed[n] ^= 1
		if err := o.open(opened, &key, sealed); err != nil || !bytes.Equal(opened, plain) || o != s {
			t.Fatalf("open of %d bytes: %v", n, err)
		}
	}
}
