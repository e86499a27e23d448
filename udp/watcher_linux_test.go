package udp

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"throughline/packet"
)

// twoWays returns two namespaces with two links between them, l1 and l2, over which the first reaches addresses of the
// second's that are on neither. The first link is the better one. Both ends have number n of each of 10.1.0.0/24 and
// fd01::/64, and of 10.2.0.0/24 and fd02::/64.
func twoWays(t *testing.T) (a, b *netns) {
	a, b = newNetns(t), newNetns(t)
	b.ip("addr add 192.0.2.1/32 dev lo")
	b.ip("addr add 2001:db8::1/128 dev lo nodad")
	for link := 1; link <= 2; link++ {
		a.ip(fmt.Sprintf("link add l%d type veth peer name l%d netns %d", link, link, b.tid))
		for n, ns := range []*netns{a, b} {
			ns.ip(fmt.Sprintf("addr add 10.%d.0.%d/24 dev l%d", link, n+1, link))
			ns.ip(fmt.Sprintf("addr add fd0%d::%d/64 dev l%d nodad", link, n+1, link))
			ns.ip(fmt.Sprintf("link set l%d up", link))
		}
		a.ip(fmt.Sprintf("route add 192.0.2.1 via 10.%d.0.2 metric %d", link, 10*link))
		a.ip(fmt.Sprintf("-6 route add 2001:db8::1 via fd0%d::2 metric %d", link, 10*link))
	}
	return a, b
}

// index returns a link's index.
func (ns *netns) index(name string) uint32 {
	ns.t.Helper()
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ns.run(func() {
			var fd int
			if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
				err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr)
				unix.Close(fd)
			}
		})
	}
	if err != nil {
		ns.t.Fatalf("the index of %s: %v", name, err)
	}
	return ifr.Uint32()
}

// wantChanged asks after each change that is notified, until what is to be stale is.
func wantChanged(t *testing.T, c *conn, stale map[packet.Endpoint]bool) {
	t.Helper()
	late := time.After(5 * time.Second)
	for wrong := true; wrong; {
		select {
		case <-c.Changed():
		case <-late:
			t.Errorf("no change is told after which it is so: %v", stale)
			return
		}
		wrong = false
		for ep, want := range stale {
			wrong = wrong || c.Stale(&ep) != want
		}
	}
}

func wantStale(t *testing.T, c *conn, ep packet.Endpoint, want bool) {
	t.Helper()
	if c.Stale(&ep) != want {
		t.Errorf("stale is %t: %+v", !want, ep)
	}
}

var (
	far4 = netip.MustParseAddrPort("192.0.2.1:9")
	far6 = netip.MustParseAddrPort("[2001:db8::1]:9")
)

// TestStale changes routes under an address that stays, in the ways there are.
func TestStale(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			change func(a, b *netns)
			stale  bool
		}{
			"link down":       {func(a, _ *netns) { a.ip("link set l1 down") }, true},
			"other link down": {func(a, _ *netns) { a.ip("link set l2 down") }, false},
			"far end down":    {func(_, b *netns) { b.ip("link set l1 down") }, false}, // the routes stay
			"better route":    {func(a, _ *netns) { a.ip("route add 192.0.2.1 via 10.2.0.2 metric 5") }, true},
			"address gone":    {func(a, _ *netns) { a.ip("addr del 10.1.0.1/24 dev l1") }, false}, // Send finds out
			"no way for now":  {func(a, _ *netns) { a.ip("route flush 192.0.2.1") }, false},
			"a rule": {func(a, _ *netns) {
				a.ip("rule add ipproto udp dport 9 table 88")
				a.ip("route add 192.0.2.1 via 10.2.0.2 table 88")
			}, true},
			"refused": {func(a, _ *netns) { a.ip("rule add ipproto udp dport 9 unreachable") }, false},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				a, b := twoWays(t)
				x := a.listen(Host{})
				ep4 := packet.Endpoint{Addr: far4, Src: netip.MustParseAddr("10.1.0.1"), SrcIf: a.index("l1")}
				ep6 := packet.Endpoint{Addr: far6, Src: netip.MustParseAddr("fd01::1"), SrcIf: ep4.SrcIf}
				wantStale(t, x, ep4, false)
				wantStale(t, x, ep6, false)
				c.change(a, b)
				wantChanged(t, x, map[packet.Endpoint]bool{ep4: c.stale, ep6: false})
				wantStale(t, x, packet.Endpoint{Addr: far4}, false)
				if name == "far end down" {
					a.ip("route replace 192.0.2.1 via 10.2.0.2 metric 10")
					wantChanged(t, x, map[packet.Endpoint]bool{ep4: true})
				}
				x.Close()
				for range x.Changed() {
				}
				wantStale(t, x, ep4, false)
			})
		}
	})
}

// TestStaleMark asks with the mark that is set.
func TestStaleMark(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		a, _ := twoWays(t)
		a.ip("route add 192.0.2.1 via 10.2.0.2 table 77")
		a.ip("rule add fwmark 0x2a table 77")
		x := a.listen(Host{})
		ep := packet.Endpoint{Addr: far4, Src: netip.MustParseAddr("10.1.0.1"), SrcIf: a.index("l1")}
		for _, mark := range []uint32{0, 0x2a, 0} {
			if err := x.SetMark(mark); err != nil {
				t.Fatal(err)
			}
			wantStale(t, x, ep, mark != 0)
		}
	})
}

// TestNotStale asks about endpoints as they are learned, where nothing changed: a neighbor, a link-local one, which both
// links could have, and this host itself.
func TestNotStale(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		na, nb := pair(t)
		nb.ip("link add w0 type veth peer name w1")
		nb.ip("link set w0 up")
		a, b := na.listen(Host{}), nb.listen(Host{})
		for _, c := range []struct {
			from *conn
			to   string
		}{{a, "10.9.0.2"}, {a, "fd09::2"}, {a, "fe80::2%v0"}, {b, "127.0.0.1"}, {b, "::1"}, {b, "10.9.0.2"}, {b, "fd09::2"}, {b, "fe80::2%v1"}} {
			to := netip.AddrPortFrom(netip.MustParseAddr(c.to), b.Port())
			hello, data := lay(packet.Endpoint{Addr: to}, 0, 10)
			wantSent(t, c.from, hello)
			ep := wantReceived(t, b.receiverOf(to.Addr()), data)
			if !ep.Src.IsValid() || ep.SrcIf == 0 {
				t.Errorf("to %s: %+v", c.to, ep)
			}
			wantStale(t, b, ep, false)
		}
	})
}

// TestUnwatched is a conn where rtnetlink is not to be had.
func TestUnwatched(t *testing.T) {
	c := newConn(t, &Host{})
	c.routes.close()
	c.routes = routes{}
	if _, open := <-c.Changed(); open {
		t.Error("a change is notified")
	}
	wantStale(t, c, packet.Endpoint{Addr: far4, Src: lo4, SrcIf: 1}, false)
	var _ Watcher = c
}
