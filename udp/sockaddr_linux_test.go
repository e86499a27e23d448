package udp

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"throughline/udp/internal/zone"
)

func TestSockaddr(t *testing.T) {
	z := &zone.Names{Ask: func() ([]net.Interface, error) { return []net.Interface{{Index: 7, Name: "eth7"}}, nil }}
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
