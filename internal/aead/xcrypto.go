package aead

import (
	"throughline/internal/wire"
	"throughline/packet"
)

// xcrypto is golang.org/x/crypto, packet by packet: AVX2 assembly on amd64.
var xcrypto = &Implementation{name: "xcrypto", seal: sealXCrypto, open: openXCrypto, supported: always}

func always() bool { return true }

func sealXCrypto(k *Key, slab []byte, train []packet.Packet) {
	lib := k.library()
	for i := range train {
		p := &train[i]
		if p.Drop != 0 {
			continue
		}
		b := slab[p.Off : p.Off+p.Len : p.Off+p.Len+wire.TagSize]
		lib.Seal(b[:0], p.Nonce(), b, nil)
		p.Len += wire.TagSize
	}
	clearStack()
}

func openXCrypto(k *Key, slab []byte, train []packet.Packet) {
	lib := k.library()
	for i := range train {
		p := &train[i]
		if p.Drop != 0 {
			continue
		}
		if p.Len < wire.TagSize {
			p.Drop = packet.DropTag
			continue
		}
		b := slab[p.Off : p.Off+p.Len : p.Off+p.Len]
		plain := p.Len - wire.TagSize
		if _, err := lib.Open(b[:0], p.Nonce(), b, nil); err != nil {
			// cipher.AEAD only says that the destination may be overwritten when it fails.
			clear(b[:plain])
			p.Drop = packet.DropTag
			continue
		}
		p.Len = plain
	}
	clearStack()
}

// clearStack clears the stack below its caller's frame, where x/crypto has laid the key before its assembly.
//
//go:noinline
func clearStack() {
	var b [stackXCrypto]byte // zeros
	keep(&b)
}

// keep does nothing, of which the compiler isn't told: what b points to must be written.
//
//go:noinline
func keep(b *[stackXCrypto]byte) {}

// stackXCrypto is how many bytes of stack x/crypto uses, and some more. TestMemoryOfKeys of the module finds what is left.
const stackXCrypto = 768
