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

// Registers of the Poly1305 function.
var (
	acc              = number{Z0, Z1, Z2}
	mask42           = Z29
	padBit           = Z30
	mask44           = Z31
	lo, hi           = number{Z3, Z4, Z5}, number{Z6, Z7, Z8}
	pointers         = [8]GPPhysical{R8, R9, R10, R11, R12, R13, R14, R15}
	clampLo, clampHi Mem
	step             = RCX

	descending             Mem      // how many lanes come after each
	headPlaces, tailPlaces Mem      // offsets of each lane's head and tail in the workspace
	lastStripes, hasHead   = K6, K7 // in layOutStripes
)

// Predicates of VPCMPUQ.
const equal, lessOrEqual, greater = U8(0), U8(2), U8(6)

// power is rⁿ in the workspace.
func power(n int) factor {
	m := func(i int) Op { return at(ws, wsPowers+64*(5*(4-n)+i)) }
	return factor{m(0), m(1), m(2), m(3), m(4)}
}

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

func storeFactor(n int, f factor) {
	p := power(n)
	for _, m := range [][2]Op{{f.r0, p.r0}, {f.r1, p.r1}, {f.r2, p.r2}, {f.s1, p.s1}, {f.s2, p.s2}} {
		VMOVDQU64(m[0], m[1])
	}
}

// gather loads two blocks of each lane, 32 bytes at disp from its pointer, and transposes them into four vectors: the low
// and the high halves of the first blocks, then those of the second blocks. Of the eight registers r that it uses the
// first four are the result.
func gather(disp int, r [8]Register) {
	for i, lane := range []int{0, 1, 4, 5} { // each with lane+2
		VMOVDQU64(at(pointers[lane], disp), lower(r[4+i]))
		VINSERTI64X4(U8(1), at(pointers[lane+2], disp), r[4+i], r[4+i])
	}
	VPUNPCKLQDQ(r[5], r[4], r[0])
	VPUNPCKHQDQ(r[5], r[4], r[1])
	VPUNPCKLQDQ(r[7], r[6], r[4])
	VPUNPCKHQDQ(r[7], r[6], r[5])
	VSHUFI64X2(U8(0xdd), r[4], r[0], r[2])
	VSHUFI64X2(U8(0xdd), r[5], r[1], r[3])
	VSHUFI64X2(U8(0x88), r[4], r[0], r[0])
	VSHUFI64X2(U8(0x88), r[5], r[1], r[1])
}

// split makes limbs of the two halves of a block. t is overwritten.
func split(x number, low, high, t Register) {
	VPSRLQ(U8(44), low, x[1])
	VPSLLQ(U8(20), high, t)
	VPTERNLOGQ(U8(0xa8), mask44, t, x[1]) // (x1 | t) & mask
	VPANDQ(mask44, low, x[0])
	VPSRLQ(U8(24), high, x[2])
}

func broadcast(v uint64, z Register) {
	MOVQ(U64(v), RAX)
	VPBROADCASTQ(RAX, z)
}

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

// layOutStripes computes the lanes' stripes from the packets' lengths. A packet's last stripe ends with its last block,
// that of the lengths; each stripe before ends earlier by as many blocks as all steps together have.
func layOutStripes() {
	length, steps, stepBlocks, ones, zero := Z3, Z4, Z5, Z6, Z7
	VMOVDQU64(at(ws, wsLen), length)
	VPBROADCASTQ(at(ws, wsSteps), steps)
	VPSLLQ(U8(2), steps, stepBlocks)
	VPTERNLOGQ(U8(0xff), ones, ones, ones)
	VPXORQ(zero, zero, zero)

	stripesAfter := Z8
	VPBROADCASTQ(at(ws, wsEach), stripesAfter)
	VPADDQ(ones, stripesAfter, stripesAfter)
	VPANDQ(descending, stripesAfter, stripesAfter)
	VPTESTNMQ(stripesAfter, stripesAfter, lastStripes)
	KMOVB(lastStripes, at(ws, wsHasTail))

	end, blocks, start := Z9, Z10, Z11 // the block after the stripe, its number of blocks, and the step in which it begins
	VPADDQ_BCST(constant(31), length, end)
	VPSRLQ(U8(4), end, end)
	VPMULUDQ(stripesAfter, stepBlocks, blocks)
	VPSUBQ(blocks, end, end)
	VPMAXSQ(zero, end, blocks)
	VPMINSQ(stepBlocks, blocks, blocks)
	VPADDQ_BCST(constant(3), blocks, start)
	VPSRLQ(U8(2), start, start)
	VPSUBQ(start, steps, start)
	VMOVDQU64(start, at(ws, wsStart))

	base := Z12
	VPSUBQ(stepBlocks, end, base)
	VPSLLQ(U8(4), base, base)
	VPADDQ(at(ws, wsOff), base, base)
	VPBROADCASTQ(slab, Z13)
	VPADDQ(Z13, base, base)
	VMOVDQU64(base, at(ws, wsBase))

	// tail: blocks in the packet's last step. head: blocks in the stripe's first, if that is another and not full.
	tail, head := Z13, Z14
	VPMINUQ_BCST_Z(constant(4), blocks, lastStripes, tail)
	VPANDQ_BCST(constant(3), blocks, head)
	VPCMPUQ(greater, tail, blocks, hasHead)
	VPTESTMQ(head, head, hasHead, hasHead)
	KMOVB(hasHead, at(ws, wsHasHead))
	MOVB(U8(0), at(ws, wsHeadPads))
	for i := 1; i < 4; i++ { // a head never has the first of the four blocks
		VPCMPUQ_BCST(greater, constant(uint64(3-i)), head, hasHead, K1)
		KMOVB(K1, at(ws, wsHeadPads+i))
	}
	for i := range 4 {
		VPCMPUQ_BCST(greater, constant(uint64(3-i)), tail, K1)
		KMOVB(K1, at(ws, wsTailPads+i))
	}

	// Lanes without a head or a tail have the mask zero, and the workspace's address, which is readable.
	address, mask, full, other := Z15, Z16, Z17, Z18
	VPBROADCASTQ(constant(64), full)
	VPBROADCASTQ(ws, address)
	VPSLLQ(U8(6), start, other)
	VPADDQ(base, other, hasHead, address)
	VMOVDQU64(address, at(ws, wsHeadAt))
	VPSLLQ(U8(4), head, mask)
	VPSUBQ(mask, full, mask)
	VPSLLVQ_Z(mask, ones, hasHead, mask)
	VMOVDQU64(mask, at(ws, wsHeadMask))

	VPBROADCASTQ(ws, address)
	VPADDQ(ones, steps, other)
	VPSLLQ(U8(6), other, other)
	VPADDQ(base, other, lastStripes, address)
	VMOVDQU64(address, at(ws, wsTailAt))
	// The block of lengths takes the last 16 bytes; before it come the text and its padding to a multiple of 16.
	VPSLLQ(U8(4), tail, mask)
	VPSUBQ(mask, full, mask)
	VPSLLVQ(mask, ones, mask)
	VPSUBQ(length, zero, other)
	VPANDQ_BCST(constant(15), other, other)
	VPADDQ_BCST(constant(16), other, other)
	VPSRLVQ(other, ones, other)
	VPANDQ(other, mask, mask)
	VMOVDQU64(mask, at(ws, wsTailMask))
}

// copyEdges copies each lane's head and tail to the workspace, so that the steps read without masks.
func copyEdges() {
	MOVQ(U32(0x80), RAX)
	KMOVQ(RAX, K3)
	for i := range 8 {
		MOVQ(at(ws, wsHeadAt+8*i), RAX)
		MOVQ(at(ws, wsTailAt+8*i), RBX)
		KMOVQ(at(ws, wsHeadMask+8*i), K1)
		KMOVQ(at(ws, wsTailMask+8*i), K2)
		VMOVDQU8_Z(at(RAX, 0), K1, Z3)
		VMOVDQU8_Z(at(RBX, 0), K2, Z4)
		VPBROADCASTQ(at(ws, wsLen+8*i), K3, Z4)
		VMOVDQU64(Z3, at(ws, wsHeads+64*i))
		VMOVDQU64(Z4, at(ws, wsTails+64*i))
	}
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

// phases does the steps: acc = (acc + m₀)r⁴ + m₁r³ + m₂r² + m₃r in each. A phase is steps that differ in nothing but the
// data. A new one begins in a step in which a lane begins, after a step with heads, and with the last step.
func phases() {
	begun, heads, tails, next, last, to, pads, other := RAX, RBX, R8, RDX, R9, R10, R11, R12
	Label("phase")
	VPBROADCASTQ(step, Z3)
	VMOVDQU64(at(ws, wsStart), Z4)
	VPCMPUQ(lessOrEqual, Z3, Z4, K5)
	VPCMPUQ(equal, Z3, Z4, K6)
	KMOVB(K5, begun.As32())
	KMOVB(K6, heads.As32())
	ANDB(at(ws, wsHasHead), heads.As8())

	// The next step in which a lane begins.
	KNOTB(K5, K5)
	VPTERNLOGQ(U8(0xff), Z5, Z5, Z5)
	VPANDQ(Z4, Z5, K5, Z5)
	for _, by := range []uint8{4, 2, 1} {
		VALIGNQ(U8(by), Z5, Z5, Z6)
		VPMINUQ(Z6, Z5, Z5)
	}
	VMOVQ(X5, next)

	MOVQ(at(ws, wsSteps), last)
	DECQ(last)
	XORL(tails.As32(), tails.As32())
	CMPQ(step, last)
	JNE(LabelRef("before"))
	MOVBLZX(at(ws, wsHasTail), tails.As32())
	INCQ(last)
	Label("before")
	CMPQ(next, last)
	CMOVQHI(last, next)
	LEAQ(at(step, 1), other)
	TESTL(heads.As32(), heads.As32())
	CMOVQNE(other, next)
	Load(Param("to"), to)
	CMPQ(next, to)
	CMOVQHI(to, next)

	// Which blocks exist: all four of a lane that has begun, except in its head and its tail.
	MOVL(heads.As32(), pads.As32())
	ORL(tails.As32(), pads.As32())
	NOTL(pads.As32())
	ANDL(begun.As32(), pads.As32())
	IMUL3L(U32(0x01010101), pads.As32(), pads.As32())
	IMUL3L(U32(0x01010101), heads.As32(), other.As32())
	ANDL(at(ws, wsHeadPads), other.As32())
	ORL(other.As32(), pads.As32())
	IMUL3L(U32(0x01010101), tails.As32(), other.As32())
	ANDL(at(ws, wsTailPads), other.As32())
	ORL(other.As32(), pads.As32())
	has := []Register{K1, K2, K3, K4}
	for i, k := range has {
		if i > 0 {
			SHRL(U8(8), pads.As32())
		}
		KMOVB(pads.As32(), k)
	}

	KMOVB(heads.As32(), K6)
	KMOVB(tails.As32(), K7)
	VPSLLQ(U8(6), Z3, Z3)
	VPADDQ(at(ws, wsBase), Z3, Z3)
	VPBROADCASTQ(ws, Z4)
	VPADDQ_BCST(constant(wsZeros), Z4, K5, Z3)
	VPADDQ(headPlaces, Z4, K6, Z3)
	VPADDQ(tailPlaces, Z4, K7, Z3)
	VMOVDQU64(Z3, at(ws, wsPtrs))
	for i, p := range pointers {
		MOVQ(at(ws, wsPtrs+8*i), p)
	}
	KNOTB(K5, K5) // lanes that haven't begun don't advance
	VPBROADCASTQ_Z(constant(64), K5, Z3)
	VMOVDQU64(Z3, at(ws, wsIncs))

	left := RAX
	MOVQ(next, left)
	SUBQ(step, left)
	MOVQ(next, step)

	Label("step")
	halves := [4][2]Register{{Z9, Z10}, {Z11, Z12}, {Z13, Z14}, {Z15, Z16}}
	gather(0, [8]Register{Z9, Z10, Z11, Z12, Z17, Z18, Z19, Z20})
	gather(32, [8]Register{Z13, Z14, Z15, Z16, Z21, Z22, Z23, Z24})
	for i, p := range pointers {
		ADDQ(at(ws, wsIncs+8*i), p)
	}
	m := number{Z25, Z26, Z27}
	clearProducts()
	for _, b := range []int{1, 2, 3, 0} { // block 0, which needs acc, comes last
		split(m, halves[b][0], halves[b][1], Z28)
		VPORQ(padBit, m[2], has[b], m[2])
		if b == 0 {
			for i := range 3 {
				VPADDQ(acc[i], m[i], m[i])
			}
		}
		accumulate(m, power(4-b))
	}
	carry(acc, Z28)
	DECQ(left)
	JNZ(LabelRef("step"))
	Load(Param("to"), left)
	CMPQ(step, left)
	JB(LabelRef("phase"))
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
