package udp

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"throughline/packet"
)

var (
	_ Network   = (*Host)(nil)
	_ Offloader = (*conn)(nil)
	_ Partial   = (*conn)(nil)

	lo4, lo6 = netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")
)

func newConn(t testing.TB, h *Host) *conn {
	t.Helper()
	c, err := h.Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*conn)
}

// TestListenAtOneAddress holds that a Host with an address binds to nothing else, and that datagrams go both ways.
func TestListenAtOneAddress(t *testing.T) {
	families(t, func(t *testing.T, lo netip.Addr) {
		a, b := newConn(t, &Host{Address: lo}), newConn(t, &Host{Address: lo})
		watch(t, b)
		if n := len(a.Receivers()); n != 1 {
			t.Fatalf("%d receivers", n)
		}
		if at := a.sockets()[0].pc.LocalAddr().(*net.UDPAddr).AddrPort(); at != netip.AddrPortFrom(lo, a.Port()) || a.Port() == 0 {
			t.Errorf("bound to %v", at)
		}
		out, want := lay(packet.Endpoint{Addr: netip.AddrPortFrom(lo, b.Port())}, 0, 100)
		if err := a.Send(out); err != nil {
			t.Fatal(err)
		}
		in := packet.New()
		if _, err := b.Receivers()[0].Receive(in); err != nil || len(in.Packets) != 1 || string(in.Bytes(0)) != string(want[0]) {
			t.Errorf("%v, %d packets", err, len(in.Packets))
		}
		other := lo4
		if lo == lo4 {
			other = lo6
		}
		out, _ = lay(packet.Endpoint{Addr: netip.AddrPortFrom(other, 9)}, 0, 100)
		if err := a.Send(out); !errors.Is(err, syscall.EAFNOSUPPORT) || out.Packets[0].Drop != packet.DropSend {
			t.Errorf("to the other family: %v", err)
		}
		if _, err := (&Host{Address: lo}).Listen(a.Port()); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), netip.AddrPortFrom(lo, a.Port()).String()) {
			t.Errorf("a port in use: %v", err)
		}
	})
	if c := newConn(t, &Host{Address: netip.MustParseAddr("::ffff:127.0.0.1")}); c.v4 == nil || c.v6 != nil {
		t.Error("an IPv4-mapped address isn't taken for what it is")
	}
	for _, nobodys := range []string{"192.0.2.1", "2001:db8::1"} {
		if _, err := (&Host{Address: netip.MustParseAddr(nobodys)}).Listen(0); err == nil || errors.Is(err, syscall.EAFNOSUPPORT) {
			t.Errorf("%s: %v", nobodys, err)
		}
	}
}

// watch closes c, so that the test fails, when it takes far too long.
func watch(t testing.TB, c Conn) {
	w := time.AfterFunc(30*time.Second, func() { c.Close() })
	t.Cleanup(func() { w.Stop() })
}

// families calls f for each family of loopback.
func families(t *testing.T, f func(t *testing.T, lo netip.Addr)) {
	for _, lo := range []netip.Addr{lo4, lo6} {
		t.Run(fmt.Sprintf("IPv%d", map[bool]int{true: 4, false: 6}[lo.Is4()]), func(t *testing.T) { f(t, lo) })
	}
}

func (c *conn) receiverOf(a netip.Addr) Receiver {
	if a.Is4() {
		return c.v4.receiver()
	}
	return c.v6.receiver()
}

// lay returns a batch of random datagrams of the sizes, gap bytes apart, in one run to e, and copies of them.
func lay(e packet.Endpoint, gap int, sizes ...int) (*packet.Batch, [][]byte) {
	total := 0
	for _, n := range sizes {
		total += n + gap
	}
	b := packet.NewSize((total+16)&^15, len(sizes)+1)
	rng := rand.New(rand.NewPCG(uint64(total), uint64(len(sizes))))
	for i := range b.Slab {
		b.Slab[i] = byte(rng.Uint32())
	}
	var data [][]byte
	off := 0
	for _, n := range sizes {
		b.Packets = append(b.Packets, packet.Packet{Off: off, Len: n})
		data = append(data, slices.Clone(b.Slab[off:off+n]))
		off += n + gap
	}
	b.Runs = append(b.Runs, packet.Run{N: len(sizes), Endpoint: e})
	return b, data
}

func times(n, size int, more ...int) []int {
	return append(slices.Repeat([]int{size}, n), more...)
}

func wantSent(t testing.TB, c Conn, b *packet.Batch) {
	t.Helper()
	if err := c.Send(b); err != nil {
		t.Fatal(err)
	}
	for i, p := range b.Packets {
		if p.Drop != 0 {
			t.Fatalf("packet %d was dropped: %v", i, p.Drop)
		}
	}
}

// wantReceived receives exactly the datagrams, in order, the empty left out, and returns the endpoints that they came
// from.
func wantReceived(t testing.TB, r Receiver, data [][]byte) (e packet.Endpoint) {
	t.Helper()
	b := packet.New()
	data = slices.DeleteFunc(slices.Clone(data), func(d []byte) bool { return len(d) == 0 })
	got := 0
	for got < len(data) {
		b.Reset()
		if _, err := r.Receive(b); err != nil {
			t.Fatalf("after %d of %d datagrams: %v", got, len(data), err)
		}
		at := 0
		for _, run := range b.Runs {
			if run.First != at || run.N < 1 {
				t.Fatalf("runs %v don't cover the packets", b.Runs)
			}
			at += run.N
			e = run.Endpoint
		}
		if at != len(b.Packets) {
			t.Fatalf("runs %v don't cover %d packets", b.Runs, len(b.Packets))
		}
		for i := range b.Packets {
			if got == len(data) {
				t.Fatalf("%d datagrams too many", len(b.Packets)-i)
			}
			if !slices.Equal(b.Bytes(i), data[got]) {
				t.Fatalf("datagram %d: %d bytes that differ from the %d sent", got, b.Packets[i].Len, len(data[got]))
			}
			got++
		}
	}
	return e
}

func TestSizes(t *testing.T) {
	families(t, func(t *testing.T, lo netip.Addr) {
		a, c := newConn(t, &Host{}), newConn(t, &Host{})
		watch(t, c)
		sizes := []int{0, 1, 2, 15, 16, 17, 31, 32, 33, 92, 148, 1279, 1280, 1419, 1420, 1452, 1472, 1500, 4095, 4096,
			8972, 9000, 32767, 32768, 65000, 65506, 65507}
		for n := 3; n < 65507; n += n/3 + 1 {
			sizes = append(sizes, n)
		}
		for _, n := range sizes {
			if n > 9000 && runtime.GOOS != "linux" {
				continue // other systems have lower limits
			}
			b, data := lay(packet.Endpoint{Addr: netip.AddrPortFrom(lo, c.Port())}, 0, n)
			wantSent(t, a, b)
			e := wantReceived(t, c.receiverOf(lo), data)
			if n > 0 && e.Addr != netip.AddrPortFrom(lo, a.Port()) {
				t.Fatalf("from %v", e)
			}
		}
		// What the empty one did is seen when something comes after it.
		b, data := lay(packet.Endpoint{Addr: netip.AddrPortFrom(lo, c.Port())}, 0, 0, 5, 0)
		wantSent(t, a, b)
		wantReceived(t, c.receiverOf(lo), data)
	})
}

// TestSuperPackets sends super-packets of each shape, with each offload on and off at each end.
func TestSuperPackets(t *testing.T) {
	shapes := [][]int{
		times(2, 100), times(45, 1452), times(64, 128), times(65, 128), times(130, 1000), times(1, 1452, 1),
		times(45, 1452, 700), times(63, 1), times(64, 1), times(64, 1, 1), times(2, 32753), times(2, 32754), times(3, 32753),
		{100, 100, 200, 200, 50, 60, 60, 60, 10}, {5, 4, 3, 2, 1}, {1, 2, 3, 4, 5}, {100, 100, 0, 100, 100},
		times(7, 9000, 8999), times(1, 65507, 1), times(1, 1, 65507), times(512, 64),
	}
	for n := 1; n <= 66; n += 5 {
		shapes = append(shapes, times(n, 300), times(n, 300, 299))
	}
	for _, h := range []Host{{}, {Off: packet.GSO}, {Off: packet.GRO}, {Off: packet.SocketOffloads}} {
		t.Run(fmt.Sprintf("off=%v", h.Off), func(t *testing.T) {
			families(t, func(t *testing.T, lo netip.Addr) {
				a, c := newConn(t, &h), newConn(t, &h)
				watch(t, c)
				for _, sizes := range shapes {
					if runtime.GOOS != "linux" && slices.Max(sizes) > 9000 {
						continue
					}
					for _, gap := range []int{0, 3} {
						b, data := lay(packet.Endpoint{Addr: netip.AddrPortFrom(lo, c.Port())}, gap, sizes...)
						wantSent(t, a, b)
						wantReceived(t, c.receiverOf(lo), data)
					}
				}
			})
		})
	}
}

func TestDroppedAreLeftOut(t *testing.T) {
	families(t, func(t *testing.T, lo netip.Addr) {
		a, c := newConn(t, &Host{}), newConn(t, &Host{})
		watch(t, c)
		for _, gone := range [][]int{{0}, {9}, {0, 1, 2}, {4}, {3, 4, 8}, {0, 2, 4, 6, 8}, {1, 3, 5, 7, 9}} {
			b, data := lay(packet.Endpoint{Addr: netip.AddrPortFrom(lo, c.Port())}, 0, times(10, 200)...)
			for _, i := range gone {
				b.Packets[i].Drop = packet.DropMalformed
				data[i] = nil
			}
			if err := a.Send(b); err != nil {
				t.Fatal(err)
			}
			wantReceived(t, c.receiverOf(lo), data)
			for i, p := range b.Packets {
				if (p.Drop == packet.DropMalformed) != slices.Contains(gone, i) {
					t.Fatalf("drop of %d: %v", i, p.Drop)
				}
			}
		}
	})
}

// TestManyEndpoints has one batch go to several endpoints in both families, some of them in turns.
func TestManyEndpoints(t *testing.T) {
	a := newConn(t, &Host{})
	var cs []*conn
	for range 3 {
		c := newConn(t, &Host{})
		watch(t, c)
		cs = append(cs, c)
	}
	b, data := lay(packet.Endpoint{}, 0, times(120, 333)...)
	b.Runs = b.Runs[:0]
	want := make(map[netip.AddrPort][][]byte)
	for i := range 40 {
		lo := []netip.Addr{lo4, lo6}[i/3%2]
		to := netip.AddrPortFrom(lo, cs[i%3].Port())
		b.Runs = append(b.Runs, packet.Run{First: 3 * i, N: 3, Endpoint: packet.Endpoint{Addr: to}})
		want[to] = append(want[to], data[3*i:3*i+3]...)
	}
	wantSent(t, a, b)
	for to, data := range want {
		for _, c := range cs {
			if c.Port() == to.Port() {
				wantReceived(t, c.receiverOf(to.Addr()), data)
			}
		}
	}
}

func TestListen(t *testing.T) {
	c := newConn(t, &Host{})
	if c.Port() == 0 || len(c.Receivers()) != 2 {
		t.Fatalf("port %d, %d receivers", c.Port(), len(c.Receivers()))
	}
	if r := c.Receivers(); r[0] != c.Receivers()[0] || r[1] != c.Receivers()[1] {
		t.Error("the receivers are not always the same")
	}
	_, err := (&Host{}).Listen(c.Port())
	if want := fmt.Sprintf("udp: listen on port %d: %v", c.Port(), syscall.EADDRINUSE); !errors.Is(err, syscall.EADDRINUSE) || err.Error() != want {
		t.Fatalf("error %q, want %q", err, want)
	}
	// Taken in one family only: in use all the same.
	for _, network := range []string{"udp4", "udp6"} {
		pc, err := net.ListenPacket(network, ":0")
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		if _, err := (&Host{}).Listen(uint16(pc.LocalAddr().(*net.UDPAddr).Port)); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("taken in %s: %v", network, err)
		}
	}
	port := c.Port()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatalf("closed again: %v", err)
	}
	again, err := (&Host{}).Listen(port)
	if err != nil {
		t.Fatalf("the port is not free after Close: %v", err)
	}
	again.Close()
}

// TestListenFamilies has families that are missing or broken, and ports that are taken in IPv6.
func TestListenFamilies(t *testing.T) {
	system := (&Host{}).open
	var opened []*socket
	for _, c := range []struct {
		name       string
		port       uint16
		err4, err6 error
		taken      int // how often err6
		is4, is6   bool
		err        error
		attempts   int
	}{
		{"both", 0, nil, nil, 0, true, true, nil, 1},
		{"no IPv6", 0, nil, syscall.EAFNOSUPPORT, 99, true, false, nil, 1},
		{"no IPv6 address", 0, nil, syscall.EADDRNOTAVAIL, 99, true, false, nil, 1},
		{"no IPv4", 0, syscall.EAFNOSUPPORT, nil, 0, false, true, nil, 1},
		{"neither", 0, syscall.EAFNOSUPPORT, syscall.EAFNOSUPPORT, 99, false, false, syscall.EAFNOSUPPORT, 1},
		{"collision", 0, nil, syscall.EADDRINUSE, 3, true, true, nil, 4},
		{"collision for ever", 0, nil, syscall.EADDRINUSE, 99, false, false, syscall.EADDRINUSE, listenAttempts},
		{"no IPv4, port taken", 7, syscall.EAFNOSUPPORT, syscall.EADDRINUSE, 99, false, false, syscall.EADDRINUSE, 1},
		{"IPv6 not allowed", 0, nil, syscall.EPERM, 99, true, false, nil, 1},
		{"IPv6 broken", 0, nil, syscall.EINVAL, 99, true, false, nil, 1},
		{"IPv4 not allowed", 0, syscall.EACCES, nil, 0, false, true, nil, 1},
		{"neither allowed", 0, syscall.EACCES, syscall.EACCES, 99, false, false, syscall.EACCES, 1},
		{"IPv4 not allowed, no IPv6", 0, syscall.EACCES, syscall.EAFNOSUPPORT, 99, false, false, syscall.EACCES, 1},
		{"IPv4 not allowed, port taken", 7, syscall.EACCES, syscall.EADDRINUSE, 99, false, false, syscall.EADDRINUSE, 1},
		{"port taken in IPv4", 7, syscall.EADDRINUSE, nil, 0, false, false, syscall.EADDRINUSE, 1},
		{"no more files", 0, nil, syscall.EMFILE, 99, false, false, syscall.EMFILE, 1},
		{"no more files for IPv4", 0, syscall.ENFILE, nil, 0, false, false, syscall.ENFILE, 1},
	} {
		attempts, taken := 0, c.taken
		opened = nil
		got, err := listen(func(network string, port uint16) (*socket, error) {
			if network == "udp4" {
				attempts++
				if c.err4 != nil {
					return nil, c.err4
				}
			} else if c.err6 != nil && taken > 0 {
				taken--
				return nil, c.err6
			}
			s, err := system(network, port)
			if err == nil {
				opened = append(opened, s)
			}
			return s, err
		}, c.port)
		if err != c.err || attempts != c.attempts {
			t.Errorf("%s: error %v after %d attempts, want %v after %d", c.name, err, attempts, c.err, c.attempts)
		}
		if err == nil {
			if (got.v4 != nil) != c.is4 || (got.v6 != nil) != c.is6 || got.port == 0 {
				t.Errorf("%s: IPv4 %t, IPv6 %t, port %d", c.name, got.v4 != nil, got.v6 != nil, got.port)
			}
			broken, what := c.err6, "IPv6"
			if c.err4 != nil {
				broken, what = c.err4, "IPv4"
			}
			switch missing := got.MissingFamily(); {
			case c.is4 && c.is6, familyMissing(broken):
				if missing != nil {
					t.Errorf("%s: missing %v", c.name, missing)
				}
			case !errors.Is(missing, broken) || !strings.Contains(missing.Error(), what):
				t.Errorf("%s: missing %v, want %s: %v", c.name, missing, what, broken)
			}
			for _, s := range got.sockets() {
				if s.port() != got.port {
					t.Errorf("%s: ports differ", c.name)
				}
			}
			got.Close()
		}
		for _, s := range opened {
			if err := s.close(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: a socket was left open", c.name)
			}
		}
	}
}

func TestMissingFamily(t *testing.T) {
	c := newConn(t, &Host{})
	c.v6.close()
	half := &conn{port: c.port, v4: c.v4}
	if len(half.Receivers()) != 1 {
		t.Fatalf("%d receivers", len(half.Receivers()))
	}
	b, _ := lay(packet.Endpoint{Addr: netip.AddrPortFrom(lo6, 9)}, 0, 10, 10, 10)
	b.Packets[0].Drop = packet.DropReplay
	b.Runs = []packet.Run{{N: 2, Endpoint: b.Runs[0].Endpoint}, {First: 2, N: 1, Endpoint: packet.Endpoint{Addr: netip.AddrPortFrom(lo4, c.Port())}}}
	watch(t, half)
	if err := half.Send(b); !errors.Is(err, syscall.EAFNOSUPPORT) {
		t.Fatalf("error %v", err)
	}
	if p := b.Packets; p[0].Drop != packet.DropReplay || p[1].Drop != packet.DropSend || p[2].Drop != 0 {
		t.Fatalf("drops %v", b.Packets)
	}
	wantReceived(t, half.receiverOf(lo4), [][]byte{b.Bytes(2)})
}

func TestCloseUnblocks(t *testing.T) {
	c := newConn(t, &Host{})
	var wg, ready sync.WaitGroup
	for _, r := range c.Receivers() {
		ready.Add(1)
		wg.Go(func() {
			ready.Done()
			if _, err := r.Receive(packet.New()); err != net.ErrClosed {
				t.Errorf("Receive: %v", err)
			}
			if _, err := r.Receive(packet.New()); err != net.ErrClosed {
				t.Errorf("Receive again: %v", err)
			}
		})
	}
	ready.Wait()
	c.Close()
	wg.Wait()
	b, _ := lay(packet.Endpoint{Addr: netip.AddrPortFrom(lo4, 9)}, 0, 1, 1)
	if err := c.Send(b); err != net.ErrClosed || b.Packets[0].Drop != packet.DropSend || b.Packets[1].Drop != packet.DropSend {
		t.Errorf("Send: %v, %v", err, b.Packets)
	}
	if err := c.SetMark(1); runtime.GOOS == "linux" && err != net.ErrClosed {
		t.Errorf("SetMark: %v", err)
	}
}

// TestListenAnew holds what an engine that opens its sockets anew relies on: while a Conn is open its port is in use, and
// when Close has returned it is free, even if others were receiving and sending.
func TestListenAnew(t *testing.T) {
	c := newConn(t, &Host{})
	port := c.Port()
	for range 20 {
		var wg, ready sync.WaitGroup
		for _, r := range c.Receivers() {
			ready.Add(1)
			wg.Go(func() {
				b := packet.New()
				ready.Done()
				for {
					b.Reset()
					if _, err := r.Receive(b); err != nil {
						return
					}
				}
			})
		}
		for _, lo := range []netip.Addr{lo4, lo6} {
			ready.Add(1)
			wg.Go(func() {
				b, _ := lay(packet.Endpoint{Addr: netip.AddrPortFrom(lo, port)}, 0, times(20, 500)...)
				ready.Done()
				for c.Send(b) == nil {
				}
			})
		}
		ready.Wait()
		if _, err := (&Host{}).Listen(port); !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatalf("while it is open: %v", err)
		}
		c.Close()
		anew, err := (&Host{}).Listen(port)
		if err != nil {
			t.Fatalf("after Close: %v", err)
		}
		wg.Wait()
		c = anew.(*conn)
		t.Cleanup(func() { anew.Close() })
	}
}

// TestManySenders is for the race detector, and for what senders may mix up between them.
func TestManySenders(t *testing.T) {
	const senders, rounds, n, size = 4, 20, 20, 100
	a, c := newConn(t, &Host{}), newConn(t, &Host{})
	watch(t, c)
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for k := range rounds {
				b, _ := lay(packet.Endpoint{Addr: netip.AddrPortFrom([]netip.Addr{lo4, lo6}[s%2], c.Port())}, 0, times(n, size)...)
				for i := range b.Packets {
					d := b.Bytes(i)
					d[0], d[1], d[2] = byte(s), byte(k), byte(i)
				}
				if err := a.Send(b); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, r := range c.Receivers() {
		wg.Go(func() {
			next := make(map[byte]int)
			b := packet.New()
			for got := 0; got < senders/2*rounds*n; got += len(b.Packets) {
				b.Reset()
				if _, err := r.Receive(b); err != nil {
					t.Error(err)
					return
				}
				for i := range b.Packets {
					d := b.Bytes(i)
					if at := int(d[1])*n + int(d[2]); len(d) != size || at != next[d[0]] {
						t.Errorf("sender %d: number %d of %d bytes came for %d", d[0], at, len(d), next[d[0]])
						return
					}
					next[d[0]]++
				}
			}
		})
	}
	wg.Wait()
}

func TestOffloadSwitches(t *testing.T) {
	if o := newConn(t, &Host{Off: packet.SocketOffloads}).Offloads(); !maps.Equal(o, packet.OffloadStates{packet.GSO: packet.OffloadOff, packet.GRO: packet.OffloadOff}) {
		t.Errorf("switched off: %v", o)
	}
	if o := newConn(t, &Host{Off: packet.GRO}).Offloads(); o[packet.GRO] != packet.OffloadOff {
		t.Errorf("GRO switched off: %v", o)
	}
}
