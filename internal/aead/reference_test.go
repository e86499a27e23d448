package aead

import (
	"crypto/subtle"
	"encoding/binary"
	"math/big"
	"math/bits"
	"slices"
)

// The slow reference: RFC 8439 word for word, with big numbers for Poly1305. It shares no code with what it checks.

// chachaBlock is the ChaCha20 block function. RFC 8439 §2.3.
func chachaBlock(key, nonce []byte, counter uint32) (out [64]byte) {
	s := [16]uint32{0: 0x61707865, 1: 0x3320646e, 2: 0x79622d32, 3: 0x6b206574, 12: counter}
	for i := range 8 {
		s[4+i] = binary.LittleEndian.Uint32(key[4*i:])
	}
	for i := range 3 {
		s[13+i] = binary.LittleEndian.Uint32(nonce[4*i:])
	}
	w := s
	quarter := func(a, b, c, d int) {
		w[a] += w[b]
		w[d] = bits.RotateLeft32(w[d]^w[a], 16)
		w[c] += w[d]
		w[b] = bits.RotateLeft32(w[b]^w[c], 12)
		w[a] += w[b]
		w[d] = bits.RotateLeft32(w[d]^w[a], 8)
		w[c] += w[d]
		w[b] = bits.RotateLeft32(w[b]^w[c], 7)
	}
	for range 10 {
		for i := range 4 {
			quarter(i, 4+i, 8+i, 12+i)
		}
		for i := range 4 {
			quarter(i, 4+(i+1)%4, 8+(i+2)%4, 12+(i+3)%4)
		}
	}
	for i := range w {
		binary.LittleEndian.PutUint32(out[4*i:], w[i]+s[i])
	}
	return out
}

// chacha returns text under the key stream that begins with block 1. RFC 8439 §2.4.
func chacha(key, nonce, text []byte) []byte {
	out := slices.Clone(text)
	for i := 0; i < len(out); i += 64 {
		block := chachaBlock(key, nonce, uint32(1+i/64))
		subtle.XORBytes(out[i:], out[i:], block[:])
	}
	return out
}

// poly1305 is the one-time authenticator. RFC 8439 §2.5.
func poly1305(key, msg []byte) []byte {
	little := func(b []byte) *big.Int {
		b = slices.Clone(b)
		slices.Reverse(b)
		return new(big.Int).SetBytes(b)
	}
	clamp, _ := new(big.Int).SetString("0ffffffc0ffffffc0ffffffc0fffffff", 16)
	prime := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 130), big.NewInt(5))
	r, acc := new(big.Int).And(little(key[:16]), clamp), new(big.Int)
	for chunk := range slices.Chunk(msg, 16) {
		acc.Add(acc, little(append(slices.Clone(chunk), 1)))
		acc.Mul(acc, r).Mod(acc, prime)
	}
	acc.Add(acc, little(key[16:32]))
	acc.And(acc, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 128), big.NewInt(1)))
	tag := acc.FillBytes(make([]byte, 16))
	slices.Reverse(tag)
	return tag
}

// refTag is the tag of a ciphertext. RFC 8439 §2.8.
func refTag(key, nonce, ad, ct []byte) []byte {
	pad := func(b []byte) []byte { return append(slices.Clone(b), make([]byte, -len(b)&15)...) }
	msg := append(pad(ad), pad(ct)...)
	msg = binary.LittleEndian.AppendUint64(msg, uint64(len(ad)))
	msg = binary.LittleEndian.AppendUint64(msg, uint64(len(ct)))
	otk := chachaBlock(key, nonce, 0)
	return poly1305(otk[:32], msg)
}

// refSeal returns ciphertext and tag. RFC 8439 §2.8.
func refSeal(key, nonce, ad, text []byte) []byte {
	ct := chacha(key, nonce, text)
	return append(ct, refTag(key, nonce, ad, ct)...)
}

// refOpen returns the plaintext, and whether the tag was right. RFC 8439 §2.8.
func refOpen(key, nonce, ad, sealed []byte) ([]byte, bool) {
	if len(sealed) < 16 {
		return nil, false
	}
	ct, tag := sealed[:len(sealed)-16], sealed[len(sealed)-16:]
	if subtle.ConstantTimeCompare(tag, refTag(key, nonce, ad, ct)) == 0 {
		return nil, false
	}
	return chacha(key, nonce, ct), true
}
