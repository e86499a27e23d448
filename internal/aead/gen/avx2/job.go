package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// A job is a packet to authenticate. It is ready when the key stream that it needs is complete.

// prepare sets r, s and the lengths of each new job, and when sealing XORs the key stream into the text.
func prepare() {
	job, text, stream, n, tail := RDX, RSI, RBX, RCX, R8
	MOVQ(at(work, workEnd), R9)
	MOVQ(R10, at(work, workEnd))
	MOVQ(U64(0x0ffffffc0fffffff), R11)
	MOVQ(U64(0x0ffffffc0ffffffc), R12)
	Label("prepare")
	CMPQ(R9, R10)
	JEQ(LabelRef("prepared"))
	LEAQ(Mem{Base: work, Index: R9, Scale: 1}, job)
	MOVQ(at(job, jobNext), R9)
	MOVQ(at(job, jobStream), stream)
	ADDQ(work, stream)
	MOVQ(at(stream, 0), RAX)
	ANDQ(R11, RAX)
	MOVQ(RAX, at(job, jobR))
	MOVQ(at(stream, 8), RAX)
	ANDQ(R12, RAX)
	MOVQ(RAX, at(job, jobR+8))
	MOVQ(RAX, R13)
	SHRQ(U8(2), R13)
	ADDQ(R13, RAX)
	MOVQ(RAX, at(job, jobR+16))
	VMOVDQU(at(stream, 16), X0)
	VMOVDQU(X0, at(job, jobS))
	VPXOR(X0, X0, X0)
	VMOVDQU(X0, at(job, jobTail))
	MOVQ(at(job, jobLen), n)
	MOVQ(U32(0), at(job, jobLength))
	MOVQ(n, at(job, jobLength+8))
	MOVQ(arg("slab"), text)
	ADDQ(at(job, jobOff), text)
	LEAQ(at(job, jobTail), tail)
	CMPQ(arg("open"), I8(0))
	JNE(LabelRef("prepare_open"))
	ADDQ(U8(64), stream)
	xor("seal", text, stream, n, tail)
	JMP(LabelRef("prepare"))
	Label("prepare_open")
	TESTQ(U32(15), n)
	JEQ(LabelRef("prepare"))
	MOVQ(n, RAX)
	ANDQ(I8(-16), RAX)
	ADDQ(RAX, text)
	lastBytes("copy", text, nil, n, tail)
	JMP(LabelRef("prepare"))
	Label("prepared")
}
