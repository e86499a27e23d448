// Command avx512 writes ../avx512_amd64.s, the assembly of the implementation "avx512": ChaCha20 in 16 lanes of 32 bits,
// a lane being any block of any packet, and Poly1305 in 8 lanes of 64 bits, a lane being a packet or an eighth, a quarter
// or a half of one.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// The vector registers, and their lower halves.
var zs = []VecPhysical{
	Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15,
	Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31,
}

var ys = []VecPhysical{
	Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15,
	Y16, Y17, Y18, Y19, Y20, Y21, Y22, Y23, Y24, Y25, Y26, Y27, Y28, Y29, Y30, Y31,
}

// lower is the lower half of a ZMM register.
func lower(z Register) Op {
	for i := range zs {
		if zs[i] == z {
			return ys[i]
		}
	}
	panic("no such register")
}

// at is the memory at disp from the address in base, and indexed that at scale times index from there.
func at(base Register, disp int) Mem { return Mem{Base: base, Disp: disp} }

func indexed(base, index Register, scale uint8, disp int) Mem {
	return Mem{Base: base, Index: index, Scale: scale, Disp: disp}
}

// constants are those that constant has written.
var constants = map[uint64]Mem{}

// constant is a 64-bit constant in memory, for instructions that broadcast it.
func constant(v uint64) Mem {
	m, ok := constants[v]
	if !ok {
		m = GLOBL(fmt.Sprintf("constant%d", v), RODATA|NOPTR)
		DATA(0, U64(v))
		constants[v] = m
	}
	return m
}

// ret returns from a function.
func ret() {
	VZEROUPPER()
	RET()
}

func main() {
	ConstraintExpr("amd64")
	chacha()
	poly()
	Generate()
}
