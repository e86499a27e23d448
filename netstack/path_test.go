package netstack_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"throughline/netstack"
	"throughline/packet"
)

// A router joins two stacks by a link whose MTU is smaller than theirs. It answers what is too big for that, and sends it no
// further. RFC 4443 §3.2.
type router struct {
	mtu  int
	a, b *netstack.Stack
	wg   sync.WaitGroup

	mu       sync.Mutex // held by who writes to a: that has two sources
	tooBig   int
	fragment int // fragments that went through
}

// seen returns how many packets were too big, and how many fragments went through.
func (r *router) seen() (tooBig, fragments int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tooBig, r.fragment
}

func (r *router) join(t *testing.T) {
	r.wg.Go(func() {
		batch, answer := packet.New(), packet.New()
		for {
			batch.Reset()
			answer.Reset()
			if _, err := r.a.Queues()[0].Read(batch); err != nil {
				return
			}
			r.mu.Lock()
			for i := range batch.Packets {
				p := batch.Bytes(i)
				switch {
				case p[0]>>4 == 6 && len(p) > r.mtu:
					batch.Packets[i].Drop = packet.DropTUN
					r.tooBig++
					answer.Append(tooBig(p, r.mtu))
				case p[0]>>4 == 6 && p[6] == 44:
					r.fragment++
				}
			}
			r.a.Queues()[0].Write(answer)
			r.mu.Unlock()
			r.b.Queues()[0].Write(batch)
		}
	})
	r.wg.Go(func() {
		batch := packet.New()
		for {
			batch.Reset()
			if _, err := r.b.Queues()[0].Read(batch); err != nil {
				return
			}
			r.mu.Lock()
			r.a.Queues()[0].Write(batch)
			r.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		r.a.Close()
		r.b.Close()
		r.wg.Wait()
	})
}

// tooBig returns the ICMPv6 message that a packet is too big.
func tooBig(p []byte, mtu int) []byte {
	quoted := p[:min(len(p), 1280-48)]
	m := make([]byte, 48, 48+len(quoted))
	m[0], m[6], m[7] = 0x60, 58, 64
	binary.BigEndian.PutUint16(m[4:], uint16(8+len(quoted)))
	copy(m[8:24], netip.MustParseAddr("fd07::ff").AsSlice())
	copy(m[24:40], p[8:24])
	m[40] = 2
	binary.BigEndian.PutUint32(m[44:], uint32(mtu))
	m = append(m, quoted...)
	sum := uint32(58 + len(m) - 40)
	for i := 8; i < len(m); i += 2 {
		sum += uint32(m[i]) << 8
		if i+1 < len(m) {
			sum += uint32(m[i+1])
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(m[42:], ^uint16(sum))
	return m
}

// TestDatagramsOverASmallerLink sends datagrams of all sizes over a link that is smaller than the stack's. The first that is
// too big for it is lost; from then on all must come whole: those that fit, those that don't, and those that are fragmented in
// any case.
func TestDatagramsOverASmallerLink(t *testing.T) {
	for _, mtu := range []int{1280, 1301, 1400} {
		r := &router{mtu: mtu,
			a: newStack(t, netstack.Options{Addresses: []netip.Addr{a4, a6}, MTU: 1420}),
			b: newStack(t, netstack.Options{Addresses: []netip.Addr{b4, b6}, MTU: 1420}),
		}
		r.join(t)
		far, err := r.b.ListenPacket("udp", on(b6, 53))
		if err != nil {
			t.Fatal(err)
		}
		c, err := r.a.DialContext(within(t), "udp", on(b6, 53))
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1<<16)
		rnd := rand.NewChaCha8([32]byte{1})
		try := func(size int, wait time.Duration) bool {
			sent := make([]byte, size)
			rnd.Read(sent)
			if _, err := c.Write(sent); err != nil {
				t.Fatal(err)
			}
			far.SetReadDeadline(time.Now().Add(wait))
			n, _, err := far.ReadFrom(buf)
			if err == nil && !bytes.Equal(buf[:n], sent) {
				t.Fatalf("MTU %d: %d bytes were sent, %d others received", mtu, size, n)
			}
			return err == nil
		}
		if !try(mtu-48, patience) {
			t.Fatalf("MTU %d: what fits doesn't come", mtu)
		}
		lost := !try(mtu-47, 50*time.Millisecond)
		if n, _ := r.seen(); !lost || n != 1 {
			t.Fatalf("MTU %d: the test tests nothing", mtu)
		}
		for _, size := range []int{0, 1, 1000, mtu - 49, mtu - 48, mtu - 47, mtu - 40, 1371, 1372, 1373, 2000, 2744, 2745, 9000, 65000} {
			if !try(size, 2*time.Second) {
				t.Fatalf("MTU %d: a datagram of %d bytes is lost", mtu, size)
			}
		}
		n, fragments := r.seen()
		if n != 1 || fragments == 0 {
			t.Errorf("MTU %d: %d packets were too big, and %d fragments sent", mtu, n, fragments)
		}
		// A connection, for which gVisor remembers the path MTU itself, is not fragmented.
		x, y := connect(t, r.a, r.b, "tcp", on(b6, 0))
		hashed(t, x, y, 1<<20)
		if _, now := r.seen(); now != fragments {
			t.Errorf("MTU %d: %d segments were fragmented", mtu, now-fragments)
		}
	}
}
