// Command avx2 writes ../avx2_amd64.s, the assembly of the implementation "avx2".
//
// One function does nearly everything: it computes passes of ChaCha20, eight blocks in the eight 32-bit lanes of the
// vector registers, and meanwhile the scalar units multiply the Poly1305 blocks of packets that earlier passes
// completed. The two instruction streams share neither registers nor flags, and are interleaved here: the out-of-order
// window of a core is too small to overlap one with the other by itself.
//
// Branches depend on lengths and on the direction, never on keys, texts or tags.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// work holds the address of the work area, in every function's body.
var work = RDI

// at is the memory at off from the address in base.
func at(base Register, off int) Mem { return Mem{Base: base, Disp: off} }

// arg is the memory of the argument of that name of the function being written.
func arg(name string) Mem {
	b, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

func main() {
	ConstraintExpr("amd64")
	constants()
	passes()
	layOut()
	broadcastKey()
	xorText()
	Generate()
}
