package udp

import (
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"throughline/packet"
)

// TestInterface binds two Conns to one port, each by a link of its own, between the same two machines: each receives what
// comes by its link, and sends by it, though the better route is the first link's.
func TestInterface(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		na, nb := twoWays(t)
		there := nb.listen(Host{})
		links := []string{"l1", "l2"}
		ours := map[string][2]string{"l1": {"10.1.0.1", "fd01::1"}, "l2": {"10.2.0.1", "fd02::1"}}
		var bound []*conn
		for _, link := range links {
			h := Host{Interface: link}
			if len(bound) == 0 {
				bound = append(bound, na.listen(h))
				continue
			}
			na.run(func() {
				c, err := h.Listen(bound[0].Port())
				if err != nil {
					t.Errorf("by %s: %v", link, err)
					return
				}
				t.Cleanup(func() { c.Close() })
				watch(t, c)
				bound = append(bound, c.(*conn))
			})
		}
		if len(bound) != len(links) {
			t.FailNow()
		}
		for family, far := range []netip.Addr{far4.Addr(), far6.Addr()} {
			// What comes: to each its own, all before any is looked at.
			var data [][][]byte
			for i, link := range links {
				to := netip.MustParseAddr(ours[link][family])
				hello, d := lay(packet.Endpoint{Addr: netip.AddrPortFrom(to, bound[i].Port())}, 0, 100+i, 50, 100+i)
				wantSent(t, there, hello)
				data = append(data, d)
			}
			for i, link := range links {
				from := wantReceived(t, bound[i].receiverOf(far), data[i])
				if from.SrcIf != na.index(link) {
					t.Errorf("received by link %d, want %s", from.SrcIf, link)
				}
				// What goes, with the source and without.
				for _, to := range []packet.Endpoint{{Addr: netip.AddrPortFrom(far, there.Port())}, from} {
					hello, d := lay(to, 0, times(5, 200+i, 3)...)
					wantSent(t, bound[i], hello)
					if got := wantReceived(t, there.receiverOf(far), d); got.SrcIf != nb.index(link) || got.Addr.Addr().String() != ours[link][family] {
						t.Errorf("by %s to %v: received from %v by link %d", link, to, got.Addr, got.SrcIf)
					}
				}
				// A bound socket doesn't care which route is the better one.
				wantStale(t, bound[i], packet.Endpoint{Addr: netip.AddrPortFrom(far, there.Port()), Src: from.Src, SrcIf: from.SrcIf}, false)
			}
		}
		// By Control it is the same, and an unbound socket would be sent by the other link.
		byControl := na.listen(Host{Control: func(_, _ string, c syscall.RawConn) error { return bindToInterface("", c, "l2") }})
		ep := packet.Endpoint{Addr: far4, Src: netip.MustParseAddr("10.2.0.1"), SrcIf: na.index("l2")}
		wantStale(t, byControl, ep, false)
		wantStale(t, na.listen(Host{}), ep, true)
	})
}

// TestLongInterface holds that a name too long isn't cut to that of another interface, as the kernel would.
func TestLongInterface(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		ns := newNetns(t)
		ns.ip("link add fifteen-letters type veth peer name other")
		ns.listen(Host{Interface: "fifteen-letters"})
		ns.run(func() {
			if _, err := (&Host{Interface: "fifteen-letters2"}).Listen(0); !errors.Is(err, syscall.ENODEV) {
				t.Errorf("error %v", err)
			}
		})
	})
}

// TestNoSuchInterface names interfaces that aren't there.
func TestNoSuchInterface(t *testing.T) {
	for _, name := range []string{"nolink", "lo:0", "averyveryverylongname", "lo\x00", "lo\x00lo"} {
		c, err := (&Host{Interface: name}).Listen(0)
		if err == nil {
			c.Close()
		}
		if !errors.Is(err, syscall.ENODEV) || !strings.HasPrefix(err.Error(), "udp: listen on port 0: bind to interface "+name+": ") {
			t.Errorf("%q: error %v", name, err)
		}
	}
}
