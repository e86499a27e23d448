// Avx512 writes internal/aead/avx512_amd64.s: ChaCha20 in 16 lanes, a lane being any block of any packet, and Poly1305
// in 8 lanes, a lane being a packet or an eighth, a quarter or a half of one.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

var zs = []VecPhysical{
	Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15,
	Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31,
}

func at(base Register, disp int) Mem { return Mem{Base: base, Disp: disp} }

func indexed(base, index Register, scale uint8, disp int) Mem {
	return Mem{Base: base, Index: index, Scale: scale, Disp: disp}
}

// leave ends a function.
func leave() {
	VZEROUPPER()
	RET()
}

func main() {
	ConstraintExpr("amd64")
	chacha()
	poly()
	Generate()
}
