package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// xorText writes avx2XOR, which opens a packet whose tag is right: it XORs the key stream into the text.
func xorText() {
	TEXT("avx2XOR", NOSPLIT, "func(text, stream *byte, n int)")
	Load(Param("text"), RSI)
	Load(Param("stream"), RBX)
	Load(Param("n"), RCX)
	xor("open", RSI, RBX, RCX, nil)
	VZEROUPPER()
	RET()
}

// xor XORs the key stream into n bytes of text. The last n%16 bytes are copied to tail too, if that is given.
func xor(name string, text, stream, n, tail Register) {
	l := func(x string) string { return name + "_" + x }
	step := func(size int, y ...VecPhysical) {
		w := size / len(y)
		for i := range y {
			VMOVDQU(at(stream, w*i), y[i])
		}
		for i := range y {
			VPXOR(at(text, w*i), y[i], y[i])
		}
		for i := range y {
			VMOVDQU(y[i], at(text, w*i))
		}
		ADDQ(I8(int8(size)), text)
		ADDQ(I8(int8(size)), stream)
	}
	Label(l("64"))
	SUBQ(I8(64), n)
	JLT(LabelRef(l("32")))
	step(64, Y0, Y1)
	JMP(LabelRef(l("64")))
	Label(l("32"))
	TESTQ(U32(32), n)
	JEQ(LabelRef(l("16")))
	step(32, Y0)
	Label(l("16"))
	TESTQ(U32(16), n)
	JEQ(LabelRef(l("15")))
	step(16, X0)
	Label(l("15"))
	TESTQ(U32(15), n)
	JEQ(LabelRef(l("done")))
	lastBytes(l("tail"), text, stream, n, tail)
	Label(l("done"))
}

// lastBytes does the last n%16 bytes: it XORs the stream in if there is one, and copies them to tail if that is given.
func lastBytes(name string, text, stream, n, tail Register) {
	l := func(size int) string { return fmt.Sprintf("%s_%d", name, size) }
	for _, size := range []int{8, 4, 2, 1} {
		get := map[int]func(){8: func() { MOVQ(at(text, 0), RAX) }, 4: func() { MOVL(at(text, 0), EAX) },
			2: func() { MOVWLZX(at(text, 0), EAX) }, 1: func() { MOVBLZX(at(text, 0), EAX) }}[size]
		add := map[int]func(){8: func() { XORQ(at(stream, 0), RAX) }, 4: func() { XORL(at(stream, 0), EAX) },
			2: func() { XORW(at(stream, 0), AX) }, 1: func() { XORB(at(stream, 0), AL) }}[size]
		put := map[int]func(to Register){8: func(to Register) { MOVQ(RAX, at(to, 0)) }, 4: func(to Register) { MOVL(EAX, at(to, 0)) },
			2: func(to Register) { MOVW(AX, at(to, 0)) }, 1: func(to Register) { MOVB(AL, at(to, 0)) }}[size]
		TESTQ(U32(uint32(size)), n)
		JEQ(LabelRef(l(size)))
		get()
		if stream != nil {
			add()
			put(text)
		}
		if tail != nil {
			put(tail)
		}
		if size > 1 {
			ADDQ(I8(int8(size)), text)
			if stream != nil {
				ADDQ(I8(int8(size)), stream)
			}
			if tail != nil {
				ADDQ(I8(int8(size)), tail)
			}
		}
		Label(l(size))
	}
}
