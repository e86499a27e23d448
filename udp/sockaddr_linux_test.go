package udp

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestSockaddr(t *testing.T) {
	z := &zones{ask: func() ([]net.Interface, error) { return []net.Interface{{Index: 7, Name: "eth7"}}, nil }}
	for _, c := range []struct{ put, got string }{
		{"192.0.2.1:51820", "192.0.2.1:51820"},
		{"[2001:db8::1]:1", "[2001:db8::1]:1"},
		{"[fe80::1%eth7]:65535", "[fe80::1%eth7]:65535"},
		{"[fe80::1%7]:1", "[fe80::1%eth7]:1"},
		{"[fe80::1%9]:1", "[fe80::1%9]:1"},             // a link that has no name
		{"[fe80::1%gone]:1", "[fe80::1%2147483647]:1"}, // one that isn't there: the kernel will refuse it
		{"[2001:db8::1%7]:1", "[2001:db8::1]:1"},       // a zone means nothing here
	} {
		var sa sockaddr
		for i := range sa {
			sa[i] = 0xff // of an earlier send
		}
		n := sa.put(netip.MustParseAddrPort(c.put), z)
		if rest := append(slices.Clone(sa[n:]), sa[4:8]...); n == unix.SizeofSockaddrInet6 && !bytes.Equal(rest, make([]byte, 4)) ||
			n == unix.SizeofSockaddrInet4 && !bytes.Equal(sa[8:], make([]byte, 20)) {
			t.Errorf("%s: what was there before is still there: %x", c.put, sa)
		}
		if got := sa.get(n, z); got.String() != c.got {
			t.Errorf("%s became %v, want %s", c.put, got, c.got)
		}
	}
	var sa sockaddr
	n := sa.put(netip.MustParseAddrPort("[::ffff:192.0.2.1]:5"), z)
	if got := sa.get(n, z); got != netip.MustParseAddrPort("192.0.2.1:5") {
		t.Errorf("mapped: %v", got)
	}
	sa.put(netip.MustParseAddrPort("[2001:db8::1]:1"), z)
	for _, n := range []uint32{0, unix.SizeofSockaddrInet4} {
		if got := sa.get(n, z); got.IsValid() {
			t.Errorf("of %d bytes: %v", n, got)
		}
	}
}

func TestZones(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		links, fail := []net.Interface{{Index: 2, Name: "eth0"}}, error(nil)
		z := &zones{ask: func() ([]net.Interface, error) { asked++; return links, fail }}
		a := netip.MustParseAddr("fe80::1")
		want := func(index uint32, zone string, times int) {
			t.Helper()
			if got := z.with(a, index); got != a.WithZone(zone) || asked != times {
				t.Fatalf("%d: %v after asking %d times, want %%%s after %d", index, got, asked, zone, times)
			}
		}
		want(0, "", 0)
		want(2, "eth0", 1)
		want(2, "eth0", 1)
		want(3, "3", 1) // unknown, but asked just now
		links = append(links, net.Interface{Index: 3, Name: "eth1"})
		time.Sleep(zoneRest)
		want(3, "eth1", 2)
		if i := z.index("eth1"); i != 3 || asked != 2 {
			t.Fatalf("eth1 is %d after asking %d times", i, asked)
		}
		links[0].Name = "lan0" // renamed
		want(2, "eth0", 2)
		time.Sleep(zoneLife)
		want(2, "lan0", 3)
		for range 100 {
			if z.index("nope") != noLink || z.index("") != 0 || z.index("17") != 17 || asked != 3 {
				t.Fatalf("asked %d times", asked)
			}
		}
		fail = errors.New("no netlink here")
		time.Sleep(zoneLife)
		want(2, "2", 4)

		for range 2 {
			if n := testing.AllocsPerRun(100, func() { z.index("") }); n != 0 {
				t.Errorf("index allocates %v times", n)
			}
		}
	})
	z := &zones{ask: net.Interfaces}
	a, index := netip.MustParseAddr("fe80::1"), uint32(1)
	zone := z.with(a, index).Zone()
	if n := testing.AllocsPerRun(1000, func() {
		if z.with(a, index).Zone() != zone || z.index(zone) != index {
			t.Error("changed")
		}
	}); n != 0 {
		t.Errorf("a known link-local address allocates %v times", n)
	}
}
