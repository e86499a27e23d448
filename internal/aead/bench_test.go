package aead

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"throughline/packet"
)

// go test -bench Train ./internal/aead measures in one run this machine's fastest implementation, and for comparison the
// same trains packet by packet with golang.org/x/crypto: BenchmarkSealTrain and BenchmarkSealTrainXCrypto. On a machine
// with other load trust BenchmarkTrainRatio, which alternates between the two all the time. BenchmarkImplementations
// measures every implementation.

var trains = []struct{ n, size int }{{45, 1420}, {64, 128}, {16, 1420}, {1, 1420}, {1, 128}}

// An operation returns a function that seals or opens a train once, on a slab of its own.
type operation func(b *testing.B, s sealer, n, size int) func()

func sealOnce(b *testing.B, s sealer, n, size int) func() {
	slab, train := newTrain(random(8), 0, slices.Repeat([]int{size}, n)...)
	work := slices.Clone(train)
	return func() {
		copy(work, train)
		s.Seal(slab, work)
	}
}

// openOnce opens what it opened before: as the cipher XORs a key stream, a packet opened twice is the ciphertext again, and
// only its tag must be restored, alternately that of the text and that of the ciphertext. Nothing else is copied.
func openOnce(b *testing.B, s sealer, n, size int) func() {
	slab, train := newTrain(random(8), 0, slices.Repeat([]int{size}, n)...)
	sealed := slices.Clone(train)
	var tags [2][]byte
	for i := range tags {
		// Sealed twice, the slab holds the text again, with the tag that the text has as a ciphertext.
		copy(sealed, train)
		xcrypto.NewKey(&testKey).Seal(slab, sealed)
		for _, p := range sealed {
			tags[i] = append(tags[i], slab[p.Off+p.Len-16:p.Off+p.Len]...)
		}
	}
	work, turn := slices.Clone(sealed), 1
	return func() {
		copy(work, sealed)
		for i, p := range work {
			copy(slab[p.Off+p.Len-16:], tags[turn][16*i:16*i+16])
		}
		turn ^= 1
		s.Open(slab, work)
		if work[n-1].Drop != packet.Drop(0) {
			b.Fatal("a packet wasn't opened")
		}
	}
}

func benchTrains(b *testing.B, s sealer, op operation) {
	for _, c := range trains {
		b.Run(fmt.Sprintf("%dx%d", c.n, c.size), func(b *testing.B) {
			do := op(b, s, c.n, c.size)
			b.SetBytes(int64(c.n * c.size))
			b.ReportAllocs()
			for b.Loop() {
				do()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(c.n), "ns/packet")
		})
	}
}

func BenchmarkSealTrain(b *testing.B)        { benchTrains(b, Best().NewKey(&testKey), sealOnce) }
func BenchmarkSealTrainXCrypto(b *testing.B) { benchTrains(b, newLibrary(b, testKey), sealOnce) }
func BenchmarkOpenTrain(b *testing.B)        { benchTrains(b, Best().NewKey(&testKey), openOnce) }
func BenchmarkOpenTrainXCrypto(b *testing.B) { benchTrains(b, newLibrary(b, testKey), openOnce) }

func BenchmarkImplementations(b *testing.B) {
	for _, impl := range Implementations() {
		k := impl.NewKey(&testKey)
		b.Run(impl.String()+"/seal", func(b *testing.B) { benchTrains(b, k, sealOnce) })
		b.Run(impl.String()+"/open", func(b *testing.B) { benchTrains(b, k, openOnce) })
	}
}

// BenchmarkTrainRatio reports how many times as long golang.org/x/crypto takes as this machine's fastest implementation:
// the ratio of medians over pieces of work, measured alternately.
func BenchmarkTrainRatio(b *testing.B) {
	for _, op := range []struct {
		name string
		do   operation
	}{{"seal", sealOnce}, {"open", openOnce}} {
		for _, c := range trains {
			b.Run(fmt.Sprintf("%s/%dx%d", op.name, c.n, c.size), func(b *testing.B) {
				dos := [2]func(){
					op.do(b, Best().NewKey(&testKey), c.n, c.size),
					op.do(b, newLibrary(b, testKey), c.n, c.size),
				}
				var took [2][]float64
				piece := 1 + 30000/(c.n*c.size) // so long that the clock's own cost doesn't matter
				for i := 0; b.Loop(); i++ {
					for j := range dos {
						j ^= i & 1 // each is first every other time
						start := time.Now()
						for range piece {
							dos[j]()
						}
						took[j] = append(took[j], float64(time.Since(start).Nanoseconds())/float64(piece*c.n))
					}
				}
				for j := range took {
					slices.Sort(took[j])
				}
				best, xcrypto := took[0][len(took[0])/2], took[1][len(took[1])/2]
				b.ReportMetric(0, "ns/op") // of both together: meaningless
				b.ReportMetric(best, "best-ns/packet")
				b.ReportMetric(xcrypto, "xcrypto-ns/packet")
				b.ReportMetric(xcrypto/best, "times")
			})
		}
	}
}

// BenchmarkBest measures the choice of an implementation, which each device makes once.
func BenchmarkBest(b *testing.B) {
	for b.Loop() {
		Best()
	}
}
