//go:build !amd64

package offload

// Sum adds the bytes of b to the one's complement sum acc and returns the new sum; zero begins one. The sum is kept in
// 64 bits and in the host's byte order, which RFC 1071 §2 allows; [Fold] brings it into its final form. When a sum is
// made of several pieces, each but the last must have an even length.
func Sum(b []byte, acc uint64) uint64 { return sum(b, acc) }
