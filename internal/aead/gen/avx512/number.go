package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// A number modulo p = 2¹³⁰-5 is three limbs of 44, 44 and 42 bits; three vectors hold eight numbers. Limbs may be a little
// longer between multiplications: VPMADD52 takes 52 bits.
type number [3]Register

// A factor is a number that another is multiplied by: its limbs, and 20 times the upper two, as a fourth limb would have
// the weight 2¹³² = 4·2¹³⁰ = 4·5 modulo p.
type factor struct{ r0, r1, r2, s1, s2 Op }

// Registers of the arithmetic: the products that multiplications add up, in two halves, and masks of a limb.
var (
	lo, hi = number{Z3, Z4, Z5}, number{Z6, Z7, Z8}
	mask42 = Z29
	mask44 = Z31
)

// power is rⁿ in the workspace.
func power(n int) factor {
	m := func(i int) Op { return at(ws, wsPowers+64*(5*(4-n)+i)) }
	return factor{m(0), m(1), m(2), m(3), m(4)}
}

// clearProducts begins a sum of products.
func clearProducts() {
	for i := range 3 {
		VPXORQ(lo[i], lo[i], lo[i])
		VPXORQ(hi[i], hi[i], hi[i])
	}
}

// accumulate adds x·f to the products.
func accumulate(x number, f factor) {
	columns := [3][3]Op{{f.r0, f.r1, f.r2}, {f.s2, f.r0, f.r1}, {f.s1, f.s2, f.r0}}
	for i := range 3 {
		for j := range 3 {
			VPMADD52LUQ(columns[i][j], x[i], lo[j])
			VPMADD52HUQ(columns[i][j], x[i], hi[j])
		}
	}
}

// carry reduces the products to a number. t is overwritten.
//
// Up to twelve products of 52 bits are added up in each column, so that no sum here reaches 60 bits.
func carry(x number, t Register) {
	for i := range 3 {
		VPSLLQ(U8([3]int{8, 8, 10}[i]), hi[i], hi[i]) // 2⁵² is 2⁸ times 2⁴⁴, and 2¹⁰ times 2⁴²
	}
	VPADDQ(hi[0], lo[1], lo[1])
	VPADDQ(hi[1], lo[2], lo[2])
	VPSRLQ(U8(44), lo[0], t)
	VPANDQ(mask44, lo[0], x[0])
	VPADDQ(t, lo[1], lo[1])
	VPSRLQ(U8(44), lo[1], t)
	VPANDQ(mask44, lo[1], x[1])
	VPADDQ(t, lo[2], lo[2])
	VPSRLQ(U8(42), lo[2], t)
	VPANDQ(mask42, lo[2], x[2])
	VPADDQ(hi[2], t, t)
	VPADDQ(t, x[0], x[0])
	VPSLLQ(U8(2), t, t)
	VPADDQ(t, x[0], x[0])
	VPSRLQ(U8(44), x[0], t)
	VPANDQ(mask44, x[0], x[0])
	VPADDQ(t, x[1], x[1])
}

// multiply sets x to y·f.
func multiply(x, y number, f factor, t Register) {
	clearProducts()
	accumulate(y, f)
	carry(x, t)
}

// newFactor makes a factor of x: it sets s1 and s2. t is overwritten.
func newFactor(x number, s1, s2, t Register) factor {
	for i, s := range []Register{s1, s2} {
		VPSLLQ(U8(4), x[i+1], s)
		VPSLLQ(U8(2), x[i+1], t)
		VPADDQ(t, s, s)
	}
	return factor{x[0], x[1], x[2], s1, s2}
}

// storeFactor stores f as rⁿ in the workspace.
func storeFactor(n int, f factor) {
	p := power(n)
	for _, m := range [][2]Op{{f.r0, p.r0}, {f.r1, p.r1}, {f.r2, p.r2}, {f.s1, p.s1}, {f.s2, p.s2}} {
		VMOVDQU64(m[0], m[1])
	}
}

// split makes limbs of the two halves of a block. t is overwritten.
func split(x number, low, high, t Register) {
	VPSRLQ(U8(44), low, x[1])
	VPSLLQ(U8(20), high, t)
	VPTERNLOGQ(U8(0xa8), mask44, t, x[1]) // (x1 | t) & mask
	VPANDQ(mask44, low, x[0])
	VPSRLQ(U8(24), high, x[2])
}

// broadcast sets z to eight times v. RAX is overwritten.
func broadcast(v uint64, z Register) {
	MOVQ(U64(v), RAX)
	VPBROADCASTQ(RAX, z)
}
