package noise

import (
	"fmt"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"

	"throughline/internal/secret"
	"throughline/internal/wire"
	"throughline/wgtypes"
)

// zeroNonce is the counter 0: every key of the handshake seals one message only. Whitepaper §5.4.
var zeroNonce [chacha20poly1305.NonceSize]byte

// symmetric is what both sides derive as the handshake goes on: the chaining key C and the hash H of the transcript.
// Whitepaper §5.4.
type symmetric struct {
	c, h [wire.HashSize]byte
}

// start begins a transcript with the responder's static key. The prologue is wire.Identifier in WireGuard; it is an
// argument for the sake of Noise test vectors. Whitepaper §5.4.2, §5.4.3.
func (s *symmetric) start(prologue []byte, responder *wgtypes.PublicKey) {
	s.c = blake2s.Sum256([]byte(wire.Construction))
	s.h = s.c
	s.mixHash(prologue)
	s.mixHash(responder[:])
}

// mixHash is H := HASH(H || data).
func (s *symmetric) mixHash(data []byte) {
	var b [wire.HashSize + wire.KeySize + wire.TagSize]byte // large enough for all that WireGuard hashes here, so that nothing is allocated
	s.h = blake2s.Sum256(append(append(b[:0], s.h[:]...), data...))
}

// mixKey is C := KDF1(C, in) when key is nil, else (C, key) := KDF2(C, in).
func (s *symmetric) mixKey(in []byte, key *[wire.KeySize]byte) {
	if key == nil {
		kdf(&s.c, in, &s.c)
		return
	}
	kdf(&s.c, in, &s.c, key)
}

// mixPSK is (C, t, key) := KDF3(C, psk), H := HASH(H || t). Whitepaper §5.4.3.
func (s *symmetric) mixPSK(psk *wgtypes.PresharedKey, key *[wire.KeySize]byte) {
	var t [wire.HashSize]byte
	kdf(&s.c, psk[:], &s.c, &t, key)
	s.mixHash(t[:])
	secret.Clear(t[:])
}

// seal writes AEAD(key, 0, plaintext, H) to dst, which is a tag longer than plaintext, and mixes it into H.
func (s *symmetric) seal(dst []byte, key *[wire.KeySize]byte, plaintext []byte) error {
	aead, err := chacha20poly1305.New(key[:])
	if err != nil {
		return fmt.Errorf("noise: %w", err)
	}
	n := copy(dst, plaintext) // sealed in place, so that plaintext can stay on the caller's stack
	defer secret.ClearAEAD(aead)
	aead.Seal(dst[:0], zeroNonce[:], dst[:n], s.h[:])
	s.mixHash(dst)
	return nil
}

// open decrypts what seal wrote into dst, which is a tag shorter than sealed, and mixes sealed into H. When it fails, H
// is unchanged and dst is zero.
func (s *symmetric) open(dst []byte, key *[wire.KeySize]byte, sealed []byte) error {
	aead, err := chacha20poly1305.New(key[:])
	if err != nil {
		return fmt.Errorf("noise: %w", err)
	}
	defer secret.ClearAEAD(aead)
	if _, err := aead.Open(dst[:0], zeroNonce[:], sealed, s.h[:]); err != nil {
		return errAuth
	}
	s.mixHash(sealed)
	return nil
}

// split writes the transport keys: that with which the initiator sends, and that with which the responder does. Whitepaper
// §5.4.5.
func (s *symmetric) split(initiator, responder *[wire.KeySize]byte) {
	kdf(&s.c, nil, initiator, responder)
}

func (s *symmetric) clear() {
	secret.Clear(s.c[:])
	secret.Clear(s.h[:])
}

// kdf is KDFn of whitepaper §5.4, n being the number of outputs: HKDF (RFC 5869) over HMAC-BLAKE2s with key as the salt
// and no info. An output may be the key itself.
func kdf(key *[wire.HashSize]byte, in []byte, out ...*[wire.HashSize]byte) {
	var t0 [wire.HashSize]byte
	hmac(&t0, key, in)
	var block [wire.HashSize + 1]byte // the output before, and the number of this one
	n := 0
	for i, o := range out {
		block[n] = byte(i + 1)
		hmac(o, &t0, block[:n+1])
		n = copy(block[:], o[:])
	}
	secret.Clear(t0[:])
	secret.Clear(block[:])
}

// hmac is HMAC-BLAKE2s (RFC 2104). in is at most 33 bytes long, which is all that HKDF asks for here. out may be key.
func hmac(out, key *[wire.HashSize]byte, in []byte) {
	const ipad, opad = 0x36, 0x5c
	var b [blake2s.BlockSize + wire.HashSize + 1]byte
	if len(in) > len(b)-blake2s.BlockSize {
		panic("noise: BUG: the input of hmac is too long")
	}
	copy(b[:], key[:])
	for i := range blake2s.BlockSize {
		b[i] ^= ipad
	}
	n := copy(b[blake2s.BlockSize:], in)
	inner := blake2s.Sum256(b[:blake2s.BlockSize+n])

	for i := range blake2s.BlockSize {
		b[i] ^= ipad ^ opad
	}
	n = copy(b[blake2s.BlockSize:], inner[:])
	*out = blake2s.Sum256(b[:blake2s.BlockSize+n])
	secret.Clear(b[:])
	secret.Clear(inner[:])
}
