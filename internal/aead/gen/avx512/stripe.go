package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// A lane's head is the first blocks of its stripe, if they don't fill a step; its tail is the blocks of its last step, with
// the padding and the lengths (RFC 8439 §2.8), if that is the end of its packet.

// Masks of lanes: those with their packet's last stripe, and those whose stripe begins with a head.
var lastStripes, hasHead = K6, K7

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
