package aead

import (
	"crypto/subtle"
	"encoding/binary"
	"math/big"
	"math/bits"
	"slices"

	"throughline/packet"
)

// The slow reference: RFC 8439 literally, with math/big for Poly1305. It shares no code with what it checks.

// refBlock is the ChaCha20 block function. RFC 8439 §2.3.
func refBlock(key, nonce []byte, counter uint32) (out [64]byte) {
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

// refChacha returns text XORed with the key stream from block 1 on. RFC 8439 §2.4.
func refChacha(key, nonce, text []byte) []byte {
	out := slices.Clone(text)
	for i := 0; i < len(out); i += 64 {
		block := refBlock(key, nonce, uint32(1+i/64))
		subtle.XORBytes(out[i:], out[i:], block[:])
	}
	return out
}

// refHChaCha derives a key: the block function without its last addition. draft-irtf-cfrg-xchacha §2.2.
func refHChaCha(key, nonce []byte) []byte {
	little := binary.LittleEndian.Uint32
	block := refBlock(key, nonce[4:], little(nonce))
	added := []uint32{0x61707865, 0x3320646e, 0x79622d32, 0x6b206574, little(nonce), little(nonce[4:]), little(nonce[8:]), little(nonce[12:])}
	var out []byte
	for i, at := range []int{0, 4, 8, 12, 48, 52, 56, 60} {
		out = binary.LittleEndian.AppendUint32(out, little(block[at:])-added[i])
	}
	return out
}

func refLittle(b []byte) *big.Int {
	b = slices.Clone(b)
	slices.Reverse(b)
	return new(big.Int).SetBytes(b)
}

// refPolyKey returns the halves of a one-time key: r, clamped, and s. RFC 8439 §2.5.
func refPolyKey(key []byte) (r, s *big.Int) {
	clamp, _ := new(big.Int).SetString("0ffffffc0ffffffc0ffffffc0fffffff", 16)
	return clamp.And(clamp, refLittle(key[:16])), refLittle(key[16:32])
}

// refPoly is the one-time authenticator. RFC 8439 §2.5.
func refPoly(key, msg []byte) []byte {
	prime := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 130), big.NewInt(5))
	r, s := refPolyKey(key)
	acc := new(big.Int)
	for chunk := range slices.Chunk(msg, 16) {
		acc.Add(acc, refLittle(append(slices.Clone(chunk), 1)))
		acc.Mul(acc, r).Mod(acc, prime)
	}
	acc.Add(acc, s)
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
	otk := refBlock(key, nonce, 0)
	return refPoly(otk[:32], msg)
}

// refSeal returns ciphertext and tag. RFC 8439 §2.8.
func refSeal(key, nonce, ad, text []byte) []byte {
	ct := refChacha(key, nonce, text)
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
	return refChacha(key, nonce, ct), true
}

// A reference is the slow reference over trains.
type reference struct{ key [32]byte }

func (s *reference) Seal(slab []byte, train []packet.Packet) {
	for i := range train {
		if p := &train[i]; p.Drop == 0 {
			sealed := refSeal(s.key[:], transportNonce(p.Counter()), nil, slab[p.Off:p.Off+p.Len])
			p.Len = copy(slab[p.Off:], sealed)
		}
	}
}

func (s *reference) Open(slab []byte, train []packet.Packet) {
	for i := range train {
		p := &train[i]
		if p.Drop != 0 {
			continue
		}
		sealed := slab[p.Off : p.Off+p.Len]
		text, ok := refOpen(s.key[:], transportNonce(p.Counter()), nil, sealed)
		if !ok {
			clear(sealed[:max(0, len(sealed)-16)])
			p.Drop = packet.DropTag
			continue
		}
		p.Len = copy(sealed, text)
	}
}
