#include "textflag.h"

// func sumAVX2(p *byte, blocks int) uint64
//
// Adds the 32-bit words of blocks of 128 bytes, each word into a 64-bit lane: the low and the high halves of four
// registers go into eight accumulators. A lane can't overflow below 2^32 words.
TEXT ·sumAVX2(SB), NOSPLIT, $0-24
	MOVQ     p+0(FP), SI
	MOVQ     blocks+8(FP), CX
	VPCMPEQD Y15, Y15, Y15
	VPSRLQ   $32, Y15, Y15         // selects the low half of each lane
	VPXOR    Y0, Y0, Y0
	VPXOR    Y1, Y1, Y1
	VPXOR    Y2, Y2, Y2
	VPXOR    Y3, Y3, Y3
	VPXOR    Y4, Y4, Y4
	VPXOR    Y5, Y5, Y5
	VPXOR    Y6, Y6, Y6
	VPXOR    Y7, Y7, Y7

block:
	VMOVDQU (SI), Y8
	VMOVDQU 32(SI), Y9
	VMOVDQU 64(SI), Y10
	VMOVDQU 96(SI), Y11
	VPSRLQ  $32, Y8, Y12
	VPSRLQ  $32, Y9, Y13
	VPAND   Y15, Y8, Y8
	VPAND   Y15, Y9, Y9
	VPADDQ  Y12, Y4, Y4
	VPADDQ  Y13, Y5, Y5
	VPADDQ  Y8, Y0, Y0
	VPADDQ  Y9, Y1, Y1
	VPSRLQ  $32, Y10, Y12
	VPSRLQ  $32, Y11, Y13
	VPAND   Y15, Y10, Y10
	VPAND   Y15, Y11, Y11
	VPADDQ  Y12, Y6, Y6
	VPADDQ  Y13, Y7, Y7
	VPADDQ  Y10, Y2, Y2
	VPADDQ  Y11, Y3, Y3
	ADDQ    $128, SI
	DECQ    CX
	JNZ     block

	VPADDQ       Y4, Y0, Y0
	VPADDQ       Y5, Y1, Y1
	VPADDQ       Y6, Y2, Y2
	VPADDQ       Y7, Y3, Y3
	VPADDQ       Y1, Y0, Y0
	VPADDQ       Y3, Y2, Y2
	VPADDQ       Y2, Y0, Y0
	VEXTRACTI128 $1, Y0, X1
	VPADDQ       X1, X0, X0
	VPSRLDQ      $8, X0, X1
	VPADDQ       X1, X0, X0
	MOVQ         X0, ret+16(FP)
	VZEROUPPER
	RET
