package index

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"
)

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{2, 1000, 100_000, 1_000_000} {
		rng := rand.New(rand.NewPCG(1, 5))
		var tab Table[entry]
		v, in := new(entry), make([]uint32, n)
		for i := range in {
			in[i] = tab.Insert(v, rng.Uint32)
		}
		b.Run(fmt.Sprintf("%d/hit", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); {
				if tab.Lookup(in[i]) == nil {
					b.Fatal("not found")
				}
				if i++; i == n {
					i = 0
				}
			}
			b.ReportMetric(float64(slotsOf(&tab))*float64(unsafe.Sizeof(slot[entry]{}))/float64(n), "B/index")
		})
		b.Run(fmt.Sprintf("%d/miss", n), func(b *testing.B) {
			i := uint32(1)
			for b.Loop() {
				tab.Lookup(i)
				i = i*1664525 + 1013904223
			}
		})
	}
}

// One session goes and one comes, with n in the table; "worst" is the longest pause, for laying the table anew.
func BenchmarkChurn(b *testing.B) {
	for _, n := range []int{2, 1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, 6))
			var tab Table[entry]
			v, in := new(entry), make([]uint32, n)
			for i := range in {
				in[i] = tab.Insert(v, rng.Uint32)
			}
			start := time.Now()
			tab.rebuild(tab.inUse)
			worst := time.Since(start)
			b.ReportAllocs()
			for i := 0; b.Loop(); {
				tab.Delete(in[i], v)
				in[i] = tab.Insert(v, rng.Uint32)
				if i++; i == n {
					i = 0
				}
			}
			b.ReportMetric(float64(worst.Microseconds())/1000, "ms-worst")
		})
	}
}
