// Package aead is ChaCha20-Poly1305 over trains: many packets of one slab, one key, each packet with its own counter,
// sealed and opened in place. Whitepaper §5.4.6.
//
// A packet's nonce is four zero bytes and its counter in little endian; there is no additional data. The package neither
// counts nor remembers: that no counter is sealed twice under one key is for the session to hold, and that none is
// accepted twice for the replay window.
//
// A [Key] may be used by several goroutines at once, on packets that share no bytes. Slab and train are borrowed for the
// length of a call. Nothing is allocated.
package aead

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"

	"throughline/internal/wire"
	"throughline/packet"
)

// A Key seals and opens trains. It never prints itself.
type Key struct {
	aead cipher.AEAD
}

// A nonce passes through an interface and so can't live on the stack. Its first four bytes stay zero. Whitepaper §5.4.6.
type nonce [chacha20poly1305.NonceSize]byte

var nonces = sync.Pool{New: func() any { return new(nonce) }}

func (n *nonce) set(counter uint64) { binary.LittleEndian.PutUint64(n[4:], counter) }

// NewKey returns a Key made from key, which is copied.
func NewKey(key *[wire.KeySize]byte) *Key {
	a, err := chacha20poly1305.New(key[:])
	if err != nil {
		// The length is right, so this is a process that was told to run without this cipher.
		panic("aead: WireGuard has no other cipher (is GODEBUG=fips140=only set?): " + err.Error())
	}
	return &Key{aead: a}
}

// Seal encrypts each packet slab[Off:Off+Len] of train in place and writes its tag right behind it, so that Len grows by
// [wire.TagSize]. The slab must have that much room behind each packet: what lies there is overwritten. Packets that are
// dropped already are left as they are.
func (k *Key) Seal(slab []byte, train []packet.Packet) {
	n := nonces.Get().(*nonce)
	for i := range train {
		p := &train[i]
		if p.Drop != 0 {
			continue
		}
		n.set(p.Counter)
		b := slab[p.Off : p.Off+p.Len : p.Off+p.Len+wire.TagSize]
		k.aead.Seal(b[:0], n[:], b, nil)
		p.Len += wire.TagSize
	}
	nonces.Put(n)
}

// Open checks and decrypts each packet slab[Off:Off+Len] of train, ciphertext and tag, in place, so that Len shrinks by
// [wire.TagSize]. A packet whose tag is wrong, or that is shorter than a tag, gets Drop [packet.DropTag] and keeps its
// Len; its ciphertext is cleared, and nothing that was made from it is left to read. Packets that are dropped already
// are left as they are.
func (k *Key) Open(slab []byte, train []packet.Packet) {
	n := nonces.Get().(*nonce)
	for i := range train {
		p := &train[i]
		if p.Drop != 0 {
			continue
		}
		if p.Len < wire.TagSize {
			p.Drop = packet.DropTag
			continue
		}
		n.set(p.Counter)
		b := slab[p.Off : p.Off+p.Len : p.Off+p.Len]
		plain := p.Len - wire.TagSize
		if _, err := k.aead.Open(b[:0], n[:], b, nil); err != nil {
			// cipher.AEAD promises only that the destination may be overwritten when it fails.
			clear(b[:plain])
			p.Drop = packet.DropTag
			continue
		}
		p.Len = plain
	}
	nonces.Put(n)
}

// Format writes "(hidden)" whatever the verb.
func (k *Key) Format(f fmt.State, verb rune) { fmt.Fprint(f, "(hidden)") }
