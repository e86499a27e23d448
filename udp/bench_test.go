package udp

import (
	"fmt"
	"net/netip"
	"testing"

	"throughline/packet"
)

var shapes = []struct{ n, size int }{{1, 128}, {64, 128}, {45, 1452}}

// BenchmarkSend sends to a port of loopback where a socket drops what its small buffer doesn't hold: the time is that of
// the sender, and of the way down and up again.
func BenchmarkSend(b *testing.B) {
	for _, s := range shapes {
		for _, h := range []Host{{}, {Off: packet.GSO}} {
			b.Run(fmt.Sprintf("%dx%d/off=%v", s.n, s.size, h.Off), func(b *testing.B) {
				a, c := newConn(b, &h), newConn(b, &h)
				c.v4.pc.SetReadBuffer(1) // so that it isn't memory that is measured
				batch, _ := lay(packet.Endpoint{Addr: netip.AddrPortFrom(lo4, c.Port()), Src: lo4, SrcIf: 1}, 0, times(s.n, s.size)...)
				b.SetBytes(int64(s.n * s.size))
				b.ReportAllocs()
				for b.Loop() {
					if err := a.Send(batch); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*s.n), "ns/datagram")
			})
		}
	}
}

// BenchmarkReceive receives what is sent while the clock stands.
func BenchmarkReceive(b *testing.B) {
	for _, s := range shapes {
		for _, h := range []Host{{}, {Off: packet.GSO}} {
			b.Run(fmt.Sprintf("%dx%d/super-packets=%t", s.n, s.size, h.Off&packet.GSO == 0), func(b *testing.B) {
				a, c := newConn(b, &h), newConn(b, &h)
				batch, _ := lay(packet.Endpoint{Addr: netip.AddrPortFrom(lo4, c.Port())}, 0, times(s.n, s.size)...)
				got, r := packet.New(), c.receiverOf(lo4)
				b.SetBytes(int64(s.n * s.size))
				b.ReportAllocs()
				const most = 20 // batches between two looks at the clock
				b.ResetTimer()
				for left := b.N; left > 0; left -= most {
					b.StopTimer()
					rounds := min(most, left)
					for range rounds {
						if err := a.Send(batch); err != nil {
							b.Fatal(err)
						}
					}
					b.StartTimer()
					for n := 0; n < rounds*s.n; n += len(got.Packets) {
						got.Reset()
						if _, err := r.Receive(got); err != nil {
							b.Fatal(err)
						}
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*s.n), "ns/datagram")
			})
		}
	}
}
