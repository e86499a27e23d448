package offload

import (
	"encoding/binary"
	"math/bits"
)

// sum is [Sum] in portable Go, by additions with carry. Sum uses it for short slices on every machine.
func sum(b []byte, acc uint64) uint64 {
	var c uint64
	for len(b) >= 128 {
		acc, c = bits.Add64(acc, native64(b[0:8]), 0)
		acc, c = bits.Add64(acc, native64(b[8:16]), c)
		acc, c = bits.Add64(acc, native64(b[16:24]), c)
		acc, c = bits.Add64(acc, native64(b[24:32]), c)
		acc, c = bits.Add64(acc, native64(b[32:40]), c)
		acc, c = bits.Add64(acc, native64(b[40:48]), c)
		acc, c = bits.Add64(acc, native64(b[48:56]), c)
		acc, c = bits.Add64(acc, native64(b[56:64]), c)
		acc, c = bits.Add64(acc, native64(b[64:72]), c)
		acc, c = bits.Add64(acc, native64(b[72:80]), c)
		acc, c = bits.Add64(acc, native64(b[80:88]), c)
		acc, c = bits.Add64(acc, native64(b[88:96]), c)
		acc, c = bits.Add64(acc, native64(b[96:104]), c)
		acc, c = bits.Add64(acc, native64(b[104:112]), c)
		acc, c = bits.Add64(acc, native64(b[112:120]), c)
		acc, c = bits.Add64(acc, native64(b[120:128]), c)
		acc += c // can't carry again: a chain that began without a carry doesn't end in all ones and a carry
		b = b[128:]
	}
	c = 0
	for len(b) >= 16 {
		acc, c = bits.Add64(acc, native64(b[0:8]), c)
		acc, c = bits.Add64(acc, native64(b[8:16]), c)
		b = b[16:]
	}
	if len(b) >= 8 {
		acc, c = bits.Add64(acc, native64(b), c)
		b = b[8:]
	}
	if len(b) >= 4 {
		acc, c = bits.Add64(acc, uint64(native32(b)), c)
		b = b[4:]
	}
	if len(b) >= 2 {
		acc, c = bits.Add64(acc, uint64(native16(b)), c)
		b = b[2:]
	}
	if len(b) == 1 {
		acc, c = bits.Add64(acc, word(int(b[0])<<8), c) // padded with a zero byte, RFC 1071 §4.1
	}
	return acc + c
}

// Fold folds a sum into 16 bits. The result is not complemented: a packet whose sum includes its checksum field folds to
// 0xffff when it is right.
func Fold(acc uint64) uint16 {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return uint16(word(int(acc)))
}

// word returns the 16-bit value v in the order in which Sum adds; the same function leads back.
func word(v int) uint64 {
	var b [2]byte
	putBE16(b[:], v)
	return uint64(binary.NativeEndian.Uint16(b[:]))
}

// pseudo begins the sum of a TCP or UDP segment of n bytes in the IP packet p: addresses, protocol and length.
// RFC 9293 §3.1, RFC 8200 §8.1.
func pseudo(p []byte, v6 bool, proto, n int) uint64 {
	if v6 {
		return Sum(p[ip6Addrs:ip6Size], word(proto)+word(n))
	}
	return Sum(p[ip4Addrs:ip4Size], word(proto)+word(n))
}

// ip4Checksum fills in the header checksum of the IPv4 header h.
func ip4Checksum(h []byte) {
	putBE16(h[ip4Sum:], 0)
	putBE16(h[ip4Sum:], int(^Fold(Sum(h, 0))))
}
