package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Predicates of VPCMPUQ.
const equal, lessOrEqual, greater = U8(0), U8(2), U8(6)

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
