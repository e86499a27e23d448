package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Registers of the ChaCha20 functions.
var (
	ws   = RDI // the workspace
	slab = RSI
	key  = RDX
)

var sigma, iota32, iota64, eight64, all64 Mem

func chacha() {
	sigma = GLOBL("sigma", RODATA|NOPTR)
	for i, s := range []U32{0x61707865, 0x3320646e, 0x79622d32, 0x6b206574} {
		DATA(4*i, s)
	}
	iota32 = GLOBL("iota32", RODATA|NOPTR)
	for i := range 16 {
		DATA(4*i, U32(i))
	}
	iota64 = GLOBL("iota64", RODATA|NOPTR) // offsets of eight lanes' blocks
	for i := range 8 {
		DATA(8*i, U64(64*i))
	}
	expand()
	firstPass()
	otherPasses()
	wipe()
}

func wipe() {
	TEXT("wipe", NOSPLIT, "func(ws *byte)")
	Doc("wipe clears the secrets in the workspace, and all vector registers.")
	Load(Param("ws"), ws)
	for _, z := range zs {
		VPXORQ(z, z, z)
	}
	for i := 0; i < wsZeros; i += 64 {
		VMOVDQU64(Z0, at(ws, i))
	}
	ret()
}

// expand lays out the lanes of each segment, 16 at a time. What is written beyond a segment's last lane is overwritten by
// the next segment, and after the last segment by idle lanes.
func expand() {
	TEXT("expand", NOSPLIT, "func(ws *byte, slab *byte, first int, segments int)")
	Doc("expand lays out the lanes of segments, beginning with lane first.")
	Load(Param("ws"), ws)
	Load(Param("slab"), slab)
	Load(Param("segments"), RCX)
	seg, lane, left := RBX, RAX, R8
	Load(Param("first"), lane)
	LEAQ(at(ws, wsSegs), seg)
	var (
		block, low, high    = Z0, Z1, Z2
		addr0, addr1        = Z3, Z4
		left0, left1        = Z5, Z6
		shift0, shift1      = Z7, Z8
		step16, step1024    = Z9, Z10
		zero, full, ones    = Z11, Z12, Z13
		offsets0, offsets1  = Z14, Z15
		counts, eightBlocks = Z16, Z17
	)
	MOVQ(U32(16), R9)
	VPBROADCASTD(R9.As32(), step16)
	MOVQ(U32(1024), R9)
	VPBROADCASTQ(R9, step1024)
	MOVQ(U32(64), R9)
	VPBROADCASTQ(R9, full)
	MOVQ(U32(512), R9)
	VPBROADCASTQ(R9, eightBlocks)
	VPXORQ(zero, zero, zero)
	VPTERNLOGQ(U8(0xff), ones, ones, ones)
	VMOVDQU64(iota64, offsets0)
	VPADDQ(eightBlocks, offsets0, offsets1)
	VMOVDQU32(iota32, counts)

	Label("segment")
	TESTQ(RCX, RCX)
	JZ(LabelRef("idle"))
	VPBROADCASTD(at(seg, segBlock), block)
	VPADDD(counts, block, block)
	VPBROADCASTD(at(seg, segCounter), low)
	VPBROADCASTD(at(seg, segCounter+4), high)
	MOVQ(at(seg, segOff), R9)
	ADDQ(slab, R9)
	VPBROADCASTQ(R9, addr0)
	VPADDQ(offsets1, addr0, addr1)
	VPADDQ(offsets0, addr0, addr0)
	VPBROADCASTQ(at(seg, segLeft), left0)
	VPSUBQ(offsets1, left0, left1)
	VPSUBQ(offsets0, left0, left0)
	MOVQ(at(seg, segLanes), left)

	// The mask of a lane with n bytes left is all ones shifted right by 64-n; shifted by 64 or more it is zero.
	Label("row")
	VMOVDQU32(block, indexed(ws, lane, 4, wsBlock))
	VMOVDQU32(low, indexed(ws, lane, 4, wsLow))
	VMOVDQU32(high, indexed(ws, lane, 4, wsHigh))
	VMOVDQU64(addr0, indexed(ws, lane, 8, wsAddr))
	VMOVDQU64(addr1, indexed(ws, lane, 8, wsAddr+64))
	VPSUBQ(left0, full, shift0)
	VPSUBQ(left1, full, shift1)
	VPMAXSQ(zero, shift0, shift0)
	VPMAXSQ(zero, shift1, shift1)
	VPSRLVQ(shift0, ones, shift0)
	VPSRLVQ(shift1, ones, shift1)
	VMOVDQU64(shift0, indexed(ws, lane, 8, wsMask))
	VMOVDQU64(shift1, indexed(ws, lane, 8, wsMask+64))
	CMPQ(left, Imm(16))
	JBE(LabelRef("last"))
	SUBQ(Imm(16), left)
	ADDQ(Imm(16), lane)
	VPADDD(step16, block, block)
	VPADDQ(step1024, addr0, addr0)
	VPADDQ(step1024, addr1, addr1)
	VPSUBQ(step1024, left0, left0)
	VPSUBQ(step1024, left1, left1)
	JMP(LabelRef("row"))
	Label("last")
	ADDQ(left, lane)
	ADDQ(U32(segSize), seg)
	DECQ(RCX)
	JMP(LabelRef("segment"))

	Label("idle")
	LEAQ(at(ws, wsIdle), R9)
	VPBROADCASTQ(R9, addr0)
	VMOVDQU64(addr0, indexed(ws, lane, 8, wsAddr))
	VMOVDQU64(addr0, indexed(ws, lane, 8, wsAddr+64))
	VMOVDQU64(zero, indexed(ws, lane, 8, wsMask))
	VMOVDQU64(zero, indexed(ws, lane, 8, wsMask+64))
	ret()
}

// A stream is a sequence of instructions not yet emitted.
type stream []func()

func (s *stream) do(f func()) { *s = append(*s, f) }

func (s stream) emit() {
	for _, f := range s {
		f()
	}
}

// interleave emits a with b spread evenly over it.
func interleave(a, b stream) {
	done := 0
	for i, f := range a {
		f()
		for ; done*len(a) < (i+1)*len(b); done++ {
			b[done]()
		}
	}
}

// A pass has 16 lanes, in ZMM registers, or 8, in YMM registers, which Intel's CPUs compute on three ports instead of two.
// The functions that follow take the registers of the one or of the other.

// begin loads the state of the lanes from lane on, a register for each word.
func begin(v []VecPhysical, lane Register) (s stream) {
	for i := range 4 {
		s.do(func() { VPBROADCASTD(sigma.Offset(4*i), v[i]) })
	}
	for i := range 8 {
		s.do(func() { VPBROADCASTD(at(key, 4*i), v[4+i]) })
	}
	s.do(func() { VMOVDQU32(indexed(ws, lane, 4, wsBlock), v[12]) })
	s.do(func() { VPXORD(v[13], v[13], v[13]) }) // a nonce begins with four zeros
	s.do(func() { VMOVDQU32(indexed(ws, lane, 4, wsLow), v[14]) })
	s.do(func() { VMOVDQU32(indexed(ws, lane, 4, wsHigh), v[15]) })
	return s
}

// doubleRound is a column round and a diagonal round. RFC 8439 §2.3.
func doubleRound(v []VecPhysical) (s stream) {
	for diagonal := range 2 {
		var q [4][4]Register
		for i := range 4 {
			for j := range 4 {
				q[i][j] = v[4*j+(i+j*diagonal)%4]
			}
		}
		step := func(x, y, z int, n uint8) { // of four quarter rounds. RFC 8439 §2.1
			for i := range 4 {
				s.do(func() { VPADDD(q[i][y], q[i][x], q[i][x]) })
			}
			for i := range 4 {
				s.do(func() { VPXORD(q[i][x], q[i][z], q[i][z]) })
			}
			for i := range 4 {
				s.do(func() { VPROLD(U8(n), q[i][z], q[i][z]) })
			}
		}
		step(0, 1, 3, 16)
		step(2, 3, 1, 12)
		step(0, 1, 3, 8)
		step(2, 3, 1, 7)
	}
	return s
}

// finish adds the initial state, and stores the words.
func finish(v []VecPhysical, lane Register) (s stream) {
	for i := range 16 {
		switch {
		case i < 4:
			s.do(func() { VPADDD_BCST(sigma.Offset(4*i), v[i], v[i]) })
		case i < 12:
			s.do(func() { VPADDD_BCST(at(key, 4*(i-4)), v[i], v[i]) })
		case i == 12:
			s.do(func() { VPADDD(indexed(ws, lane, 4, wsBlock), v[i], v[i]) })
		case i == 14:
			s.do(func() { VPADDD(indexed(ws, lane, 4, wsLow), v[i], v[i]) })
		case i == 15:
			s.do(func() { VPADDD(indexed(ws, lane, 4, wsHigh), v[i], v[i]) })
		}
		s.do(func() { VMOVDQU32(v[i], at(ws, wsWords+64*i)) })
	}
	return s
}

// transpose transposes what finish stored and passes each lane's block, in one of Z24 to Z31, to use. It uses Z16 to Z31.
func transpose(v []VecPhysical, use func(s *stream, lane int, block Register)) (s stream) {
	for half := range 2 {
		// Two of each four lanes, four words at a time: quad[k][j] has words 4j to 4j+3 of lanes 4m+2half+k.
		var quad [2][4]int
		for j := range 4 {
			word := func(i int) Mem { return at(ws, wsWords+64*(4*j+i)) }
			a, c := v[24], v[25]
			quad[0][j], quad[1][j] = 16+j, 20+j
			s.do(func() { VMOVDQU32(word(0), a) })
			s.do(func() { VMOVDQU32(word(2), c) })
			if half == 0 {
				s.do(func() { VPUNPCKLDQ(word(1), a, a) })
				s.do(func() { VPUNPCKLDQ(word(3), c, c) })
			} else {
				s.do(func() { VPUNPCKHDQ(word(1), a, a) })
				s.do(func() { VPUNPCKHDQ(word(3), c, c) })
			}
			s.do(func() { VPUNPCKLQDQ(c, a, v[quad[0][j]]) })
			s.do(func() { VPUNPCKHQDQ(c, a, v[quad[1][j]]) })
		}
		for k := range 2 {
			q := func(j int) Register { return zs[quad[k][j]] }
			s.do(func() { VSHUFI32X4(U8(0x44), q(1), q(0), Z24) })
			s.do(func() { VSHUFI32X4(U8(0x44), q(3), q(2), Z26) })
			if isZMM(v) {
				s.do(func() { VSHUFI32X4(U8(0xee), q(1), q(0), Z25) })
				s.do(func() { VSHUFI32X4(U8(0xee), q(3), q(2), Z27) })
			}
			s.do(func() { VSHUFI32X4(U8(0x88), Z26, Z24, Z28) })
			use(&s, 2*half+k, Z28)
			s.do(func() { VSHUFI32X4(U8(0xdd), Z26, Z24, Z29) })
			use(&s, 4+2*half+k, Z29)
			if isZMM(v) {
				s.do(func() { VSHUFI32X4(U8(0x88), Z27, Z25, Z30) })
				use(&s, 8+2*half+k, Z30)
				s.do(func() { VSHUFI32X4(U8(0xdd), Z27, Z25, Z31) })
				use(&s, 12+2*half+k, Z31)
			}
		}
	}
	return s
}

func isZMM(v []VecPhysical) bool { return v[0] == zs[0] }

// crypt XORs block into the text at the lane's address. lane counts from first.
func crypt(s *stream, first Register, lane int, block Register) {
	k, addr, text := K1, R8, Z16 // Z16 and Z17 are free by now
	if lane%8 >= 4 {             // every other lane
		k, addr, text = K2, R9, Z17
	}
	s.do(func() { MOVQ(indexed(ws, first, 8, wsAddr+8*lane), addr) })
	s.do(func() { KMOVQ(indexed(ws, first, 8, wsMask+8*lane), k) })
	s.do(func() { VMOVDQU8_Z(at(addr, 0), k, text) })
	s.do(func() { VPXORQ(text, block, block) })
	s.do(func() { VMOVDQU8(block, k, at(addr, 0)) })
}

// firstPass computes the key stream of the first 16 lanes.
func firstPass() {
	TEXT("firstPass", NOSPLIT, "func(ws *byte, key *[32]byte)")
	Doc("firstPass computes the key stream of lanes 0 to 15.")
	Load(Param("ws"), ws)
	Load(Param("key"), key)
	XORQ(RAX, RAX)
	begin(zs, RAX).emit()
	tenRounds(zs, "double")
	finish(zs, RAX).emit()
	transpose(zs, func(s *stream, lane int, block Register) {
		s.do(func() { VMOVDQU64(block, at(ws, wsStream+64*lane)) })
	}).emit()
	ret()
}

func tenRounds(v []VecPhysical, label string) {
	count := RCX
	MOVQ(U32(10), count)
	Label(label)
	doubleRound(v).emit()
	DECQ(count)
	JNZ(LabelRef(label))
}

// otherPasses overlaps two passes: during the rounds of one, the previous one is transposed and XORed into the text. Up to
// eight lanes left in the end are a pass of half the width.
func otherPasses() {
	TEXT("otherPasses", NOSPLIT, "func(ws *byte, key *[32]byte, stream int, from int, to int)")
	Doc("otherPasses applies the key stream of the first pass to lanes stream to 15, and then encrypts lanes from to",
		"to-1; from is a multiple of 16.")
	Load(Param("ws"), ws)
	Load(Param("key"), key)
	Load(Param("stream"), RAX)
	Label("xor")
	CMPQ(RAX, Imm(16))
	JAE(LabelRef("passes"))
	MOVQ(indexed(ws, RAX, 8, wsAddr), R8)
	KMOVQ(indexed(ws, RAX, 8, wsMask), K1)
	MOVQ(RAX, R9)
	SHLQ(Imm(6), R9)
	VMOVDQU8_Z(at(R8, 0), K1, Z0)
	VPXORQ(indexed(ws, R9, 1, wsStream), Z0, Z0)
	VMOVDQU8(Z0, K1, at(R8, 0))
	INCQ(RAX)
	JMP(LabelRef("xor"))

	Label("passes")
	lane, to, before, left := RAX, RBX, R10, R11
	Load(Param("from"), lane)
	Load(Param("to"), to)
	MOVQ(to, left)
	SUBQ(lane, left)
	JBE(LabelRef("out"))
	CMPQ(left, Imm(8))
	JBE(LabelRef("few"))
	begin(zs, lane).emit()
	tenRounds(zs, "double")
	finish(zs, lane).emit()

	Label("pass")
	MOVQ(lane, before)
	ADDQ(Imm(16), lane)
	SUBQ(Imm(16), left)
	CMPQ(left, Imm(8))
	JLE(LabelRef("end"))
	write := transpose(zs, func(s *stream, l int, block Register) { crypt(s, before, l, block) })
	begin(zs, lane).emit()
	var rounds stream
	for range 10 {
		rounds = append(rounds, doubleRound(zs)...)
	}
	interleave(rounds, write)
	finish(zs, lane).emit()
	JMP(LabelRef("pass"))

	Label("end")
	write.emit()
	CMPQ(left, Imm(0))
	JLE(LabelRef("out"))
	Label("few")
	begin(ys, lane).emit()
	tenRounds(ys, "half")
	finish(ys, lane).emit()
	transpose(ys, func(s *stream, l int, block Register) { crypt(s, lane, l, block) }).emit()
	Label("out")
	ret()
}
