package netstack

import (
	"net/netip"
	"slices"
	"sync"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"pgregory.net/rapid"
)

func TestShareOfMany(t *testing.T) {
	const most = 4 << 20
	var set []int
	var s share
	s.init(most, func(n int) { set = append(set, n) })
	at := func(n int) int {
		for int(s.waiting.Load()) < n {
			s.wait()
		}
		for int(s.waiting.Load()) > n {
			s.done()
		}
		return int(s.limit.Load())
	}
	for _, c := range []struct{ waiting, limit int }{
		{1, most}, {16, most}, {17, most / 2}, {32, most / 2}, {100, most / 8}, {80, most / 8}, // between two limits, it stays
		{10_000, leastShare}, {100, most / 16}, {0, most},
	} {
		if got := at(c.waiting); got != c.limit {
			t.Errorf("with %d that wait: %d, want %d", c.waiting, got, c.limit)
		}
	}
	if slices.Contains(set, 0) || set[len(set)-1] != most {
		t.Errorf("set to %v", set)
	}
	for i := 1; i < len(set); i++ {
		if set[i] == set[i-1] {
			t.Errorf("set to %d twice", set[i])
		}
	}
}

// TestShareBounds checks that all connections together buffer no more than all, that one may buffer at least a super-packet,
// and that the limit is the highest again when none waits.
func TestShareBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(tcp.MinBufferSize, 1<<30).Draw(t, "most")
		now := most
		var s share
		s.init(most, func(n int) { now = n })
		for _, more := range rapid.SliceOfN(rapid.Bool(), 0, 400).Draw(t, "steps") {
			if more {
				s.wait()
			} else if s.waiting.Load() > 0 {
				s.done()
			}
			n, least := int(s.waiting.Load()), min(leastShare, most)
			if now != int(s.limit.Load()) || now > most || now < least || now*n > shares*most && now > least {
				t.Fatalf("%d wait, and each may keep %d of %d", n, now, most)
			}
		}
		for s.waiting.Load() > 0 {
			s.done()
		}
		if now != most {
			t.Fatalf("none waits, and one may keep %d of %d", now, most)
		}
	})
}

func TestShareFromEverywhere(t *testing.T) {
	var s share
	var last int // set is called under the share's lock
	s.init(1<<20, func(n int) { last = n })
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 200 {
				s.wait()
				s.done()
			}
		})
	}
	wg.Wait()
	if s.waiting.Load() != 0 || s.limit.Load() != 1<<20 || last != 0 && last != 1<<20 {
		t.Errorf("%d wait, limit %d, last set %d", s.waiting.Load(), s.limit.Load(), last)
	}
}

// TestShareIsTheStacks checks that a stack's connections have its share's limit.
func TestShareIsTheStacks(t *testing.T) {
	s, err := New(Options{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	limit := func() int {
		var o tcpip.TCPSendBufferSizeRangeOption
		if err := s.ip.TransportProtocolOption(tcp.ProtocolNumber, &o); err != nil {
			t.Fatal(err)
		}
		return o.Max
	}
	if limit() != defaultBuffer {
		t.Errorf("alone a connection may keep %d", limit())
	}
	for range 100 {
		s.share.wait()
	}
	if limit() != defaultBuffer/8 {
		t.Errorf("of a hundred one may keep %d", limit())
	}
}
