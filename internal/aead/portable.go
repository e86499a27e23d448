package aead

import (
	"crypto/subtle"
	"encoding/binary"
	"math/bits"

	"throughline/internal/wire"
	"throughline/packet"
)

// portable is ChaCha20-Poly1305 in plain Go, packet by packet: RFC 8439 as it is written, to be read, and to compare the
// other implementations with. It runs everywhere and never allocates. No branch and no address depends on a secret or on
// the text, only on whether a tag is right. Secrets are wiped before it returns, except what the compiler left in
// registers and in dead stack frames, which Go code can't reach.
var portable = &Implementation{name: "portable", seal: sealPortable, open: openPortable, supported: always}

func sealPortable(k *Key, slab []byte, train []packet.Packet) {
	var a secrets
	a.cipher.init(&k.raw)
	for i := range train {
		p := &train[i]
		if p.Drop != 0 {
			continue
		}
		b := slab[p.Off : p.Off+p.Len+wire.TagSize]
		text, tag := b[:p.Len], b[p.Len:]
		a.begin(p.Counter())
		a.cipher.xor(text)
		a.mac.write(text)
		*(*[wire.TagSize]byte)(tag) = a.mac.sum(0, uint64(len(text)))
		p.Len += wire.TagSize
	}
	a.wipe()
}

func openPortable(k *Key, slab []byte, train []packet.Packet) {
	var a secrets
	a.cipher.init(&k.raw)
	for i := range train {
		p := &train[i]
		if p.Drop != 0 {
			continue
		}
		if p.Len < wire.TagSize {
			p.Drop = packet.DropTag
			continue
		}
		b := slab[p.Off : p.Off+p.Len]
		text, tag := b[:p.Len-wire.TagSize], b[p.Len-wire.TagSize:]
		a.begin(p.Counter())
		a.mac.write(text)
		want := a.mac.sum(0, uint64(len(text)))
		if subtle.ConstantTimeCompare(tag, want[:]) == 0 {
			// Forged bytes are never decrypted, and the right tag for them never leaves this function.
			clear(want[:])
			clear(text)
			p.Drop = packet.DropTag
			continue
		}
		a.cipher.xor(text)
		p.Len -= wire.TagSize
	}
	a.wipe()
}

// secrets holds all secret state while a train is sealed or opened, so that it can be wiped.
type secrets struct {
	cipher chacha20
	mac    poly1305
}

// begin sets up Poly1305 with a packet's one-time key, which is block 0 of its key stream, and leaves the cipher at
// block 1, where the text's key stream begins. RFC 8439 §2.6 and §2.8.
func (a *secrets) begin(counter uint64) {
	a.cipher.seek(0, counter)
	key := &a.cipher.last
	clear(key[:])
	a.cipher.blocks(key[:])
	a.mac.init((*[32]byte)(key[:32]))
}

// wipe isn't inlined, or the compiler might find that the zeros are never read and not write them.
//
//go:noinline
func (a *secrets) wipe() { *a = secrets{} }

// A chacha20 is the state of the cipher, in the order of RFC 8439 §2.3: constants, key, block counter, nonce.
type chacha20 struct {
	state [16]uint32
	last  [64]byte // a text's last, partial block
}

func (c *chacha20) init(key *[wire.KeySize]byte) {
	c.state = [16]uint32{0: 0x61707865, 1: 0x3320646e, 2: 0x79622d32, 3: 0x6b206574}
	for i := range 8 {
		c.state[4+i] = binary.LittleEndian.Uint32(key[4*i:])
	}
}

// seek sets the block counter and the nonce: four zero bytes and the packet's counter. Whitepaper §5.4.6.
func (c *chacha20) seek(block uint32, counter uint64) {
	c.state[12], c.state[13], c.state[14], c.state[15] = block, 0, uint32(counter), uint32(counter>>32)
}

// xor XORs the key stream into text, from the beginning of the current block on. A partial block at the end uses up a
// whole block of key stream. RFC 8439 §2.4.
func (c *chacha20) xor(text []byte) {
	whole := len(text) &^ 63
	c.blocks(text[:whole])
	if tail := text[whole:]; len(tail) > 0 {
		copy(c.last[:], tail)
		c.blocks(c.last[:])
		copy(tail, c.last[:])
	}
}

// blocks XORs the key stream into whole blocks of 64 bytes. RFC 8439 §2.3.
func (c *chacha20) blocks(text []byte) {
	s := &c.state
	for ; len(text) >= 64; text = text[64:] {
		x0, x1, x2, x3 := s[0], s[1], s[2], s[3]
		x4, x5, x6, x7 := s[4], s[5], s[6], s[7]
		x8, x9, x10, x11 := s[8], s[9], s[10], s[11]
		x12, x13, x14, x15 := s[12], s[13], s[14], s[15]
		for range 10 {
			x0, x4, x8, x12 = quarterRound(x0, x4, x8, x12)
			x1, x5, x9, x13 = quarterRound(x1, x5, x9, x13)
			x2, x6, x10, x14 = quarterRound(x2, x6, x10, x14)
			x3, x7, x11, x15 = quarterRound(x3, x7, x11, x15)

			x0, x5, x10, x15 = quarterRound(x0, x5, x10, x15)
			x1, x6, x11, x12 = quarterRound(x1, x6, x11, x12)
			x2, x7, x8, x13 = quarterRound(x2, x7, x8, x13)
			x3, x4, x9, x14 = quarterRound(x3, x4, x9, x14)
		}
		b := (*[64]byte)(text)
		xor32(b[0:4], x0+s[0])
		xor32(b[4:8], x1+s[1])
		xor32(b[8:12], x2+s[2])
		xor32(b[12:16], x3+s[3])
		xor32(b[16:20], x4+s[4])
		xor32(b[20:24], x5+s[5])
		xor32(b[24:28], x6+s[6])
		xor32(b[28:32], x7+s[7])
		xor32(b[32:36], x8+s[8])
		xor32(b[36:40], x9+s[9])
		xor32(b[40:44], x10+s[10])
		xor32(b[44:48], x11+s[11])
		xor32(b[48:52], x12+s[12])
		xor32(b[52:56], x13+s[13])
		xor32(b[56:60], x14+s[14])
		xor32(b[60:64], x15+s[15])
		s[12]++
	}
}

// quarterRound is the quarter round. RFC 8439 §2.1.
func quarterRound(a, b, c, d uint32) (uint32, uint32, uint32, uint32) {
	a += b
	d = bits.RotateLeft32(d^a, 16)
	c += d
	b = bits.RotateLeft32(b^c, 12)
	a += b
	d = bits.RotateLeft32(d^a, 8)
	c += d
	b = bits.RotateLeft32(b^c, 7)
	return a, b, c, d
}

func xor32(b []byte, key uint32) {
	binary.LittleEndian.PutUint32(b, binary.LittleEndian.Uint32(b)^key)
}

// A poly1305 computes one tag. RFC 8439 §2.5: the message is a polynomial, with a coefficient for each 16 bytes, which
// is evaluated at r modulo p = 2¹³⁰-5; then s is added modulo 2¹²⁸.
type poly1305 struct {
	r0, r1, s0, s1 uint64
	h0, h1, h2     uint64 // the accumulator h0 + h1·2⁶⁴ + h2·2¹²⁸; h2 is at most 4 between blocks
	last           [16]byte
}

func (m *poly1305) init(key *[32]byte) {
	*m = poly1305{
		r0: binary.LittleEndian.Uint64(key[0:]) & 0x0ffffffc0fffffff, // the clamp keeps products small,
		r1: binary.LittleEndian.Uint64(key[8:]) & 0x0ffffffc0ffffffc, // and makes r1 a multiple of 4
		s0: binary.LittleEndian.Uint64(key[16:]),
		s1: binary.LittleEndian.Uint64(key[24:]),
	}
}

// write absorbs b, padded with zeros to a multiple of 16 bytes, as RFC 8439 §2.8 has it for each part of a message.
func (m *poly1305) write(b []byte) {
	whole := len(b) &^ 15
	m.blocks(b[:whole])
	if tail := b[whole:]; len(tail) > 0 {
		clear(m.last[copy(m.last[:], tail):])
		m.blocks(m.last[:])
	}
}

// blocks absorbs whole blocks of 16 bytes.
//
// In the product h·r the term h1·r1 has the weight 2¹²⁸. As 2¹³⁰ is 5 modulo p and r1 a multiple of 4, it equals
// h1·(r1·5/4) with the weight 1, and likewise for h2·r1: so terms are reduced before they are added up.
func (m *poly1305) blocks(b []byte) {
	r0, r1 := m.r0, m.r1
	r5 := r1 + r1>>2
	h0, h1, h2 := m.h0, m.h1, m.h2
	var c uint64
	for ; len(b) >= 16; b = b[16:] {
		// h += the block with a 1 appended, that is, plus 2¹²⁸.
		h0, c = bits.Add64(h0, binary.LittleEndian.Uint64(b[0:8]), 0)
		h1, c = bits.Add64(h1, binary.LittleEndian.Uint64(b[8:16]), c)
		h2 += 1 + c

		// h *= r: each limb is the sum of two 128-bit products, without overflow as r0, r1 < 2⁶⁰, and of a small one with h2.
		hi0, lo0 := bits.Mul64(h0, r0)
		hi, lo := bits.Mul64(h1, r5)
		lo0, c = bits.Add64(lo0, lo, 0)
		hi0 += hi + c

		hi1, lo1 := bits.Mul64(h0, r1)
		hi, lo = bits.Mul64(h1, r0)
		lo1, c = bits.Add64(lo1, lo, 0)
		hi1 += hi + c
		lo1, c = bits.Add64(lo1, h2*r5, 0)
		hi1 += c

		h0 = lo0
		h1, c = bits.Add64(lo1, hi0, 0)
		h2 = h2*r0 + hi1 + c

		// Bits from 2¹³⁰ on are added at the bottom, times five.
		carry := h2>>2 + h2&^3
		h0, c = bits.Add64(h0, carry, 0)
		h1, c = bits.Add64(h1, 0, c)
		h2 = h2&3 + c
	}
	m.h0, m.h1, m.h2 = h0, h1, h2
}

// sum absorbs the lengths of additional data and text, and returns the tag. RFC 8439 §2.8.
func (m *poly1305) sum(ad, text uint64) (tag [wire.TagSize]byte) {
	binary.LittleEndian.PutUint64(m.last[0:], ad)
	binary.LittleEndian.PutUint64(m.last[8:], text)
	m.blocks(m.last[:])

	// h is below 2p: the full reduction takes h-p = h+5-2¹³⁰ instead if that isn't negative.
	t0, c := bits.Add64(m.h0, 5, 0)
	t1, c := bits.Add64(m.h1, 0, c)
	t2 := m.h2 + c
	mask := -(t2 >> 2) // all ones if h >= p; t2 is below 8
	h0 := m.h0 ^ mask&(m.h0^t0)
	h1 := m.h1 ^ mask&(m.h1^t1)

	h0, c = bits.Add64(h0, m.s0, 0)
	h1, _ = bits.Add64(h1, m.s1, c)
	binary.LittleEndian.PutUint64(tag[0:], h0)
	binary.LittleEndian.PutUint64(tag[8:], h1)
	return tag
}
