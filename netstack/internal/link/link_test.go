package link

import (
	"errors"
	"os"
	"sync"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"throughline/packet"
)

const mss = 1340

// super returns a packet as gVisor sends it: headers with the checksum of the pseudo-header only, and size bytes of payload.
func super(size, mss int) *stack.PacketBuffer {
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: 60, Payload: buffer.MakeWithData(make([]byte, size)),
	})
	tcp := header.TCP(p.TransportHeader().Push(20))
	p.TransportProtocolNumber = header.TCPProtocolNumber
	tcp.Encode(&header.TCPFields{SrcPort: 1, DstPort: 2, SeqNum: 1000, DataOffset: 20, Flags: header.TCPFlagAck | header.TCPFlagPsh})
	src, dst := tcpip.AddrFrom4([4]byte{10, 0, 0, 1}), tcpip.AddrFrom4([4]byte{10, 0, 0, 2})
	tcp.SetChecksum(header.PseudoHeaderChecksum(header.TCPProtocolNumber, src, dst, uint16(20+size)))
	ip := header.IPv4(p.NetworkHeader().Push(20))
	p.NetworkProtocolNumber = header.IPv4ProtocolNumber
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(40 + size), TTL: 64, Protocol: 6, SrcAddr: src, DstAddr: dst})
	ip.SetChecksum(^ip.CalculateChecksum())
	p.GSOOptions = stack.GSO{Type: stack.GSOTCPv4, NeedsCsum: true, CsumOffset: 16, MSS: uint16(mss)}
	return p
}

// check checks that the packets of b from the first on are right segments of one after another payload of size bytes.
func check(t *testing.T, b *packet.Batch, size int) {
	t.Helper()
	got := 0
	for i := range b.Packets {
		ip := header.IPv4(b.Bytes(i))
		tcp := header.TCP(ip[20:])
		data := tcp[20:]
		sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), uint16(len(tcp)))
		if !ip.IsChecksumValid() || int(ip.TotalLength()) != len(ip) || tcp.SequenceNumber() != uint32(1000+got) ||
			tcp.CalculateChecksum(checksum.Combine(sum, checksum.Checksum(data, 0))) != 0xffff {
			t.Fatalf("segment %d is wrong: % x", i, ip[:40])
		}
		got += len(data)
	}
	if got != size {
		t.Errorf("%d bytes came out of %d", got, size)
	}
}

func newLink(t *testing.T) *Link {
	l := New(1420)
	t.Cleanup(l.Release)
	return l
}

func TestReadSegments(t *testing.T) {
	for _, c := range []struct{ size, mss int }{{0, mss}, {1, mss}, {mss, mss}, {mss + 1, mss}, {46 * mss, mss}, {40_000, 60}, {65_000, 48}} {
		l := newLink(t)
		p := super(c.size, c.mss)
		l.send(p)
		p.DecRef()
		all := packet.NewSize(1<<20, 4096) // what comes in several batches, together
		b := packet.New()
		for more := true; more; {
			var err error
			b.Reset()
			if more, err = l.Read(b); err != nil || len(b.Packets) == 0 {
				t.Fatal(len(b.Packets), err)
			}
			for i := range b.Packets {
				all.Append(b.Bytes(i))
			}
		}
		check(t, all, c.size)
		if want := max(1, (c.size+c.mss-1)/c.mss); len(all.Packets) != want {
			t.Errorf("%d bytes became %d segments, want %d", c.size, len(all.Packets), want)
		}
	}
}

func TestReadRefusesSmallBatch(t *testing.T) {
	if _, err := newLink(t).Read(packet.NewSize(1500, 1)); err == nil {
		t.Error("a batch without room for a packet was accepted")
	}
}

// TestQueueBounds checks that TCP data waits at the lower bound, that other packets are queued up to the upper one, and that a
// sender that waits continues when there is space, or after Shutdown.
func TestQueueBounds(t *testing.T) {
	l := newLink(t)
	bulk, small := super(46*mss, mss), super(0, mss)
	small.GSOOptions = stack.GSO{}
	want := 0 // packets to come out
	for ; !l.full(); want += 46 {
		l.send(bulk)
	}
	const waiters = 3
	var wg sync.WaitGroup
	errs := make(chan tcpip.Error, waiters)
	for range waiters {
		wg.Go(func() { errs <- l.send(bulk) })
	}
	n := 0
	for ; ; n++ {
		if err := l.send(small); err != nil {
			if _, full := err.(*tcpip.ErrNoBufferSpace); !full {
				t.Error(err)
			}
			break
		}
	}
	if l.queue.n != dropPackets {
		t.Errorf("%d packets are queued", l.queue.n)
	}
	want += n + waiters*46
	b := packet.New()
	for want > 0 {
		b.Reset()
		if _, err := l.Read(b); err != nil {
			t.Fatal(err)
		}
		want -= len(b.Packets)
	}
	wg.Wait()
	for range waiters {
		if err := <-errs; err != nil {
			t.Error("a sender that waited:", err)
		}
	}
	for !l.full() {
		l.send(bulk)
	}
	wg.Go(func() { errs <- l.send(bulk) })
	l.Shutdown()
	if err := <-errs; err == nil {
		t.Error("a packet was sent after Shutdown")
	}
	wg.Wait()
	if _, err := l.Read(packet.New()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("read after Shutdown: %v", err)
	}
	bulk.DecRef()
	small.DecRef()
}

// A sink is a stack that counts what a link delivers.
type sink struct {
	l        *Link
	packets  int
	bytes    int
	verified int
}

func (s *sink) DeliverNetworkPacket(_ tcpip.NetworkProtocolNumber, p *stack.PacketBuffer) {
	s.packets++
	s.bytes += p.Size()
	if s.l.Capabilities()&stack.CapabilityRXChecksumOffload != 0 {
		s.verified++
	}
}

func (s *sink) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

// TestWriteMerges checks that consecutive segments are delivered as one packet that needn't be verified, and one with a wrong
// checksum alone, as one that must be.
func TestWriteMerges(t *testing.T) {
	l := newLink(t)
	s := &sink{l: l}
	l.Attach(s)
	p := super(46*mss, mss)
	defer p.DecRef()
	l.send(p)
	b := packet.New()
	l.Read(b)
	last := b.Bytes(45)
	last[len(last)-1] ^= 1
	if err := l.Write(b); err != nil {
		t.Fatal(err)
	}
	if s.packets != 2 || s.verified != 1 || s.bytes != 40+45*mss+40+mss {
		t.Errorf("46 packets went up as %+v", *s)
	}
}

// TestPathAllocates checks that nothing is allocated for each packet. A few for each batch are allowed, for the race
// detector makes pools forget.
func TestPathAllocates(t *testing.T) {
	l := newLink(t)
	l.Attach(&sink{l: l})
	p := super(46*mss, mss)
	defer p.DecRef()
	b := packet.New()
	if n := testing.AllocsPerRun(200, func() {
		l.send(p)
		b.Reset()
		l.Read(b)
		l.Write(b)
	}); n > 5 {
		t.Errorf("%v allocations for 46 packets", n)
	}
}

func BenchmarkLink(b *testing.B) {
	l := New(1420)
	l.Attach(&sink{l: l})
	p := super(46*mss, mss)
	batch := packet.New()
	b.SetBytes(46 * mss)
	b.ReportAllocs()
	for b.Loop() {
		l.send(p)
		batch.Reset()
		l.Read(batch)
		l.Write(batch)
	}
}
