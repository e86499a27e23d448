package aead

import (
	"encoding/binary"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"

	"throughline/internal/wire"
	"throughline/packet"
)

// xcrypto is golang.org/x/crypto, one packet after the other: assembly for AVX2 on amd64.
var xcrypto = &Way{name: "xcrypto", seal: sealXCrypto, open: openXCrypto, runs: always}

// A nonce passes through an interface and so can't live on the stack. Its first four bytes stay zero. Whitepaper §5.4.6.
type nonce [chacha20poly1305.NonceSize]byte

var nonces = sync.Pool{New: func() any { return new(nonce) }}

func (n *nonce) set(counter uint64) { binary.LittleEndian.PutUint64(n[4:], counter) }

func sealXCrypto(k *Key, slab []byte, train []packet.Packet) {
	n := nonces.Get().(*nonce)
	for i := range train {
		p := &train[i]
		if p.Drop != 0 {
			continue
		}
		n.set(p.Counter)
		b := slab[p.Off : p.Off+p.Len : p.Off+p.Len+wire.TagSize]
		k.lib.Seal(b[:0], n[:], b, nil)
		p.Len += wire.TagSize
	}
	nonces.Put(n)
}

func openXCrypto(k *Key, slab []byte, train []packet.Packet) {
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
		if _, err := k.lib.Open(b[:0], n[:], b, nil); err != nil {
			// cipher.AEAD promises only that the destination may be overwritten when it fails.
			clear(b[:plain])
			p.Drop = packet.DropTag
			continue
		}
		p.Len = plain
	}
	nonces.Put(n)
}
