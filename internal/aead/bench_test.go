package aead

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"throughline/packet"
)

// go test -bench Train ./internal/aead shows in one run what the best way of this machine costs, and beside it the same
// work done packet by packet with golang.org/x/crypto: BenchmarkSealTrain and BenchmarkSealTrainXCrypto, each for the
// same trains. On a machine that does other things too, believe BenchmarkTrainRatio: it goes from one to the other and
// back all the time. BenchmarkImplementations has every way.

var trains = []struct{ n, size int }{{45, 1420}, {64, 128}, {16, 1420}, {1, 1420}, {1, 128}}

// A step is one turn of what is measured, on a slab of its own.
type step func(b *testing.B, s sealer, n, size int) func()

func sealStep(b *testing.B, s sealer, n, size int) func() {
	slab, train := newTrain(random(8), 0, slices.Repeat([]int{size}, n)...)
	work := slices.Clone(train)
	return func() {
		copy(work, train)
		s.Seal(slab, work)
	}
}

// openStep opens what it opened before: the cipher adds a key stream, so that a packet opened twice is the ciphertext
// again, and only its tag must be laid anew, the one for the text or the one for the ciphertext. Nothing else is copied.
func openStep(b *testing.B, s sealer, n, size int) func() {
	slab, train := newTrain(random(8), 0, slices.Repeat([]int{size}, n)...)
	sealed := slices.Clone(train)
	var tags [2][]byte
	for i := range tags {
		// Sealed twice, the slab holds the text again, with the tag of the text as if that were a ciphertext.
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

func benchTrains(b *testing.B, s sealer, do step) {
	for _, c := range trains {
		b.Run(fmt.Sprintf("%dx%d", c.n, c.size), func(b *testing.B) {
			turn := do(b, s, c.n, c.size)
			b.SetBytes(int64(c.n * c.size))
			b.ReportAllocs()
			for b.Loop() {
				turn()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(c.n), "ns/packet")
		})
	}
}

func BenchmarkSealTrain(b *testing.B)        { benchTrains(b, Best().NewKey(&testKey), sealStep) }
func BenchmarkSealTrainXCrypto(b *testing.B) { benchTrains(b, newLibrary(b, testKey), sealStep) }
func BenchmarkOpenTrain(b *testing.B)        { benchTrains(b, Best().NewKey(&testKey), openStep) }
func BenchmarkOpenTrainXCrypto(b *testing.B) { benchTrains(b, newLibrary(b, testKey), openStep) }

func BenchmarkImplementations(b *testing.B) {
	for _, impl := range Implementations() {
		k := impl.NewKey(&testKey)
		b.Run(impl.String()+"/seal", func(b *testing.B) { benchTrains(b, k, sealStep) })
		b.Run(impl.String()+"/open", func(b *testing.B) { benchTrains(b, k, openStep) })
	}
}

// BenchmarkTrainRatio reports how many times as long golang.org/x/crypto takes as the best way of this machine: the
// medians of pieces of work done in turn.
func BenchmarkTrainRatio(b *testing.B) {
	for _, way := range []struct {
		name string
		do   step
	}{{"seal", sealStep}, {"open", openStep}} {
		for _, c := range trains {
			b.Run(fmt.Sprintf("%s/%dx%d", way.name, c.n, c.size), func(b *testing.B) {
				turns := [2]func(){
					way.do(b, Best().NewKey(&testKey), c.n, c.size),
					way.do(b, newLibrary(b, testKey), c.n, c.size),
				}
				var took [2][]float64
				piece := 1 + 30000/(c.n*c.size) // so long that the clock's own cost doesn't matter
				for i := 0; b.Loop(); i++ {
					for j := range turns {
						j ^= i & 1 // neither always comes first
						start := time.Now()
						for range piece {
							turns[j]()
						}
						took[j] = append(took[j], float64(time.Since(start).Nanoseconds())/float64(piece*c.n))
					}
				}
				for j := range took {
					slices.Sort(took[j])
				}
				best, library := took[0][len(took[0])/2], took[1][len(took[1])/2]
				b.ReportMetric(0, "ns/op") // of both together: it says nothing
				b.ReportMetric(best, "best-ns/packet")
				b.ReportMetric(library, "xcrypto-ns/packet")
				b.ReportMetric(library/best, "times")
			})
		}
	}
}

// BenchmarkBest is what choosing a way costs, once for a device.
func BenchmarkBest(b *testing.B) {
	for b.Loop() {
		Best()
	}
}
