// Package cookie is what lets a responder under load drop handshake messages cheaply: mac1, mac2 and the cookie reply.
// Whitepaper §5.4.4 and §5.4.7, §5.3.
//
// mac1 proves that the sender knows the responder's public key; every handshake message carries one. mac2 proves that
// the sender receives at the address it sends from; it is made with a cookie, which the responder hands out in a cookie
// reply when it is under load. A [Checker] is the responder's side, one a device; a [Jar] is the sender's, one a peer.
//
// The package doesn't decide when a responder is under load, limits no rate and knows no receiver index; it reads no
// clock, and no randomness but what it is given.
//
// Concurrency: [Keys] may be shared freely, and the methods of a [Checker] may be called from any goroutine at any time:
// its secret is an immutable snapshot. Those of a Jar are the caller's to serialize.
//
// Ownership: messages passed in are borrowed until the call returns.
//
// Limits: a Checker keeps no state for each sender; a Jar is 48 bytes.
package cookie

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"

	"throughline/internal/wire"
	"throughline/wgtypes"
)

const hidden = "(hidden)"

// Keys are the two keys that follow from the public key of the side that checks mac1: the key of mac1, and the key that
// cookie replies are sealed with. They are no secret to anyone who knows the public key.
type Keys struct {
	mac1  [wire.HashSize]byte // HASH(LABEL-MAC1 || public). Whitepaper §5.4.4
	reply [wire.KeySize]byte  // HASH(LABEL-COOKIE || public). Whitepaper §5.4.7
}

// KeysFor returns the keys of a public key.
func KeysFor(public wgtypes.PublicKey) Keys {
	return Keys{mac1: label(wire.LabelMAC1, public), reply: label(wire.LabelCookie, public)}
}

func label(l string, public wgtypes.PublicKey) [wire.HashSize]byte {
	return blake2s.Sum256(append([]byte(l), public[:]...))
}

// macs returns the offsets of mac1 and mac2 in msg, an initiation or a response of the exact size; ok reports whether it
// is one. mac1 covers all that lies before it, and mac2 all that lies before mac2. Whitepaper §5.4.4.
func macs(msg []byte) (mac1, mac2 int, ok bool) {
	switch {
	case len(msg) == wire.InitiationSize && binary.LittleEndian.Uint32(msg) == wire.TypeInitiation:
		return wire.InitiationMAC1, wire.InitiationMAC2, true
	case len(msg) == wire.ResponseSize && binary.LittleEndian.Uint32(msg) == wire.TypeResponse:
		return wire.ResponseMAC1, wire.ResponseMAC2, true
	}
	return 0, 0, false
}

// mac writes MAC(key, data) to out: BLAKE2s with its own key and an output of 16 bytes. Whitepaper §5.4.
func mac(out *[wire.MACSize]byte, key, data []byte) {
	h, err := blake2s.New128(key)
	if err != nil {
		panic("cookie: BUG: " + err.Error())
	}
	h.Write(data)
	h.Sum(out[:0])
}

// xaead is XAEAD of whitepaper §5.4.7.
func xaead(key *[wire.KeySize]byte) (cipher.AEAD, error) {
	a, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return nil, fmt.Errorf("cookie: %w", err)
	}
	return a, nil
}
