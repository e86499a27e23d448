package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Poly1305, RFC 8439 section 2.5, in 64-bit limbs: the accumulator is h2:h1:h0, h2 having a few bits.

// Registers of Poly1305. RDX is MULX's implicit operand.
var (
	h0, h1, h2 = R8, R9, R10
	ptr, count = RSI, RCX // what is hashed next, and how many blocks of it are left
	r0, r1     = R11, R12
	t0, t1     = RAX, RBX
	t2, t3     = R14, R15
)

// A slot is the code for one block of the job in progress, and a jump that is taken when its current part is done: the
// text's whole blocks, or its padded last block and the block of lengths.
type slot struct {
	name string
	done string // label to jump to when no job is left; "": back into the slot
}

// code absorbs a block. With r clamped, s1 = r1 + r1/4 is 5*r1/4 and replaces r1 for terms from 2^130 on, as 2^130 = 5; h2
// has at most three bits before a block.
func (s slot) code() code {
	var p code
	p.add(func() { ADDQ(at(ptr, 0), h0) })
	p.add(func() { ADCQ(at(ptr, 8), h1) })
	p.add(func() { ADCQ(I8(1), h2); LEAQ(at(ptr, 16), ptr) })
	p.add(func() { MOVQ(h0, RDX); MULXQ(r0, t0, t1) })
	p.add(func() { MULXQ(r1, t2, t3) })
	p.add(func() { MOVQ(h1, RDX); MULXQ(at(work, workS1), h0, h1) })
	p.add(func() { ADDQ(h0, t0); ADCQ(h1, t1) })
	p.add(func() { MULXQ(r0, h0, h1) })
	p.add(func() { ADDQ(h0, t2); ADCQ(h1, t3) })
	p.add(func() { MOVQ(h2, h0); IMULQ(at(work, workS1), h0); IMULQ(r0, h2) })
	p.add(func() { ADDQ(h0, t2); ADCQ(I8(0), t3) })
	p.add(func() { ADDQ(t2, t1); ADCQ(t3, h2) })
	p.add(func() { MOVQ(t0, h0); MOVQ(t1, h1) })
	p.add(func() { MOVQ(h2, t2); SHRQ(U8(2), t2); ANDQ(I8(3), h2) })
	p.add(func() { LEAQ(Mem{Base: t2, Index: t2, Scale: 4}, t2) })
	p.add(func() { ADDQ(t2, h0); ADCQ(I8(0), h1); ADCQ(I8(0), h2) })
	p.add(func() {
		DECQ(count)
		JEQ(LabelRef(s.name + "_over"))
		Label(s.name + "_back")
	})
	return p
}

// over is the code at the end of a part: it goes on with the tail and the lengths of the same packet, or makes its tag
// and goes on with the next packet. Its entry s.name_start begins the first job.
func (s slot) over() {
	back := LabelRef(s.name + "_back")
	l := func(x string) string { return s.name + "_" + x }
	Label(l("over"))
	MOVQ(at(work, workJob), t0)
	LEAQ(Mem{Base: work, Index: t0, Scale: 1}, RDX)
	LEAQ(at(RDX, jobEnd), t1)
	CMPQ(ptr, t1)
	JEQ(LabelRef(l("tag")))
	Label(l("tail"))
	MOVQ(U32(1), count)
	LEAQ(at(RDX, jobLength), ptr)
	TESTB(U8(15), at(RDX, jobLen))
	JEQ(back)
	LEAQ(at(RDX, jobTail), ptr)
	MOVQ(U32(2), count)
	JMP(back)

	Label(l("tag"))
	Comment("Full reduction modulo 2^130-5, then add s: RFC 8439 section 2.5.")
	MOVQ(h0, t1)
	MOVQ(h1, t2)
	ADDQ(I8(5), t1)
	ADCQ(I8(0), t2)
	ADCQ(I8(0), h2)
	SHRQ(U8(2), h2)
	CMOVQNE(t1, h0)
	CMOVQNE(t2, h1)
	ADDQ(at(RDX, jobS), h0)
	ADCQ(at(RDX, jobS+8), h1)
	MOVQ(arg("slab"), t1)
	ADDQ(at(RDX, jobOff), t1)
	ADDQ(at(RDX, jobLen), t1)
	CMPQ(arg("open"), I8(0))
	JNE(LabelRef(l("compare")))
	MOVQ(h0, at(t1, 0))
	MOVQ(h1, at(t1, 8))
	JMP(LabelRef(l("next")))
	Label(l("compare"))
	XORQ(at(t1, 0), h0)
	XORQ(at(t1, 8), h1)
	ORQ(h1, h0)
	MOVQ(h0, at(RDX, jobWrong))
	Label(l("next"))
	INCQ(at(work, workDone))
	MOVQ(at(RDX, jobNext), t0)
	MOVQ(t0, at(work, workJob))
	Label(l("start"))
	CMPQ(t0, at(work, workEnd))
	if s.done == "" {
		// Slots that are left until the next check absorb bytes of the finished job, with no effect.
		JEQ(back)
	} else {
		JEQ(LabelRef(s.done))
	}
	LEAQ(Mem{Base: work, Index: t0, Scale: 1}, RDX)
	MOVQ(at(RDX, jobR), r0)
	MOVQ(at(RDX, jobR+8), r1)
	MOVQ(at(RDX, jobR+16), t1)
	MOVQ(t1, at(work, workS1))
	XORL(h0.As32(), h0.As32())
	XORL(h1.As32(), h1.As32())
	XORL(h2.As32(), h2.As32())
	MOVQ(arg("slab"), ptr)
	ADDQ(at(RDX, jobOff), ptr)
	MOVQ(at(RDX, jobLen), count)
	SHRQ(U8(4), count)
	JEQ(LabelRef(l("tail")))
	JMP(back)
}
