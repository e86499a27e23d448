package offload

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

// sums are the ways to sum: the one that this machine takes, and the one every machine has.
var sums = map[string]func([]byte, uint64) uint64{"here": Sum, "portable": sum}

func TestSumAgainstNaive(t *testing.T) {
	for name, sum := range sums {
		t.Run(name, func(t *testing.T) { testSum(t, sum) })
	}
}

func testSum(t *testing.T, sum func([]byte, uint64) uint64) {
	buf := make([]byte, 2048+16)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(buf)
	for align := range 9 {
		for n := range 700 {
			b := buf[align : align+n]
			if got, want := Fold(sum(b, 0)), naiveSum(b); got != want {
				t.Fatalf("align %d length %d: %#04x, want %#04x", align, n, got, want)
			}
			if got, want := Fold(sum(b, sum(buf[1000:1000+2*align], 0))), naiveSum(buf[1000:1000+2*align], b); got != want {
				t.Fatalf("align %d length %d in two pieces: %#04x, want %#04x", align, n, got, want)
			}
		}
	}
}

// wireguard-go lost carries here once (b82c016).
func TestSumKeepsEveryCarry(t *testing.T) {
	lengths := []int{1 << 16, 1<<16 - 1}
	for n := range 600 {
		lengths = append(lengths, n)
	}
	for name, sum := range sums {
		for _, n := range lengths {
			b := bytes.Repeat([]byte{0xff}, n)
			for _, acc := range []uint64{0, 1, 0xffff, 1 << 63, 1<<64 - 1, 1<<64 - 2} {
				accBytes := binary.BigEndian.AppendUint64(nil, acc)
				if got, want := Fold(sum(b, native64(accBytes))), naiveSum(accBytes, b); got != want {
					t.Fatalf("%s: %d bytes of ff on %#x: %#04x, want %#04x", name, n, acc, got, want)
				}
			}
		}
	}
}

func FuzzSum(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, acc uint64) {
		var a [8]byte
		for i := range a {
			a[i] = byte(acc >> (8 * i))
		}
		for name, sum := range sums {
			if got, want := Fold(sum(b, native64(a[:]))), naiveSum(a[:], b); got != want {
				t.Fatalf("%s: %#04x, want %#04x", name, got, want)
			}
		}
	})
}

func BenchmarkSum(b *testing.B) {
	buf := pattern(65536, 0)
	for _, n := range []int{20, 64, 128, 255, 256, 384, 512, 1400, 65535} {
		for _, name := range []string{"here", "portable"} {
			sum := sums[name]
			b.Run(fmt.Sprint(n, "/", name), func(b *testing.B) {
				b.SetBytes(int64(n))
				for b.Loop() {
					sum(buf[:n], 0)
				}
			})
		}
	}
}
