package udptest

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"throughline/packet"
	"throughline/udp"
)

var (
	_ udp.Network  = (*Host)(nil)
	_ udp.Conn     = (*conn)(nil)
	_ udp.Receiver = (*receiver)(nil)

	a4, b4, c4 = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	a6, b6     = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
)

func listen(t *testing.T, h *Host, port uint16) udp.Conn {
	t.Helper()
	c, err := h.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// batch lays one run of datagrams to e.
func batch(e packet.Endpoint, data ...string) *packet.Batch {
	b := packet.NewSize(8<<10, 16)
	for _, s := range data {
		b.Append([]byte(s))
	}
	b.Runs = append(b.Runs, packet.Run{N: len(data), Endpoint: e})
	return b
}

func send(t *testing.T, c udp.Conn, to netip.AddrPort, data ...string) {
	t.Helper()
	if err := c.Send(batch(packet.Endpoint{Addr: to}, data...)); err != nil {
		t.Fatal(err)
	}
}

// receive returns what is there now, without waiting.
func receive(t *testing.T, r udp.Receiver) (data []string, runs []packet.Run) {
	t.Helper()
	sr := r.(*receiver)
	sr.c.host.net.mu.Lock()
	none := len(sr.queue) == 0
	sr.c.host.net.mu.Unlock()
	if none {
		return nil, nil
	}
	b := packet.NewSize(8<<10, 512)
	if _, err := r.Receive(b); err != nil {
		t.Fatal(err)
	}
	for i := range b.Packets {
		data = append(data, string(b.Bytes(i)))
	}
	return data, b.Runs
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("received %q, want %q", got, want)
	}
}

func TestDelivery(t *testing.T) {
	for _, pair := range [][2]netip.Addr{{a4, b4}, {a6, b6}} {
		n := New(1, Options{})
		a, b := listen(t, n.Host(pair[0]), 7), listen(t, n.Host(pair[1]), 0)
		rs := b.Receivers()
		r := rs[0]
		if pair[1].Is6() {
			r = rs[1]
		}
		send(t, a, netip.AddrPortFrom(pair[1], b.Port()), "one", "two", "3", "four", "five")
		data, runs := receive(t, r)
		want(t, data, "one", "two", "3", "four", "five")
		if len(runs) != 2 { // a super-packet ends with its first shorter datagram
			t.Fatalf("%d runs, want 2: %v", len(runs), runs)
		}
		e := packet.Endpoint{Addr: netip.AddrPortFrom(pair[0], 7), Src: pair[1], SrcIf: 1}
		if runs[0].Endpoint != e || runs[1].Endpoint != e {
			t.Fatalf("endpoints %v, want %v", runs, e)
		}
	}
}

func TestFamilies(t *testing.T) {
	n := New(1, Options{})
	h := n.Host(a4)
	h.No6 = true
	c := listen(t, h, 1)
	if len(c.Receivers()) != 1 {
		t.Fatalf("%d receivers, want 1", len(c.Receivers()))
	}
	b := batch(packet.Endpoint{Addr: netip.AddrPortFrom(b6, 1)}, "x")
	if err := c.Send(b); !errors.Is(err, syscall.EAFNOSUPPORT) || b.Packets[0].Drop != packet.DropSend {
		t.Fatalf("Send to a missing family: %v, drop %v", err, b.Packets[0].Drop)
	}
	h = n.Host()
	h.No4, h.No6 = true, true
	if _, err := h.Listen(0); err == nil {
		t.Fatal("Listen without a family succeeded")
	}
}

func TestPortInUse(t *testing.T) {
	h := New(1, Options{}).Host(a4)
	c := listen(t, h, 51820)
	_, err := h.Listen(51820)
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.HasPrefix(err.Error(), "udp: listen on port 51820: ") {
		t.Fatalf("error %v", err)
	}
	c.Close()
	c.Close()
	listen(t, h, 51820)
	p, q := listen(t, h, 0).Port(), listen(t, h, 0).Port()
	if p == 0 || p == q {
		t.Fatalf("picked the ports %d and %d", p, q)
	}
}

func TestFates(t *testing.T) {
	const many = 2000
	run := func(seed uint64, o Options) (got []string, s Stats) {
		synctest.Test(t, func(t *testing.T) {
			n := New(seed, o)
			a, b := listen(t, n.Host(a4), 1), listen(t, n.Host(b4), 1)
			for i := range many {
				send(t, a, netip.AddrPortFrom(b4, 1), fmt.Sprint(i))
				time.Sleep(time.Microsecond)
				d, _ := receive(t, b.Receivers()[0])
				got = append(got, d...)
			}
			time.Sleep(time.Second)
			for {
				d, _ := receive(t, b.Receivers()[0])
				if d == nil {
					break
				}
				got = append(got, d...)
			}
			s = n.Stats()
		})
		return got, s
	}
	sorted := func(s []string) bool { // numbers
		return slices.IsSortedFunc(s, func(a, b string) int {
			return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
		})
	}
	near := func(got int, p float64) bool { return abs(got-int(p*many)) < many/20 }

	got, s := run(1, Options{Loss: 0.3})
	if s.Lost != many-len(got) || !near(s.Lost, 0.3) || !sorted(got) {
		t.Errorf("loss: received %d, %+v, sorted %t", len(got), s, sorted(got))
	}
	got, s = run(1, Options{Duplicate: 0.2, Latency: 30 * time.Millisecond, Queue: 2 * many})
	if s.Duplicated != len(got)-many || !near(s.Duplicated, 0.2) || !sorted(got) {
		t.Errorf("duplication: received %d, %+v, sorted %t", len(got), s, sorted(got))
	}
	got, s = run(1, Options{Reorder: 0.1})
	if len(got) != many || !near(s.Reordered, 0.1) || sorted(got) {
		t.Errorf("reordering: received %d, %+v, sorted %t", len(got), s, sorted(got))
	}
	all := Options{Loss: 0.1, Duplicate: 0.1, Reorder: 0.1, Latency: time.Millisecond, Queue: 2 * many}
	one, _ := run(7, all)
	two, _ := run(7, all)
	if other, _ := run(8, all); !slices.Equal(one, two) || slices.Equal(one, other) {
		t.Error("one seed must have one fate, and another another")
	}
}

func abs(x int) int { return max(x, -x) }

func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1, Options{Latency: 20 * time.Millisecond})
		a, b := listen(t, n.Host(a4), 1), listen(t, n.Host(b4), 1)
		begin := time.Now()
		send(t, a, netip.AddrPortFrom(b4, 1), "x")
		batch := packet.New()
		if _, err := b.Receivers()[0].Receive(batch); err != nil { // waits in fake time
			t.Fatal(err)
		}
		if d := time.Since(begin); d != 20*time.Millisecond {
			t.Fatalf("arrived after %v", d)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := listen(t, New(1, Options{}).Host(a4), 1)
		var wg sync.WaitGroup
		for _, r := range c.Receivers() {
			wg.Go(func() {
				if _, err := r.Receive(packet.New()); err != net.ErrClosed {
					t.Errorf("Receive: %v", err)
				}
			})
		}
		synctest.Wait()
		c.Close()
		wg.Wait()
		if err := c.Send(batch(packet.Endpoint{Addr: netip.AddrPortFrom(b4, 1)}, "x")); err != net.ErrClosed {
			t.Errorf("Send: %v", err)
		}
		if err := c.SetMark(1); err != net.ErrClosed {
			t.Errorf("SetMark: %v", err)
		}
	})
}

func TestQueueIsBounded(t *testing.T) {
	n := New(1, Options{Queue: 3, NoGRO: true})
	a, b := listen(t, n.Host(a4), 1), listen(t, n.Host(b4), 1)
	send(t, a, netip.AddrPortFrom(b4, 1), "1", "2", "3", "4", "5")
	data, runs := receive(t, b.Receivers()[0])
	want(t, data, "1", "2", "3")
	if s := n.Stats(); s.Overflowed != 2 || len(runs) != 3 {
		t.Fatalf("%+v, %d runs", s, len(runs))
	}
}

func TestNearlyFullBatch(t *testing.T) {
	n := New(1, Options{NoGRO: true})
	a, b := listen(t, n.Host(a4), 1), listen(t, n.Host(b4), 1)
	send(t, a, netip.AddrPortFrom(b4, 1), strings.Repeat("a", 100), strings.Repeat("b", 100), "too long for it")
	small := packet.NewSize(224, 8)
	more, err := b.Receivers()[0].Receive(small)
	if !more || err != nil || len(small.Packets) != 2 {
		t.Fatalf("%d packets, more %t, %v", len(small.Packets), more, err)
	}
	small.Reset()
	if more, err = b.Receivers()[0].Receive(small); more || err != nil || string(small.Bytes(0)) != "too long for it" {
		t.Fatalf("more %t, %v", more, err)
	}
	// What fits no batch, and what is empty, is dropped; the receiver goes on.
	send(t, a, netip.AddrPortFrom(b4, 1), strings.Repeat("a", 225), "", "ok")
	small.Reset()
	if _, err = b.Receivers()[0].Receive(small); err != nil || len(small.Packets) != 1 || string(small.Bytes(0)) != "ok" {
		t.Fatalf("%d packets, %v", len(small.Packets), err)
	}
}

func TestManInTheMiddle(t *testing.T) {
	n := New(1, Options{})
	a, b := listen(t, n.Host(a4), 1), listen(t, n.Host(b4), 2)
	if err := a.SetMark(9); err != nil {
		t.Fatal(err)
	}
	n.Hook(func(d *Datagram) bool {
		if d.Mark != 9 || d.From != netip.AddrPortFrom(a4, 1) || d.To != netip.AddrPortFrom(b4, 2) {
			t.Errorf("saw %+v", d)
		}
		switch string(d.Data) {
		case "drop":
			return false
		case "alter":
			d.Data = append(d.Data, "ed"...)
		case "twice":
			n.Inject(*d)
		case "spoof":
			d.From = netip.AddrPortFrom(c4, 3)
		}
		return true
	})
	send(t, a, netip.AddrPortFrom(b4, 2), "pass", "drop", "alter", "twice", "spoof")
	n.Hook(nil)
	send(t, a, netip.AddrPortFrom(b4, 2), "drop")
	data, runs := receive(t, b.Receivers()[0])
	want(t, data, "pass", "altered", "twice", "twice", "spoof", "drop")
	if s := n.Stats(); s.Hooked != 1 {
		t.Errorf("%+v", s)
	}
	if e := runs[len(runs)-2].Endpoint.Addr; e != netip.AddrPortFrom(c4, 3) {
		t.Errorf("spoofed from %v", e)
	}
}

func TestPartition(t *testing.T) {
	n := New(1, Options{})
	ha, hb := n.Host(a4), n.Host(b4)
	a, b := listen(t, ha, 1), listen(t, hb, 1)
	n.Cut(hb, ha)
	send(t, a, netip.AddrPortFrom(b4, 1), "lost")
	n.Heal(ha, hb)
	send(t, a, netip.AddrPortFrom(b4, 1), "mended")
	data, _ := receive(t, b.Receivers()[0])
	want(t, data, "mended")
}

func TestRoaming(t *testing.T) {
	n := New(1, Options{})
	ha, hb := n.Host(a4), n.Host(b4)
	a, b := listen(t, ha, 1), listen(t, hb, 1)
	ha.SetAddrs(c4)
	bt := batch(packet.Endpoint{Addr: netip.AddrPortFrom(b4, 1), Src: a4, SrcIf: 1}, "hello")
	if err := a.Send(bt); err != nil { // the source is gone: sent all the same
		t.Fatal(err)
	}
	if bt.Runs[0].Endpoint.Src.IsValid() {
		t.Error("the source that is gone was kept")
	}
	_, runs := receive(t, b.Receivers()[0])
	if e := runs[0].Endpoint.Addr; e != netip.AddrPortFrom(c4, 1) {
		t.Fatalf("came from %v", e)
	}
	send(t, b, netip.AddrPortFrom(a4, 1), "to nobody")
	if s := n.Stats(); s.Nowhere != 1 {
		t.Errorf("%+v", s)
	}
	ha.SetAddrs()
	if err := a.Send(bt); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("sent without an address: %v", err)
	}
}

func TestSourceIsSticky(t *testing.T) {
	n := New(1, Options{})
	a, b := listen(t, n.Host(a4, c4), 1), listen(t, n.Host(b4), 1)
	for _, src := range []netip.Addr{c4, a4} {
		if err := a.Send(batch(packet.Endpoint{Addr: netip.AddrPortFrom(b4, 1), Src: src}, "x")); err != nil {
			t.Fatal(err)
		}
		if _, runs := receive(t, b.Receivers()[0]); runs[0].Endpoint.Addr.Addr() != src {
			t.Fatalf("from %v, want %v", runs[0].Endpoint.Addr, src)
		}
	}
}

func TestPathMTU(t *testing.T) {
	for _, c := range []struct {
		a, b    netip.Addr
		headers int
	}{{a4, b4, 28}, {a6, b6, 48}} {
		n := New(1, Options{})
		ha, hb := n.Host(c.a), n.Host(c.b)
		a := listen(t, ha, 1)
		listen(t, hb, 1)
		n.SetMTU(hb, ha, 1280)
		fits := strings.Repeat("x", 1280-c.headers)
		b := batch(packet.Endpoint{Addr: netip.AddrPortFrom(c.b, 1)}, fits, fits+"x", fits)
		if err := a.Send(b); !errors.Is(err, syscall.EMSGSIZE) {
			t.Fatalf("error %v", err)
		}
		if d := b.Packets; d[0].Drop != 0 || d[1].Drop != packet.DropSend || d[2].Drop != 0 {
			t.Fatalf("drops %v", d)
		}
		if s := n.Stats(); s.Delivered != 2 {
			t.Fatalf("%+v", s)
		}
	}
}
