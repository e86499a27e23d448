package tun

import (
	"io"
	"net"
	"testing"

	"throughline/packet"
	"throughline/tun/offload"
)

// BenchmarkTCP moves one TCP stream from kernel to kernel over two TUNs and a copying loop between them, everything on
// this machine: it is the floor under a tunnel's throughput. Run as root.
func BenchmarkTCP(b *testing.B) {
	for _, off := range []packet.Offload{0, packet.TUNOffloads} {
		b.Run("without "+off.String(), func(b *testing.B) {
			w := newWire(b, Options{Off: off})
			w.run(b)
			w.away.enter(b)
			l, err := net.Listen("tcp", addrB+":0")
			w.home.enter(b)
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			const chunk = 1 << 20
			buf := make([]byte, chunk)
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			in, err := l.Accept()
			if err != nil {
				b.Fatal(err)
			}
			defer in.Close()
			done := make(chan int64)
			n := 0
			go func() {
				m, _ := io.Copy(io.Discard, in)
				done <- m
			}()
			b.SetBytes(chunk)
			for b.Loop() {
				if _, err := c.Write(buf); err != nil {
					b.Fatal(err)
				}
				n++
			}
			c.Close()
			if m := <-done; m != int64(n)*chunk {
				b.Fatalf("%d bytes came of %d", m, n*chunk)
			}
			w.end()
		})
	}
}

// BenchmarkRead reads from a socket that stands for the kernel.
func BenchmarkRead(b *testing.B) {
	for _, c := range []struct {
		name    string
		n, size int
	}{{"super", 62000, 1368}, {"one small", 64, 64}} {
		b.Run(c.name, func(b *testing.B) {
			k := newFakeKernel(b, offload.HeaderSize)
			h, p := superPacket(c.n, c.size)
			batch := packet.New()
			b.SetBytes(int64(c.n))
			b.ReportAllocs()
			for b.Loop() {
				k.send(h, p)
				k.read(batch)
			}
		})
	}
}
