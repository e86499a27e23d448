package tun

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"throughline/packet"
	"throughline/tun/offload"
)

// A scatter read yields the packets that a whole read does, whatever the sequence of super-packets.
func TestScatteredReadsAreLikePlainOnes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	shapes := []struct{ n, size int }{
		{60000, 1368}, {61560, 1368}, {65000, 1368}, {30000, 1368}, {2000, 1368}, {60000, 1400}, {65507, 1024}, {64000, 8000}, {20000, 500},
	}
	plain, scattering := newFakeKernel(t, offload.HeaderSize), newFakeKernel(t, offload.HeaderSize)
	inPlace := 0
	for round := range 300 {
		type sent struct {
			h offload.Header
			p []byte
		}
		var all []sent
		for range 1 + rnd.IntN(4) {
			var s sent
			switch rnd.IntN(6) {
			case 0:
				s.p = udpPacket(rnd.IntN(1400))
			case 1: // larger than the first iovec, and no super-packet
				s.p = udpPacket(1500 + rnd.IntN(60000))
			case 2: // malformed
				shape := shapes[rnd.IntN(len(shapes))]
				s.h, s.p = superPacket(shape.n, shape.size)
				s.h.GSOType = offload.GSOTCPv4
			default: // the same shape often comes again
				shape := shapes[rnd.IntN(len(shapes))]
				if rnd.IntN(3) > 0 {
					shape = shapes[0]
				}
				s.h, s.p = superPacket(shape.n, shape.size)
			}
			for i := 28; i < len(s.p); i++ {
				s.p[i] = byte(i*7 + round)
			}
			all = append(all, s)
		}
		var want []string
		b := packet.New()
		b.MTU = 1420
		for _, s := range all {
			plain.send(s.h, s.p)
			for more := true; more; {
				plain.q.scatter.forget()
				more = plain.read(b)
				want = append(want, shown(b)...)
			}
			scattering.send(s.h, s.p)
		}
		var got []string
		for len(got) < len(want) {
			scattering.read(b)
			got = append(got, shown(b)...)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("round %d: packet %d of %d differs", round, i, len(want))
			}
		}
		if scattering.q.scatter.size != 0 {
			inPlace++
		}
	}
	if inPlace < 50 {
		t.Errorf("a guess was made %d times: the test tries nothing", inPlace)
	}
}

// shown returns the packets of a batch as strings, to be compared.
func shown(b *packet.Batch) (all []string) {
	for i := range b.Packets {
		all = append(all, fmt.Sprint(b.Packets[i].Drop)+string(bytes.Clone(b.Bytes(i))))
	}
	return all
}

func BenchmarkReadSuperPackets(b *testing.B) {
	for _, name := range []string{"scattered", "plain"} {
		b.Run(name, func(b *testing.B) {
			k := newFakeKernel(b, offload.HeaderSize)
			h, p := superPacket(61560, 1368)
			batch := packet.New()
			batch.MTU = 1420
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				k.send(h, p)
				if name == "plain" {
					k.q.scatter.forget()
				}
				k.read(batch)
			}
		})
	}
}
