package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Poly1305, RFC 8439 §2.5, in eight lanes: a packet is cut into one, two, four or eight stripes, each the part of it that one
// lane authenticates. All lanes end with the last of the same number of steps, of four blocks each.

// Registers that live through a whole call of authenticate, beside those of the arithmetic in number.go.
var (
	acc      = number{Z0, Z1, Z2} // the accumulator of each lane
	padBit   = Z30                // 2¹²⁸, the bit that follows a whole block, as part of the upper limb
	pointers = [8]GPPhysical{R8, R9, R10, R11, R12, R13, R14, R15}
	step     = RCX
)

// Constants in memory.
var (
	clampLo, clampHi       Mem // the bits of a one-time key that r has
	descending             Mem // how many lanes come after each
	headPlaces, tailPlaces Mem // offsets of each lane's head and tail in the workspace
)

// poly writes authenticate and its constants.
func poly() {
	clampLo = GLOBL("clampLow", RODATA|NOPTR)
	DATA(0, U64(0x0ffffffc0fffffff))
	clampHi = GLOBL("clampHigh", RODATA|NOPTR)
	DATA(0, U64(0x0ffffffc0ffffffc))

	eight := func(name string, first, by int) Mem {
		m := GLOBL(name, RODATA|NOPTR)
		for i := range 8 {
			DATA(8*i, U64(first+i*by))
		}
		return m
	}
	descending = eight("descending", 7, -1)
	headPlaces = eight("headPlaces", wsHeads, 64)
	tailPlaces = eight("tailPlaces", wsTails, 64)

	TEXT("authenticate", NOSPLIT, "func(ws *byte, slab *byte, from int, to int)")
	Doc("authenticate does steps from to to-1 of eight lanes. It begins them at step 0, and stores the tags after the last.")
	Load(Param("ws"), ws)
	Load(Param("slab"), slab)
	Load(Param("from"), step)
	broadcast(1<<44-1, mask44)
	broadcast(1<<42-1, mask42)
	broadcast(1<<40, padBit)
	TESTQ(step, step)
	JNZ(LabelRef("resume"))
	layOutStripes()
	copyEdges()
	beginLanes()

	Label("resume")
	for i, a := range acc {
		VMOVDQU64(at(ws, wsAcc+64*i), a)
	}
	phases()
	CMPQ(step, at(ws, wsSteps))
	JE(LabelRef("end"))
	for i, a := range acc {
		VMOVDQU64(a, at(ws, wsAcc+64*i))
	}
	ret()

	Label("end")
	endLanes()
	ret()
}

// beginLanes computes r to r⁴ from the one-time keys, stores s, and clears the accumulators.
func beginLanes() {
	for i, p := range pointers {
		MOVQ(at(ws, wsKey+8*i), p)
		ADDQ(ws, p)
	}
	gather(0, [8]Register{Z9, Z10, Z11, Z12, Z13, Z14, Z15, Z16})
	VMOVDQU64(Z11, at(ws, wsAdd))
	VMOVDQU64(Z12, at(ws, wsAdd+64))
	VPANDQ_BCST(clampLo, Z9, Z9)
	VPANDQ_BCST(clampHi, Z10, Z10)

	r := number{Z13, Z14, Z15}
	split(r, Z9, Z10, Z28)
	f := newFactor(r, Z16, Z17, Z28)
	storeFactor(1, f)
	r2 := number{Z18, Z19, Z20}
	multiply(r2, r, f, Z28)
	f2 := newFactor(r2, Z21, Z22, Z28)
	storeFactor(2, f2)
	multiply(number{Z23, Z24, Z25}, r2, f, Z28)
	storeFactor(3, newFactor(number{Z23, Z24, Z25}, Z26, Z27, Z28))
	multiply(number{Z23, Z24, Z25}, r2, f2, Z28)
	storeFactor(4, newFactor(number{Z23, Z24, Z25}, Z26, Z27, Z28))
	for i := range 3 {
		VPXORQ(Z9, Z9, Z9)
		VMOVDQU64(Z9, at(ws, wsAcc+64*i))
	}
}

// endLanes adds up the stripes of each packet, and computes the tags.
func endLanes() {
	// A stripe is n steps of four blocks, so the stripe before it is multiplied by r⁴ⁿ. The packet's sum ends up in its first
	// lane: after one level each second lane holds the sum of two stripes, then each fourth that of four, then of eight.
	n, stripes := RCX, RBX
	MOVQ(at(ws, wsEach), stripes)
	CMPQ(stripes, Imm(1))
	JBE(LabelRef("reduce"))
	base, b := power(4), number{Z9, Z10, Z11}
	for i, m := range []Op{base.r0, base.r1, base.r2} {
		VMOVDQU64(m, b[i])
	}
	MOVQ(at(ws, wsSteps), n)
	BSRQ(n, R8) // square and multiply, over the bits below the highest
	f := func() factor { return newFactor(b, Z12, Z13, Z28) }
	Label("bits")
	TESTQ(R8, R8)
	JZ(LabelRef("add"))
	multiply(b, b, f(), Z28)
	DECQ(R8)
	BTQ(R8, n)
	JCC(LabelRef("bits"))
	multiply(b, b, base, Z28)
	JMP(LabelRef("bits"))

	Label("add")
	next := number{Z14, Z15, Z16}
	shift := func(by uint8) {
		for i := range 3 {
			VALIGNQ(U8(by), acc[i], acc[i], next[i])
		}
	}
	level := func() {
		multiply(acc, acc, f(), Z28)
		for i := range 3 {
			VPADDQ(next[i], acc[i], acc[i])
		}
	}
	shift(1)
	level()
	for _, by := range []uint8{2, 4} {
		CMPQ(stripes, Imm(uint64(by)))
		JBE(LabelRef("reduce"))
		multiply(b, b, f(), Z28)
		shift(by)
		level()
	}

	Label("reduce")
	t := Z28
	carryFrom := func(i int) {
		VPSRLQ(U8(44), acc[i], t)
		VPANDQ(mask44, acc[i], acc[i])
		VPADDQ(t, acc[i+1], acc[i+1])
	}
	carryFrom(0)
	carryFrom(1)
	VPSRLQ(U8(42), acc[2], t)
	VPANDQ(mask42, acc[2], acc[2])
	VPADDQ(t, acc[0], acc[0])
	VPSLLQ(U8(2), t, t)
	VPADDQ(t, acc[0], acc[0])
	carryFrom(0)
	carryFrom(1)
	// The sum h is below 2p. If h+5 reaches 2¹³⁰, then h-p = h+5-2¹³⁰ is the remainder.
	over := number{Z9, Z10, Z11}
	broadcast(5, over[0])
	VPADDQ(acc[0], over[0], over[0])
	VPSRLQ(U8(44), over[0], t)
	VPADDQ(t, acc[1], over[1])
	VPSRLQ(U8(44), over[1], t)
	VPADDQ(t, acc[2], over[2])
	VPSRLQ(U8(42), over[2], t)
	VPTESTMQ(t, t, K1)
	VPANDQ(mask44, over[0], K1, acc[0])
	VPANDQ(mask44, over[1], K1, acc[1])
	VPANDQ(mask42, over[2], K1, acc[2])
	// As 128 bits, plus s. RFC 8439 §2.5.
	low, high := Z9, Z10
	VPSLLQ(U8(44), acc[1], low)
	VPORQ(acc[0], low, low)
	VPSRLQ(U8(20), acc[1], high)
	VPSLLQ(U8(24), acc[2], t)
	VPORQ(t, high, high)
	VMOVDQU64(at(ws, wsAdd), t)
	VPADDQ(t, low, low)
	VPCMPUQ(U8(1), t, low, K1) // less than the summand: a carry
	VPADDQ(at(ws, wsAdd+64), high, high)
	VPTERNLOGQ(U8(0xff), t, t, t)
	VPSUBQ(t, high, K1, high)
	VPUNPCKLQDQ(high, low, t)
	VMOVDQU64(t, at(ws, wsTags))
	VPUNPCKHQDQ(high, low, t)
	VMOVDQU64(t, at(ws, wsTags+64))
}
