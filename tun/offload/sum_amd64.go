package offload

import (
	"math/bits"

	"golang.org/x/sys/cpu"
)

var hasAVX2 = cpu.X86.HasAVX2

// wideFrom is the length from which the wide loop is faster, its call included. BenchmarkSum shows it.
const wideFrom = 256

// Sum adds the bytes of b to the one's complement sum acc and returns the new sum; zero begins one. The sum is kept in
// 64 bits and in the host's byte order, which RFC 1071 §2 allows; [Fold] brings it into its final form. When a sum is
// made of several pieces, each but the last must have an even length.
func Sum(b []byte, acc uint64) uint64 {
	if len(b) < wideFrom || !hasAVX2 {
		return sum(b, acc)
	}
	wide := sumAVX2(&b[0], len(b)/128)
	acc, c := bits.Add64(acc, wide, 0)
	return sum(b[len(b)&^127:], acc+c)
}

// sumAVX2 returns the sum of blocks times 128 bytes from p; blocks is at least 1 and far below 2^27.
//
//go:noescape
func sumAVX2(p *byte, blocks int) uint64
