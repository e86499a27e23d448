package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// ChaCha20, RFC 8439 section 2.3: eight blocks at a time, block i in lane i of each register, a register for each state word.

// Registers of ChaCha20: state words 0 to 3, 4 to 7 and 12 to 15. Words 8 to 11 take turns in c0 and c1; those that aren't
// there are in the work area.
var (
	rowA   = []VecPhysical{Y0, Y1, Y2, Y3}
	rowB   = []VecPhysical{Y4, Y5, Y6, Y7}
	rowD   = []VecPhysical{Y8, Y9, Y10, Y11}
	c0, c1 = Y12, Y13 // state words 8 and 9, or 10 and 11
	tmp    = []VecPhysical{Y14, Y15}
	out    = R13 // where the pass writes its blocks
)

// Constants in memory: VPSHUFB's masks for rotations by 16 and by 8, the first four state words (RFC 8439 section 2.3), and
// block counters 0 to 7 with what to add for the next eight.
var rot16, rot8, sigma, count8 Mem

// constants writes them.
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

// quarterRounds appends two interleaved quarter rounds: RFC 8439 section 2.1. The words c are read from the operands from and end in c0 and c1.
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

// transpose appends code that stores eight state words as half a block of each lane: block i at out+64i, the half at off in
// it. It overwrites x and free.
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

// broadcastKey writes avx2Key, which puts a key into the work area, each word in all eight lanes.
func broadcastKey() {
	TEXT("avx2Key", NOSPLIT, "func(w *byte, key *byte)")
	Load(Param("w"), RAX)
	Load(Param("key"), RBX)
	for i := range 8 {
		VPBROADCASTD(at(RBX, 4*i), Y0)
		VMOVDQU(Y0, at(RAX, workKey+32*i))
	}
	VZEROUPPER()
	RET()
}
