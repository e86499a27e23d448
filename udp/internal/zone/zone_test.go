package zone

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		links, fail := []net.Interface{{Index: 2, Name: "eth0"}}, error(nil)
		z := &Names{Ask: func() ([]net.Interface, error) { asked++; return links, fail }}
		a := netip.MustParseAddr("fe80::1")
		want := func(index uint32, name string, times int) {
			t.Helper()
			if got := z.With(a, index); got != a.WithZone(name) || asked != times {
				t.Fatalf("%d: %v after asking %d times, want %%%s after %d", index, got, asked, name, times)
			}
		}
		want(0, "", 0)
		want(2, "eth0", 1)
		want(2, "eth0", 1)
		want(3, "3", 1) // unknown, but asked just now
		links = append(links, net.Interface{Index: 3, Name: "eth1"})
		time.Sleep(spacing)
		want(3, "eth1", 2)
		if i := z.Index("eth1"); i != 3 || asked != 2 {
			t.Fatalf("eth1 is %d after asking %d times", i, asked)
		}
		links[0].Name = "lan0" // renamed
		want(2, "eth0", 2)
		time.Sleep(life)
		want(2, "lan0", 3)
		for range 100 {
			if z.Index("nope") != noLink || z.Index("") != 0 || z.Index("17") != 17 || asked != 3 {
				t.Fatalf("asked %d times", asked)
			}
		}
		fail = errors.New("no netlink here")
		time.Sleep(life)
		want(2, "2", 4)

		for range 2 {
			if n := testing.AllocsPerRun(100, func() { z.Index("") }); n != 0 {
				t.Errorf("index allocates %v times", n)
			}
		}
	})
	z := &Names{Ask: net.Interfaces}
	a, index := netip.MustParseAddr("fe80::1"), uint32(1)
	zone := z.With(a, index).Zone()
	if n := testing.AllocsPerRun(1000, func() {
		if z.With(a, index).Zone() != zone || z.Index(zone) != index {
			t.Error("changed")
		}
	}); n != 0 {
		t.Errorf("a known link-local address allocates %v times", n)
	}
}
