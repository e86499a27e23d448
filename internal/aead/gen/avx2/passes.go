package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	slots    = 3 // Poly1305 blocks interleaved with each double round
	endSlots = 3 // and with the end of a pass
)

// passes writes avx2Passes, which computes the passes of a group. Before each pass it prepares the jobs that became
// ready. While there are jobs the loop "both" does ChaCha20 and Poly1305, otherwise "alone" does ChaCha20 only. With the
// argument drain it ends in "rest", which does Poly1305 only.
func passes() {
	TEXT("avx2Passes", NOSPLIT, "func(w, slab *byte, group, passes, open, drain int)")
	Load(Param("w"), work)
	MOVQ(U32(0), at(work, workPass))

	Label("pass")
	MOVQ(arg("group"), R10)
	MOVQ(at(work, workPass), RAX)
	ADDQ(work, R10)
	MOVQ(Mem{Base: R10, Index: RAX, Scale: 8, Disp: groupReady}, R10)
	TESTQ(R10, R10)
	JEQ(LabelRef("prepared"))
	prepare()
	MOVQ(at(work, workPass), RAX)
	CMPQ(RAX, arg("passes"))
	JEQ(LabelRef("hash"))
	beginPass()
	MOVQ(U32(10), at(work, workRounds))

	Label("hash")
	Comment("Continue the job in progress, or begin the first that is ready.")
	MOVQ(at(work, workJob), t0)
	CMPQ(at(work, workActive), I8(0))
	JEQ(LabelRef("first_start"))
	MOVQ(at(work, workHash), h0)
	MOVQ(at(work, workHash+8), h1)
	MOVQ(at(work, workHash+16), h2)
	MOVQ(at(work, workHash+24), ptr)
	MOVQ(at(work, workHash+32), count)
	MOVQ(Mem{Base: work, Index: t0, Scale: 1, Disp: jobR}, r0)
	MOVQ(Mem{Base: work, Index: t0, Scale: 1, Disp: jobR + 8}, r1)
	Label("first_back")
	MOVQ(at(work, workPass), t0)
	CMPQ(t0, arg("passes"))
	JEQ(LabelRef("rest"))

	var slotsUsed []slot
	blocks := func(n int) code {
		var p code
		for range n {
			s := slot{name: fmt.Sprintf("slot%d", len(slotsUsed))}
			slotsUsed = append(slotsUsed, s)
			p = append(p, s.code()...)
		}
		return p
	}
	Label("both")
	interleave(doubleRound(), blocks(slots))
	MOVQ(at(work, workJob), t0)
	DECQ(at(work, workRounds))
	JEQ(LabelRef("rounded"))
	CMPQ(t0, at(work, workEnd))
	JNE(LabelRef("both"))

	Label("alone")
	doubleRound().emit()
	DECQ(at(work, workRounds))
	JNE(LabelRef("alone"))
	endPass().emit()
	JMP(LabelRef("idle"))

	Label("rounded")
	interleave(endPass(), blocks(endSlots))
	MOVQ(at(work, workJob), t0)
	CMPQ(t0, at(work, workEnd))
	JEQ(LabelRef("idle"))
	MOVQ(U32(1), at(work, workActive))
	MOVQ(h0, at(work, workHash))
	MOVQ(h1, at(work, workHash+8))
	MOVQ(h2, at(work, workHash+16))
	MOVQ(ptr, at(work, workHash+24))
	MOVQ(count, at(work, workHash+32))
	JMP(LabelRef("passed"))
	Label("idle")
	MOVQ(U32(0), at(work, workActive))
	Label("passed")
	MOVQ(at(work, workPass), RAX)
	INCQ(RAX)
	MOVQ(RAX, at(work, workPass))
	CMPQ(RAX, arg("passes"))
	JNE(LabelRef("pass"))
	CMPQ(arg("drain"), I8(0))
	JNE(LabelRef("pass"))
	JMP(LabelRef("return"))

	Label("rest")
	drain := slot{name: "rest", done: "drained"}
	drain.code().emit()
	JMP(LabelRef("rest"))
	Label("drained")
	MOVQ(U32(0), at(work, workActive))
	Label("return")
	VZEROUPPER()
	RET()

	for _, s := range slotsUsed {
		s.over()
	}
	drain.over()
	slot{name: "first", done: "nothing"}.over()
	Label("nothing")
	MOVQ(at(work, workPass), t0)
	CMPQ(t0, arg("passes"))
	JNE(LabelRef("alone"))
	JMP(LabelRef("drained"))
}
