package offload

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestSumAgainstNaive(t *testing.T) {
	buf := make([]byte, 2048+16)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(buf)
	for align := range 9 {
		for n := range 700 {
			b := buf[align : align+n]
			if got, want := Fold(Sum(b, 0)), naiveSum(b); got != want {
				t.Fatalf("align %d length %d: %#04x, want %#04x", align, n, got, want)
			}
			if got, want := Fold(Sum(b, Sum(buf[1000:1000+2*align], 0))), naiveSum(buf[1000:1000+2*align], b); got != want {
				t.Fatalf("align %d length %d in two pieces: %#04x, want %#04x", align, n, got, want)
			}
		}
	}
}

// wireguard-go lost carries here once (b82c016).
func TestSumKeepsEveryCarry(t *testing.T) {
	for n := range 600 {
		b := bytes.Repeat([]byte{0xff}, n)
		for _, acc := range []uint64{0, 1, 0xffff, 1 << 63, 1<<64 - 1, 1<<64 - 2} {
			accBytes := []byte{byte(acc >> 56), byte(acc >> 48), byte(acc >> 40), byte(acc >> 32), byte(acc >> 24), byte(acc >> 16), byte(acc >> 8), byte(acc)}
			got := Fold(Sum(b, native64(accBytes)))
			if want := naiveSum(accBytes, b); got != want {
				t.Fatalf("%d bytes of ff on %#x: %#04x, want %#04x", n, acc, got, want)
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
		if got, want := Fold(Sum(b, native64(a[:]))), naiveSum(a[:], b); got != want {
			t.Fatalf("%#04x, want %#04x", got, want)
		}
	})
}

func BenchmarkSum(b *testing.B) {
	buf := pattern(65536, 0)
	for _, n := range []int{20, 64, 256, 1400, 65535} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(n))
			for b.Loop() {
				Sum(buf[:n], 0)
			}
		})
	}
}
