package udp

import (
	"math"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestDestinations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d destinations
		at := func(i int) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1)
		}
		want := func(i, size int) {
			t.Helper()
			if got := d.limit(at(i)); got != size {
				t.Fatalf("limit of %d: %d, want %d", i, got, size)
			}
		}
		want(0, math.MaxInt)
		d.add(at(0), 1452)
		d.add(at(1), 100)
		want(0, 1452)
		want(1, 100)
		want(2, math.MaxInt)
		d.add(at(0), 1400)
		d.add(at(0), 1452)
		want(0, 1400)
		time.Sleep(refusalLife / 2)
		d.add(at(1), 100)
		time.Sleep(refusalLife / 2)
		want(0, math.MaxInt) // tried anew
		want(1, 100)
		for i := range 10 * maxDestinations {
			d.add(at(i), 9)
			want(i, 9)
		}
		if len(d.m) != maxDestinations || int(d.n.Load()) != maxDestinations {
			t.Fatalf("%d destinations, counted %d", len(d.m), d.n.Load())
		}
		time.Sleep(refusalLife)
		for i := range 10 * maxDestinations {
			want(i, math.MaxInt)
		}
		if len(d.m) != 0 || d.n.Load() != 0 {
			t.Fatalf("%d destinations left, counted %d", len(d.m), d.n.Load())
		}
	})
}
