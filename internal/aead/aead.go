// Package aead is ChaCha20-Poly1305 over trains: many packets of one slab, one key, each packet with its own counter,
// sealed and opened in place. Whitepaper §5.4.6.
//
// A packet's nonce is four zero bytes and its counter in little endian; there is no additional data. The package neither
// counts nor remembers: that no counter is sealed twice under one key is for the session to hold, and that none is
// accepted twice for the replay window.
//
// There are several ways to compute the same bytes ([Way]); which is best depends on the machine, and is chosen when
// the device is made. A [Key] may be used by several goroutines at once, on packets that share no bytes. Slab and train
// are borrowed for the length of a call. Nothing is allocated.
//
// Limits: a train is no longer than its slab. How many packets one key may seal is for the session to limit.
package aead

import (
	"crypto/cipher"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"

	"throughline/internal/wire"
	"throughline/packet"
)

// A Key seals and opens trains. It never prints itself.
type Key struct {
	way *Way
	raw [wire.KeySize]byte // what the ways of this package begin with
	lib cipher.AEAD        // the same key, for packets that are left to the library
}

// NewKey returns a Key made from key, which is copied, for this way.
func (w *Way) NewKey(key *[wire.KeySize]byte) *Key {
	lib, err := chacha20poly1305.New(key[:])
	if err != nil {
		// The length is right, so this is a process that was told to run without this cipher.
		panic("aead: WireGuard has no other cipher (is GODEBUG=fips140=only set?): " + err.Error())
	}
	return &Key{way: w, raw: *key, lib: lib}
}

// Seal encrypts each packet slab[Off:Off+Len] of train in place and writes its tag right behind it, so that Len grows by
// [wire.TagSize]. The slab must have that much room behind each packet: what lies there is overwritten. Packets that are
// dropped already are left as they are.
func (k *Key) Seal(slab []byte, train []packet.Packet) { k.way.seal(k, slab, train) }

// Open checks and decrypts each packet slab[Off:Off+Len] of train, ciphertext and tag, in place, so that Len shrinks by
// [wire.TagSize]. A packet whose tag is wrong, or that is shorter than a tag, gets Drop [packet.DropTag] and keeps its
// Len; its ciphertext is cleared, and nothing that was made from it is left to read. Packets that are dropped already
// are left as they are.
func (k *Key) Open(slab []byte, train []packet.Packet) { k.way.open(k, slab, train) }

// Format writes "(hidden)" whatever the verb, for a Key and for a pointer to one.
func (Key) Format(f fmt.State, verb rune) { fmt.Fprint(f, "(hidden)") }
