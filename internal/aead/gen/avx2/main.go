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
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Offsets in avx2Work, avx2Group and avx2Job of avx2_amd64.go; a test compares them.
const (
	workRows   = 0   // state words 8 to 11 while they aren't in registers
	workKey    = 128 // state words 4 to 11 before the rounds: the key
	workLane   = 384 // state words 12, 14 and 15 before the rounds
	workHash   = 480 // accumulator, pointer and block count of the job in progress
	workS1     = 520 // its r1 + r1/4
	workJob    = 528 // offset of the job in progress
	workEnd    = 536 // offset of the first job that isn't ready
	workActive = 544 // whether workHash is in use
	workRounds = 552 // double rounds to go
	workPass   = 560 // passes done
	workDone   = 568 // jobs done
	workGroups = 640

	groupBlock  = 0
	groupLow    = groupBlock + 4*(lanes+spare)
	groupHigh   = groupLow + 4*(lanes+spare)
	groupReady  = groupHigh + 4*(lanes+spare)
	groupStream = groupReady + 256
	groupJobs   = groupStream + 64*lanes

	jobOff    = 0
	jobLen    = 8
	jobStream = 16
	jobWrong  = 24
	jobTail   = 32
	jobLength = 48
	jobEnd    = 64
	jobR      = 64 // r0, r1, r1+r1/4
	jobNext   = 88
	jobS      = 96

	lanes = 128
	spare = 16

	slots    = 3 // Poly1305 blocks interleaved with each double round
	endSlots = 3 // and with the end of a pass
)

var (
	// Poly1305.
	work       = RDI
	h0, h1, h2 = R8, R9, R10
	ptr, count = RSI, RCX
	r0, r1     = R11, R12
	out        = R13 // where the pass writes its blocks
	t0, t1     = RAX, RBX
	t2, t3     = R14, R15
	// RDX is MULX's implicit operand.

	// ChaCha20.
	rowA   = []VecPhysical{Y0, Y1, Y2, Y3}
	rowB   = []VecPhysical{Y4, Y5, Y6, Y7}
	rowD   = []VecPhysical{Y8, Y9, Y10, Y11}
	c0, c1 = Y12, Y13 // state words 8 and 9, or 10 and 11
	tmp    = []VecPhysical{Y14, Y15}
)

func at(base Register, off int) Mem { return Mem{Base: base, Disp: off} }

func arg(name string) Mem {
	b, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

// A code is a sequence of instructions not yet emitted.
type code []func()

func (c *code) add(f func()) { *c = append(*c, f) }

func (c code) emit() {
	for _, f := range c {
		f()
	}
}

// interleave emits a with b spread evenly over it.
func interleave(a, b code) {
	j := 0
	for i, f := range a {
		f()
		for ; j*len(a) < (i+1)*len(b); j++ {
			b[j]()
		}
	}
}

// ---- ChaCha20

var rot16, rot8, sigma, count8 Mem

func constants() {
	rot16 = GLOBL("avx2Rot16", RODATA|NOPTR)
	for i, x := range []uint64{0x0504070601000302, 0x0d0c0f0e09080b0a, 0x0504070601000302, 0x0d0c0f0e09080b0a} {
		DATA(8*i, U64(x))
	}
	rot8 = GLOBL("avx2Rot8", RODATA|NOPTR)
	for i, x := range []uint64{0x0605040702010003, 0x0e0d0c0f0a09080b, 0x0605040702010003, 0x0e0d0c0f0a09080b} {
		DATA(8*i, U64(x))
	}
	sigma = GLOBL("avx2Sigma", RODATA|NOPTR)
	for i, x := range []uint32{0x61707865, 0x3320646e, 0x79622d32, 0x6b206574} {
		for j := range 8 {
			DATA(32*i+4*j, U32(x))
		}
	}
	count8 = GLOBL("avx2Count", RODATA|NOPTR)
	for i := range 8 {
		DATA(4*i, U32(i))
	}
	for i := range 8 {
		DATA(32+4*i, U32(8))
	}
}

// quarterRounds appends two interleaved quarter rounds. The words c are read from the operands from and end in c0 and c1.
func quarterRounds(p *code, a, b [2]VecPhysical, from [2]Op, d [2]VecPhysical) {
	c := [2]VecPhysical{c0, c1}
	each := func(f func(i int)) {
		for i := range 2 {
			p.add(func() { f(i) })
		}
	}
	addXor := func(x, y, z [2]VecPhysical) {
		each(func(i int) { VPADDD(y[i], x[i], x[i]) })
		each(func(i int) { VPXOR(x[i], z[i], z[i]) })
	}
	rot := func(x [2]VecPhysical, n uint64) {
		each(func(i int) { VPSLLD(U8(n), x[i], tmp[i]) })
		each(func(i int) { VPSRLD(U8(32-n), x[i], x[i]) })
		each(func(i int) { VPOR(tmp[i], x[i], x[i]) })
	}
	addXor(a, b, d)
	each(func(i int) { VPSHUFB(rot16, d[i], d[i]) })
	each(func(i int) { VPADDD(from[i], d[i], c[i]) })
	each(func(i int) { VPXOR(c[i], b[i], b[i]) })
	rot(b, 12)
	addXor(a, b, d)
	each(func(i int) { VPSHUFB(rot8, d[i], d[i]) })
	addXor(c, d, b)
	rot(b, 7)
}

// doubleRound is a column and a diagonal round. It begins and ends with words 8 and 9 in registers, 10 and 11 in memory.
func doubleRound() code {
	var p code
	pair := func(v []VecPhysical, i, j int) [2]VecPhysical { return [2]VecPhysical{v[i], v[j]} }
	inRegisters := [2]Op{c0, c1}
	row := func(i int) Mem { return at(work, workRows+32*i) }
	spill := func(i int) {
		p.add(func() { VMOVDQU(c0, row(i)) })
		p.add(func() { VMOVDQU(c1, row(i+1)) })
	}
	quarterRounds(&p, pair(rowA, 0, 1), pair(rowB, 0, 1), inRegisters, pair(rowD, 0, 1))
	spill(0)
	quarterRounds(&p, pair(rowA, 2, 3), pair(rowB, 2, 3), [2]Op{row(2), row(3)}, pair(rowD, 2, 3))
	quarterRounds(&p, pair(rowA, 0, 1), pair(rowB, 1, 2), inRegisters, pair(rowD, 3, 0))
	spill(2)
	quarterRounds(&p, pair(rowA, 2, 3), pair(rowB, 3, 0), [2]Op{row(0), row(1)}, pair(rowD, 1, 2))
	return p
}

// beginPass loads the state: constants, key, and each lane's block counter and nonce, whose first word is zero. It points
// out at where the blocks go.
func beginPass() {
	Comment("Constants, key, block counters, nonces: RFC 8439 section 2.3.")
	MOVQ(at(work, workPass), RBX)
	MOVQ(arg("group"), RAX)
	ADDQ(work, RAX)
	MOVQ(RBX, out)
	SHLQ(U8(9), out)
	LEAQ(Mem{Base: RAX, Index: out, Scale: 1, Disp: groupStream}, out)
	SHLQ(U8(5), RBX)
	ADDQ(RBX, RAX)
	for i := range 4 {
		VMOVDQU(sigma.Offset(32*i), rowA[i])
		VMOVDQU(at(work, workKey+32*i), rowB[i])
	}
	for i, from := range []int{groupBlock, groupLow, groupHigh} {
		row := rowD[[]int{0, 2, 3}[i]]
		VMOVDQU(at(RAX, from), row)
		VMOVDQU(row, at(work, workLane+32*i))
	}
	VPXOR(rowD[1], rowD[1], rowD[1])
	for i := range 2 {
		VMOVDQU(at(work, workKey+192+32*i), tmp[i])
		VMOVDQU(tmp[i], at(work, workRows+64+32*i))
	}
	VMOVDQU(at(work, workKey+128), c0)
	VMOVDQU(at(work, workKey+160), c1)
}

// layOut writes avx2Lay, which sets block counter and nonce of a packet's lanes. It sets eight lanes at a time, so up to
// seven after the packet's, which the next packet overwrites or nobody uses.
func layOut() {
	TEXT("avx2Lay", NOSPLIT, "func(group *byte, lane, blocks int, counter uint64)")
	to, n := Load(Param("group"), RAX), Load(Param("blocks"), RCX)
	lane := Load(Param("lane"), RBX)
	LEAQ(Mem{Base: to, Index: lane, Scale: 4}, to.(GPPhysical))
	VPBROADCASTQ(arg("counter"), Y2)
	VPSHUFD(U8(0xa0), Y2, Y1)
	VPSHUFD(U8(0xf5), Y2, Y2)
	VMOVDQU(count8, Y0)
	VMOVDQU(count8.Offset(32), Y3)
	Label("lanes")
	VMOVDQU(Y0, at(to, groupBlock))
	VMOVDQU(Y1, at(to, groupLow))
	VMOVDQU(Y2, at(to, groupHigh))
	VPADDD(Y3, Y0, Y0)
	ADDQ(U8(32), to)
	SUBQ(U8(8), n)
	JGT(LabelRef("lanes"))
	VZEROUPPER()
	RET()
}

// endPass adds the initial state, and stores the eight blocks one after the other.
func endPass() code {
	var p code
	add := func(m Mem, y VecPhysical) { p.add(func() { VPADDD(m, y, y) }) }
	for i := range 4 {
		add(sigma.Offset(32*i), rowA[i])
		add(at(work, workKey+32*i), rowB[i])
	}
	transpose(&p, append(append([]VecPhysical{}, rowA...), rowB...), append([]VecPhysical{}, tmp...), 0)
	for i := range 2 {
		p.add(func() { VMOVDQU(at(work, workRows+64+32*i), rowA[i]) })
	}
	rows := []VecPhysical{c0, c1, rowA[0], rowA[1], rowD[0], rowD[1], rowD[2], rowD[3]}
	for i := range 4 {
		add(at(work, workKey+128+32*i), rows[i])
	}
	for i, j := range []int{0, 2, 3} {
		add(at(work, workLane+32*i), rowD[j])
	}
	transpose(&p, rows, append([]VecPhysical{rowB[0], rowB[1], rowB[2], rowB[3]}, tmp...), 32)
	return p
}

// transpose appends the storing of eight state words as half a block of each lane.
func transpose(p *code, x, free []VecPhysical, off int) {
	alloc := func() VecPhysical {
		y := free[0]
		free = free[1:]
		return y
	}
	// unpack interleaves a and b, the low halves into a free register and the high ones into a. Then b is free.
	unpack := func(lo, hi func(ops ...Op), a, b VecPhysical) (l, h VecPhysical) {
		l = alloc()
		p.add(func() { lo(b, a, l) })
		p.add(func() { hi(b, a, a) })
		free = append(free, b)
		return l, a
	}
	var q [2][4]VecPhysical // words 0-3 and 4-7, of lanes i and 4+i
	for g := range 2 {
		l0, h0 := unpack(VPUNPCKLDQ, VPUNPCKHDQ, x[4*g], x[4*g+1])
		l1, h1 := unpack(VPUNPCKLDQ, VPUNPCKHDQ, x[4*g+2], x[4*g+3])
		q[g][0], q[g][1] = unpack(VPUNPCKLQDQ, VPUNPCKHQDQ, l0, l1)
		q[g][2], q[g][3] = unpack(VPUNPCKLQDQ, VPUNPCKHQDQ, h0, h1)
	}
	for i := range 4 {
		l, h := alloc(), q[0][i]
		p.add(func() { VINSERTI128(U8(1), q[1][i].AsX(), h, l) })
		p.add(func() { VMOVDQU(l, at(out, 64*i+off)) })
		p.add(func() { VPERM2I128(U8(0x31), q[1][i], h, h) })
		p.add(func() { VMOVDQU(h, at(out, 64*(4+i)+off)) })
		free = append(free, l)
	}
}

// ---- Poly1305, RFC 8439 section 2.5, in 64-bit limbs: the accumulator is h2:h1:h0, h2 having a few bits.

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

// ---- Packets whose key stream is complete

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
	rest := slot{name: "rest", done: "drained"}
	rest.code().emit()
	JMP(LabelRef("rest"))
	Label("drained")
	MOVQ(U32(0), at(work, workActive))
	Label("return")
	VZEROUPPER()
	RET()

	for _, s := range slotsUsed {
		s.over()
	}
	rest.over()
	slot{name: "first", done: "nothing"}.over()
	Label("nothing")
	MOVQ(at(work, workPass), t0)
	CMPQ(t0, arg("passes"))
	JNE(LabelRef("alone"))
	JMP(LabelRef("drained"))
}

func main() {
	ConstraintExpr("amd64")
	constants()
	passes()
	layOut()

	TEXT("avx2Key", NOSPLIT, "func(w *byte, key *byte)")
	Load(Param("w"), RAX)
	Load(Param("key"), RBX)
	for i := range 8 {
		VPBROADCASTD(at(RBX, 4*i), Y0)
		VMOVDQU(Y0, at(RAX, workKey+32*i))
	}
	VZEROUPPER()
	RET()

	TEXT("avx2XOR", NOSPLIT, "func(text, stream *byte, n int)")
	Load(Param("text"), RSI)
	Load(Param("stream"), RBX)
	Load(Param("n"), RCX)
	xor("open", RSI, RBX, RCX, nil)
	VZEROUPPER()
	RET()
	Generate()
}
