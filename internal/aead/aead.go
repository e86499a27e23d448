// Package aead is ChaCha20-Poly1305 (RFC 8439) over trains: many packets of one slab, one key, each packet with its own
// counter, sealed and opened in place. Whitepaper §5.4.6.
//
// A packet's nonce is four zero bytes and its counter in little endian; there is no additional data. The package keeps no
// state between calls: the session ensures that no counter is sealed twice under one key, and the replay window that
// none is accepted twice.
//
// Several implementations compute the same bytes ([Implementation]); the fastest depends on the machine, and is chosen
// when the device is made. A [Key] may be used by several goroutines at once, on packets that share no bytes. Slab and
// train are borrowed until a call returns. Nothing is allocated, but that the first packet of a key that is left to x/crypto
// makes its cipher.
//
// Limits: a train is no longer than its slab. How many packets one key may seal is for the session to limit.
package aead

import (
	"crypto/cipher"
	"fmt"
	"sync/atomic"

	"golang.org/x/crypto/chacha20poly1305"

	"throughline/internal/secret"
	"throughline/internal/wire"
	"throughline/packet"
)

// A Key seals and opens trains. Printing it shows no secret.
type Key struct {
	impl *Implementation
	raw  [wire.KeySize]byte
	lib  *xcryptoCipher // the same key for x/crypto, which the others use for some packets
}

// An xcryptoCipher is x/crypto's cipher of one key. It has a copy of the key, so it is made when a packet first needs it.
type xcryptoCipher struct {
	made atomic.Pointer[cipher.AEAD]
}

// NewKey returns a Key for this implementation made from key, which is copied.
func (im *Implementation) NewKey(key *[wire.KeySize]byte) *Key {
	return &Key{impl: im, raw: *key, lib: new(xcryptoCipher)}
}

// Wipe overwrites the key with zeros, wherever it is. The key must not be in use, nor be used afterwards.
func (k *Key) Wipe() {
	secret.Clear(k.raw[:])
	if lib := k.lib.made.Swap(nil); lib != nil {
		secret.ClearAEAD(*lib)
	}
}

// library returns x/crypto's cipher of the key. Of those that goroutines make at once, one stays.
func (k *Key) library() cipher.AEAD {
	if lib := k.lib.made.Load(); lib != nil {
		return *lib
	}
	lib, err := chacha20poly1305.New(k.raw[:])
	if err != nil {
		// The length is right, so this process was told to run without this cipher.
		panic("aead: WireGuard has no other cipher (is GODEBUG=fips140=only set?): " + err.Error())
	}
	if !k.lib.made.CompareAndSwap(nil, &lib) {
		secret.ClearAEAD(lib)
		return *k.lib.made.Load()
	}
	return lib
}

// Seal encrypts each packet slab[Off:Off+Len] of train in place and appends its tag, so that Len grows by
// [wire.TagSize]. The slab must have that much room after each packet: those bytes are overwritten. Packets that are
// dropped already are left as they are.
func (k *Key) Seal(slab []byte, train []packet.Packet) { k.impl.seal(k, slab, train) }

// Open checks and decrypts each packet slab[Off:Off+Len] of train, ciphertext and tag, in place, so that Len shrinks by
// [wire.TagSize]. A packet whose tag is wrong, or that is shorter than a tag, gets Drop [packet.DropTag] and keeps its
// Len; its ciphertext is cleared, and nothing derived from it is left to read. Packets that are dropped already are
// left as they are.
func (k *Key) Open(slab []byte, train []packet.Packet) { k.impl.open(k, slab, train) }

// Format writes "(hidden)" whatever the verb, for a Key and for a pointer to one.
func (Key) Format(f fmt.State, verb rune) { fmt.Fprint(f, "(hidden)") }
