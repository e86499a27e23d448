package aead

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"throughline/packet"
)

var trains = []struct{ n, size int }{{45, 1420}, {64, 128}, {16, 1420}, {1, 1420}, {1, 128}}

func benchTrains(b *testing.B, run func(b *testing.B, k *Key, slab []byte, train []packet.Packet)) {
	for _, c := range trains {
		b.Run(fmt.Sprintf("%dx%d", c.n, c.size), func(b *testing.B) {
			slab, train := layTrain(rand.New(rand.NewPCG(1, 8)), 0, slices.Repeat([]int{c.size}, c.n)...)
			b.SetBytes(int64(c.n * c.size))
			b.ReportAllocs()
			run(b, Best().NewKey(&testKey), slab, train)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(c.n), "ns/packet")
		})
	}
}

func BenchmarkSealTrain(b *testing.B) {
	benchTrains(b, func(b *testing.B, k *Key, slab []byte, train []packet.Packet) {
		work := slices.Clone(train)
		for b.Loop() {
			copy(work, train)
			k.Seal(slab, work)
		}
	})
}

func BenchmarkOpenTrain(b *testing.B) {
	benchTrains(b, func(b *testing.B, k *Key, slab []byte, train []packet.Packet) {
		k.Seal(slab, train)
		sealed, fresh := slices.Clone(slab), slices.Clone(slab)
		work := slices.Clone(train)
		for b.Loop() {
			// The ciphertext must be laid anew each time; the copy is a few percent of what is measured.
			copy(fresh, sealed)
			copy(work, train)
			k.Open(fresh, work)
		}
		if work[0].Drop != 0 {
			b.Fatal("nothing was opened")
		}
	})
}
