package netstack_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"throughline/netstack"
	"throughline/packet"
	"throughline/tun"
)

// hashed sends size random bytes each way over c and its far end d at once, and checks that both arrive whole, in order,
// and end where the sender closed its half.
func hashed(t *testing.T, c, d net.Conn, size int) {
	t.Helper()
	var wg sync.WaitGroup
	for i, ends := range [][2]net.Conn{{c, d}, {d, c}} {
		from, to := ends[0], ends[1]
		seed := [32]byte{byte(i), byte(size)}
		want := sha256.New()
		io.CopyN(want, rand.NewChaCha8(seed), int64(size))
		wg.Go(func() {
			src := rand.NewChaCha8(seed)
			sizes := rand.New(rand.NewPCG(uint64(i), 1))
			buf := make([]byte, 200<<10)
			for left := size; left > 0; {
				b := buf[:min(left, 1+sizes.IntN(len(buf)))]
				src.Read(b)
				if n, err := from.Write(b); err != nil || n != len(b) {
					t.Errorf("wrote %d of %d bytes: %v", n, len(b), err)
					return
				}
				left -= len(b)
			}
			if err := from.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			got := sha256.New()
			to.SetReadDeadline(time.Now().Add(patience))
			n, err := io.Copy(got, to)
			if err != nil || n != int64(size) {
				t.Errorf("received %d bytes of %d: %v", n, size, err)
			} else if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
				t.Errorf("what was received is not what was sent")
			}
		})
	}
	wg.Wait()
}

// connect returns both ends of a connection from a to b, which listens on address.
func connect(t testing.TB, a, b *netstack.Stack, network, address string) (net.Conn, net.Conn) {
	t.Helper()
	l, err := b.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := a.DialContext(within(t), network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if c.RemoteAddr().String() != d.LocalAddr().String() || c.LocalAddr().String() != d.RemoteAddr().String() {
		t.Errorf("one end says %v to %v, the other %v to %v", c.LocalAddr(), c.RemoteAddr(), d.RemoteAddr(), d.LocalAddr())
	}
	return c, d
}

func on(a netip.Addr, port int) string { return netip.AddrPortFrom(a, uint16(port)).String() }

func TestTCP(t *testing.T) {
	for _, at := range []struct {
		name string
		mtu  int
		to   netip.Addr
		make func(testing.TB, int) (a, b *netstack.Stack)
	}{
		{"IPv4", 1420, b4, pair},
		{"IPv6", 1420, b6, pair},
		{"MTU 1280", 1280, b6, pair},
		{"MTU 9000", 9000, b4, pair},
		{"MTU 9000, IPv6", 9000, b6, pair},
		{"MTU 65535", 65535, b4, pair},
		{"tunnel, IPv4", 1420, b4, tunnel},
		{"tunnel, IPv6", 1420, b6, tunnel},
		{"tunnel, MTU 1280", 1280, b4, tunnel},
	} {
		t.Run(at.name, func(t *testing.T) {
			a, b := at.make(t, at.mtu)
			c, d := connect(t, a, b, "tcp", on(at.to, 0))
			hashed(t, c, d, 8<<20)
		})
	}
}

// TestSegmentsAreWhole checks that bulk leaves in packets as large as gVisor makes them for the MTU, nearly all of them, in both families, and
// comes in batches.
func TestSegmentsAreWhole(t *testing.T) {
	for _, to := range []netip.Addr{b4, b6} {
		var full, short, batches atomic.Int64
		a, b := altered(t, 1420, func(b *packet.Batch, to tun.Queue) {
			data := false
			for i := range b.Packets {
				switch n := b.Packets[i].Len; {
				case n == 1392: // the MTU less the room for SACK that gVisor leaves
					full.Add(1)
					data = true
				case n > 1420:
					t.Errorf("a packet of %d bytes", n)
				case n > 200:
					short.Add(1)
				}
			}
			if data {
				batches.Add(1)
			}
		})
		c, d := connect(t, a, b, "tcp", on(to, 0))
		go io.Copy(io.Discard, d)
		if _, err := c.Write(make([]byte, 16<<20)); err != nil {
			t.Fatal(err)
		}
		c.Close()
		f, s, n := full.Load(), short.Load(), batches.Load()
		if s > f/10 {
			t.Errorf("%v: %d packets are full and %d are short", to, f, s)
		}
		if n*8 > f {
			t.Errorf("%v: %d packets came in %d batches", to, f, n)
		}
	}
}

// TestLoss drops one packet in a hundred, at random, both ways.
func TestLoss(t *testing.T) {
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(7, 7))
	dropped := 0
	a, b := altered(t, 1420, func(b *packet.Batch, to tun.Queue) {
		mu.Lock()
		defer mu.Unlock()
		for i := range b.Packets {
			if rnd.IntN(100) == 0 {
				b.Packets[i].Drop = packet.DropTUN
				dropped++
			}
		}
	})
	c, d := connect(t, a, b, "tcp", on(b4, 0))
	hashed(t, c, d, 2<<20)
	mu.Lock()
	defer mu.Unlock()
	if dropped < 20 {
		t.Errorf("%d packets were dropped; the test tests nothing", dropped)
	}
}

// TestCorruption flips a bit in one packet in a hundred, behind the IP header. No wrong byte may reach a program, merged
// or alone.
func TestCorruption(t *testing.T) {
	for _, to := range []netip.Addr{b4, b6} {
		var mu sync.Mutex
		rnd := rand.New(rand.NewPCG(9, 9))
		a, b := altered(t, 1420, func(b *packet.Batch, to tun.Queue) {
			mu.Lock()
			defer mu.Unlock()
			for i := range b.Packets {
				if p := b.Bytes(i); rnd.IntN(100) == 0 {
					p[40+rnd.IntN(len(p)-40)] ^= 1 << rnd.IntN(8)
				}
			}
		})
		c, d := connect(t, a, b, "tcp", on(to, 0))
		hashed(t, c, d, 1<<20)
	}
}

// TestTinySegments checks that a super-packet of more segments than a batch has packets arrives whole: the remote end
// announces an MSS of 88, so that one send has hundreds of segments.
func TestTinySegments(t *testing.T) {
	a, b := altered(t, 1420, func(b *packet.Batch, to tun.Queue) {
		for i := range b.Packets {
			p := b.Bytes(i)
			if p[9] == 6 && p[20+13]&2 != 0 && p[40] == 2 { // SYN, whose first option is the MSS
				old := uint16(p[42])<<8 | uint16(p[43])
				p[42], p[43] = 0, 88
				// RFC 1624: the checksum goes with it.
				sum := uint32(^(uint16(p[36])<<8 | uint16(p[37])))
				sum += uint32(^old) + 88
				sum = sum>>16 + sum&0xffff
				sum = ^(sum>>16 + sum&0xffff)
				p[36], p[37] = byte(sum>>8), byte(sum)
			}
			if p[9] == 6 && len(p) > 200 {
				t.Errorf("a packet of %d bytes", len(p))
			}
		}
	})
	c, d := connect(t, a, b, "tcp", on(b4, 0))
	hashed(t, c, d, 2<<20)
}

// TestPathMTU checks that a sender obeys ICMP: a router on the path forwards no packets above 1300 bytes.
func TestPathMTU(t *testing.T) {
	const limit = 1300
	var tooBig atomic.Int64
	var back tun.Queue
	replies := make(chan []byte, 1024)
	a, b := altered(t, 1420, func(b *packet.Batch, to tun.Queue) {
		for i := range b.Packets {
			p := b.Bytes(i)
			if len(p) <= limit {
				continue
			}
			b.Packets[i].Drop = packet.DropTUN
			if [4]byte(p[12:16]) == a4.As4() {
				tooBig.Add(1)
				select {
				case replies <- needFragmentation(p, limit):
				default:
				}
			}
		}
		// The router's messages travel with what the far end sends; an empty batch won't come, so ACKs and pings carry them.
		if to == back {
			for {
				select {
				case r := <-replies:
					b.Append(r)
					continue
				default:
				}
				break
			}
		}
	})
	back = a.Queues()[0]
	c, d := connect(t, a, b, "tcp", on(b4, 0))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for { // keeps packets coming from b, until all is there
			select {
			case <-stop:
				return
			default:
				if _, err := b.Ping(within(t), a4); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	want := bytes.Repeat([]byte("mtu"), 300_000)
	wg.Go(func() {
		if _, err := c.Write(want); err != nil {
			t.Error(err)
		}
	})
	got := make([]byte, len(want))
	d.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(d, got); err != nil || !bytes.Equal(got, want) {
		t.Error("not all arrived:", err)
	}
	close(stop)
	wg.Wait()
	if tooBig.Load() == 0 {
		t.Error("no packet was too big; the test tests nothing")
	}
}

// needFragmentation returns a router's ICMP message about the IPv4 packet p. RFC 792, RFC 1191 §4.
func needFragmentation(p []byte, mtu int) []byte {
	sum := func(b []byte) uint16 {
		var s uint32
		for i := 0; i+1 < len(b); i += 2 {
			s += uint32(b[i])<<8 | uint32(b[i+1])
		}
		s = s>>16 + s&0xffff
		return ^uint16(s>>16 + s&0xffff)
	}
	m := make([]byte, 20+8+28)
	m[0], m[3], m[8], m[9] = 0x45, byte(len(m)), 64, 1
	copy(m[12:], []byte{10, 7, 0, 9})
	copy(m[16:], p[12:16])
	s := sum(m[:20])
	m[10], m[11] = byte(s>>8), byte(s)
	m[20], m[21], m[26], m[27] = 3, 4, byte(mtu>>8), byte(mtu)
	copy(m[28:], p[:28])
	s = sum(m[20:])
	m[22], m[23] = byte(s>>8), byte(s)
	return m
}

func TestManyConnections(t *testing.T) {
	const n = 1000
	a, b := pair(t, 1420)
	l, err := b.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				io.Copy(c, struct{ io.Reader }{c})
				c.Close()
			})
		}
	})
	ctx := within(t)
	var all, dialers sync.WaitGroup
	all.Add(n)
	for i := range n {
		dialers.Go(func() {
			c, err := a.DialContext(ctx, "tcp", on(b4, 80))
			all.Done()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			all.Wait() // all are open at the same time
			msg := fmt.Appendf(nil, "connection %d", i)
			c.SetDeadline(time.Now().Add(patience))
			got := make([]byte, len(msg))
			if _, err := c.Write(msg); err != nil {
				t.Error(err)
			} else if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, msg) {
				t.Errorf("%q came back as %q, error %v", msg, got, err)
			}
		})
	}
	dialers.Wait()
	l.Close()
	wg.Wait()
}

func TestHalfClose(t *testing.T) {
	a, b := pair(t, 1420)
	c, d := connect(t, a, b, "tcp", on(b4, 0))
	c.Write([]byte("question"))
	c.(interface{ CloseWrite() error }).CloseWrite()
	if got, err := io.ReadAll(d); string(got) != "question" || err != nil {
		t.Fatalf("read %q, %v", got, err)
	}
	if _, err := c.Write([]byte("more")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("a write after CloseWrite: %v", err)
	}
	d.Write([]byte("answer"))
	d.Close()
	if got, err := io.ReadAll(c); string(got) != "answer" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestReset(t *testing.T) {
	a, b := pair(t, 1420)
	c, d := connect(t, a, b, "tcp", on(b4, 0))
	d.(interface{ SetLinger(int) error }).SetLinger(0)
	d.Close()
	c.SetReadDeadline(time.Now().Add(patience))
	var op *net.OpError
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &op) {
		t.Errorf("a read after the reset: %v", err)
	}
	if _, err := c.Write([]byte{1}); err == nil {
		t.Error("a write after the reset succeeded")
	}
}

func TestRefused(t *testing.T) {
	a, _ := pair(t, 1420)
	for _, to := range []netip.Addr{b4, b6} {
		_, err := a.DialContext(within(t), "tcp", on(to, 81))
		var op *net.OpError
		if !errors.Is(err, syscall.ECONNREFUSED) || !errors.As(err, &op) || op.Op != "dial" || op.Addr.String() != on(to, 81) {
			t.Errorf("dial a closed port: %v", err)
		}
	}
}

func TestDialEnds(t *testing.T) {
	s := newStack(t, netstack.Options{Addresses: []netip.Addr{a4}}) // nobody reads its queue
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_, err := s.DialContext(ctx, "tcp", on(b4, 80))
	var ne net.Error
	if !errors.As(err, &ne) || !ne.Timeout() || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	ctx, cancel = context.WithCancel(context.Background())
	syn := packet.New()
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := s.DialContext(ctx, "tcp", on(b4, 80)); !errors.Is(err, context.Canceled) {
			t.Errorf("after the cancellation: %v", err)
		}
	})
	for range 2 { // the first is that of the first dial
		syn.Reset()
		if _, err := s.Queues()[0].Read(syn); err != nil {
			t.Fatal(err)
		}
		if len(syn.Packets) == 2 {
			break
		}
	}
	cancel()
	wg.Wait()
	wg.Go(func() {
		if _, err := s.Dial("tcp", on(b4, 80)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
	syn.Reset()
	s.Queues()[0].Read(syn)
	s.Close()
	wg.Wait()
	if _, err := s.Dial("tcp", on(b4, 80)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dial a closed stack: %v", err)
	}
	if _, err := s.Listen("tcp", ":80"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("listen on a closed stack: %v", err)
	}
}

func TestDeadlines(t *testing.T) {
	a, b := pair(t, 1420)
	c, d := connect(t, a, b, "tcp", on(b4, 0))
	timedOut := func(what string, err error) {
		t.Helper()
		var ne net.Error
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
			t.Errorf("%s: %v", what, err)
		}
	}
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	timedOut("a blocked read", err)
	_, err = c.Read(make([]byte, 1))
	timedOut("a later read", err)
	c.SetReadDeadline(time.Time{})
	d.Write([]byte("x"))
	if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("with the deadline taken away: %d, %v", n, err)
	}
	wrote := make(chan int)
	go func() {
		n, err := c.Write(make([]byte, 64<<20)) // the far end reads one byte of it
		timedOut("a blocked write", err)
		wrote <- n
	}()
	if _, err := io.ReadFull(d, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	c.SetWriteDeadline(time.Unix(1, 0))
	if n := <-wrote; n == 0 || n == 64<<20 {
		t.Errorf("%d bytes were written", n)
	}
	got := make(chan error)
	go func() {
		_, err := c.Read(make([]byte, 1))
		got <- err
	}()
	c.SetReadDeadline(time.Unix(1, 0))
	timedOut("a read that a deadline in the past comes upon", <-got)
}

func TestListen(t *testing.T) {
	a, b := pair(t, 1420)
	for _, l := range []struct {
		network, address string
		reaches          [2]bool // IPv4, IPv6
	}{
		{"tcp", ":80", [2]bool{true, true}},
		{"tcp", "[::]:80", [2]bool{true, true}},
		{"tcp", "0.0.0.0:80", [2]bool{true, false}},
		{"tcp4", ":80", [2]bool{true, false}},
		{"tcp6", ":80", [2]bool{false, true}},
		{"tcp", "10.7.0.2:80", [2]bool{true, false}},
		{"tcp", "[fd07::2]:80", [2]bool{false, true}},
	} {
		ln, err := b.Listen(l.network, l.address)
		if err != nil {
			t.Errorf("%s %s: %v", l.network, l.address, err)
			continue
		}
		if _, err := b.Listen(l.network, l.address); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s %s twice: %v", l.network, l.address, err)
		}
		for i, to := range []netip.Addr{b4, b6} {
			c, err := a.DialContext(within(t), "tcp", on(to, 80))
			if reached := err == nil; reached != l.reaches[i] {
				t.Errorf("%s %s: dialing %v: %v", l.network, l.address, to, err)
			}
			if err == nil {
				c.Close()
				if d, err := ln.Accept(); err != nil || d.LocalAddr().String() != on(to, 80) {
					t.Errorf("accepted %v, %v", d, err)
				} else {
					d.Close()
				}
			}
		}
		ended := make(chan error)
		go func() { _, err := ln.Accept(); ended <- err }()
		ln.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after Close: %v", err)
		}
	}
	for _, l := range [][2]string{
		{"tcp", "10.7.0.9:80"}, {"udp", ":80"}, {"unix", ":80"}, {"tcp4", "[::1]:80"}, {"tcp", "name:80"}, {"tcp", "80"}, {"tcp", ":nope!"},
	} {
		if _, err := b.Listen(l[0], l[1]); err == nil {
			t.Errorf("listen on %s %s succeeded", l[0], l[1])
		}
	}
}
