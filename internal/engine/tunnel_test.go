package engine

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"throughline/internal/wire"
	"throughline/packet"
	"throughline/udp/udptest"
	"throughline/wgtypes"
)

// Whole tunnels in simulated time: two engines, a network between them, hours in milliseconds.

func TestFirstPacketBringsTheTunnelUp(t *testing.T) {
	for name, change := range map[string]func(*wgtypes.PeerConfig){
		"without preshared key": func(*wgtypes.PeerConfig) {},
		"with preshared key":    withPreshared(7),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := udptest.New(1, udptest.Options{Latency: 10 * time.Millisecond})
				a, b := newNode(t, net, 1), newNode(t, net, 2)
				a.knows(b, change)
				b.knows(a, change, withoutEndpoint) // it learns where a is
				a.send(datagram(a.inner, b.inner, 1, 100))
				b.wants(datagram(a.inner, b.inner, 1, 100))
				b.send(datagram(b.inner, a.inner, 2, 1420))
				a.wants(datagram(b.inner, a.inner, 2, 1420))
				if to := b.peer(a).Endpoint(); to == nil || to.Addr != a.outer() {
					t.Errorf("b learned that a is at %v", to)
				}
				if a.peer(b).LastHandshake().IsZero() || b.peer(a).LastHandshake().IsZero() {
					t.Error("no handshake was recorded")
				}
			})
		})
	}
}

func TestWrongPresharedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := newNode(t, net, 1), newNode(t, net, 2)
		a.knows(b, withPreshared(1))
		b.knows(a, withPreshared(2))
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wantsNothing(time.Minute)
		if n := a.drops[packet.DropResponse].Load(); n == 0 {
			t.Error("no response was refused")
		}
		if !a.peer(b).LastHandshake().IsZero() {
			t.Error("a handshake completed")
		}
	})
}

func TestIPv6InsideAndOutside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := newNode(t, net, 1), newNode(t, net, 2)
		to := netip.AddrPortFrom(b.host.Addrs()[1], b.port)
		a.knows(b, func(pc *wgtypes.PeerConfig) { pc.Endpoint = &to })
		b.knows(a, withoutEndpoint)
		p := datagram6(a.inner6, b.inner6, 100)
		a.send(p)
		b.wants(p)
		if got := b.peer(a).Endpoint().Addr.Addr(); got != a.host.Addrs()[1] {
			t.Errorf("b sends to %v", got)
		}
	})
}

// Staged packets are sent in order, without the oldest when there are too many, and before those that come meanwhile.
func TestStagedPacketsKeepTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{Latency: 50 * time.Millisecond})
		a, b := pair(t, net)
		const n = wire.MaxStaged + 20
		for i := range uint32(n) {
			a.send(datagram(a.inner, b.inner, i, 1000))
		}
		synctest.Wait()
		if got := a.drops[packet.DropStagedFull].Load(); got != 20 {
			t.Errorf("%d packets gave way, want 20", got)
		}
		for i := uint32(n); i < n+200; i++ { // while the handshake goes on, and after
			time.Sleep(time.Millisecond)
			a.send(datagram(a.inner, b.inner, i, 500))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		got := b.received()
		if len(got) < 200 || !slices.IsSorted(got) || got[len(got)-1] != n+199 {
			t.Errorf("%d packets, sorted: %v", len(got), slices.IsSorted(got))
		}
		if missing := n + 200 - len(got); missing != int(a.drops[packet.DropStagedFull].Load()) {
			t.Errorf("%d packets are missing, %d gave way", missing, a.drops[packet.DropStagedFull].Load())
		}
	})
}

// Six hours of traffic over a bad network: sessions are renewed again and again, and what the network lets through
// arrives, once.
func TestHoursOnABadNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(42, udptest.Options{
			Loss: 0.1, Duplicate: 0.05, Reorder: 0.1, Latency: 30 * time.Millisecond,
		})
		a, b := pair(t, net)
		sent := uint32(0)
		seen := map[uint32]int{}
		for began := time.Now(); time.Since(began) < 6*time.Hour; {
			a.send(datagram(a.inner, b.inner, sent, 200))
			if sent%3 == 0 {
				b.send(datagram(b.inner, a.inner, sent, 200))
			}
			sent++
			time.Sleep(7 * time.Second)
			for _, seq := range b.received() {
				seen[seq]++
			}
			a.received()
		}
		for seq, n := range seen {
			if n > 1 {
				t.Errorf("packet %d was delivered %d times", seq, n)
			}
		}
		if share := float64(len(seen)) / float64(sent); share < 0.8 {
			t.Errorf("%.0f %% of the packets arrived", 100*share)
		}
		if n := b.drops[packet.DropReplay].Load(); n == 0 {
			t.Error("the network duplicates, and the replay window refused nothing")
		}
		for _, x := range []*node{a, b} {
			for _, why := range []packet.Drop{packet.DropTag, packet.DropNotAllowed, packet.DropInner, packet.DropShort} {
				if n := x.drops[why].Load(); n != 0 {
					t.Errorf("%d packets were dropped: %v", n, why)
				}
			}
		}
	})
}

// A session in use is renewed after two minutes without losing a packet, by its initiator alone.
func TestRekeyLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{Latency: 5 * time.Millisecond})
		a, b := pair(t, net)
		initiations := count(net, wire.TypeInitiation)
		const n = 10 * 60 * 20 // ten minutes, 20 packets a second each way
		var fromA, fromB []uint32
		a.send(datagram(a.inner, b.inner, 1<<20, 100)) // a begins
		b.wants(datagram(a.inner, b.inner, 1<<20, 100))
		for i := range uint32(n) {
			a.send(datagram(a.inner, b.inner, i, 300))
			b.send(datagram(b.inner, a.inner, i, 300))
			time.Sleep(50 * time.Millisecond)
			fromA, fromB = append(fromA, b.received()...), append(fromB, a.received()...)
		}
		time.Sleep(time.Second)
		fromA, fromB = append(fromA, b.received()...), append(fromB, a.received()...)
		for what, got := range map[string][]uint32{"a to b": fromA, "b to a": fromB} {
			if len(got) != n || !slices.IsSorted(got) {
				t.Errorf("%s: %d of %d packets, in order: %v", what, len(got), n, slices.IsSorted(got))
			}
		}
		if got := initiations(); got != 5 { // one every two minutes, and the last doesn't end with the traffic
			t.Errorf("%d initiations in ten minutes", got)
		}
	})
}

func TestSimultaneousHandshakes(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			net := udptest.New(seed, udptest.Options{Latency: time.Duration(seed) * 5 * time.Millisecond, Loss: float64(seed) / 60, Reorder: 0.2})
			a, b := pair(t, net)
			a.send(datagram(a.inner, b.inner, 1, 100))
			b.send(datagram(b.inner, a.inner, 1, 100))
			time.Sleep(30 * time.Second)
			a.received()
			b.received()
			net.Hook(nil)
			delivered := 0
			for i := range uint32(40) { // whatever keypairs they hold, they understand each other
				a.send(datagram(a.inner, b.inner, 10+i, 100))
				b.send(datagram(b.inner, a.inner, 10+i, 100))
				time.Sleep(100 * time.Millisecond)
				synctest.Wait()
				delivered += len(a.received()) + len(b.received())
			}
			time.Sleep(time.Second)
			delivered += len(a.received()) + len(b.received())
			lost := net.Stats().Lost
			if delivered < 80-lost {
				t.Errorf("seed %d: %d of 80 packets, the network lost %d", seed, delivered, lost)
			}
		})
	}
}

func TestRoaming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
		a.host.SetAddrs(netip.MustParseAddr("198.51.100.77"), addr6("2001:db8:1::", 7))
		a.send(datagram(a.inner, b.inner, 2, 100))
		b.wants(datagram(a.inner, b.inner, 2, 100))
		b.send(datagram(b.inner, a.inner, 3, 100))
		a.wants(datagram(b.inner, a.inner, 3, 100))
		if got := b.peer(a).Endpoint().Addr; got != a.outer() {
			t.Errorf("b sends to %v, a is at %v", got, a.outer())
		}
	})
}

// No endpoint changes by what doesn't authenticate: not by a copy of a datagram, not by one that was changed, not by a
// cookie reply.
func TestNoRoamingWithoutProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		var seen []udptest.Datagram
		net.Hook(func(d *udptest.Datagram) bool {
			c := *d
			c.Data = slices.Clone(d.Data)
			seen = append(seen, c)
			return true
		})
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
		net.Hook(nil)
		before := b.peer(a).Endpoint().Addr
		for _, d := range seen {
			if d.To != b.outer() {
				continue
			}
			d.From = netip.MustParseAddrPort("203.0.113.9:666")
			net.Inject(d)
			for i := range d.Data {
				e := d
				e.Data = slices.Clone(d.Data)
				e.Data[i] ^= 0x10
				net.Inject(e)
			}
		}
		time.Sleep(time.Second)
		b.wantsNothing(time.Second)
		if got := b.peer(a).Endpoint().Addr; got != before {
			t.Errorf("b was made to send to %v", got)
		}
	})
}

// A packet whose inner source isn't the peer's is dropped, also when it is another peer's.
func TestCryptokeyRouting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b, c := newNode(t, net, 1), newNode(t, net, 2), newNode(t, net, 3)
		a.knows(b)
		b.knows(a)
		b.knows(c)
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
		for _, from := range []string{"10.0.0.3", "10.0.0.2", "10.0.0.99", "127.0.0.1"} {
			a.send(datagram(netip.MustParseAddr(from), b.inner, 2, 100))
		}
		a.send(datagram6(addr6("fd00::", 3), b.inner6, 100))
		b.wantsNothing(time.Second)
		if n := b.drops[packet.DropNotAllowed].Load(); n != 5 {
			t.Errorf("%d packets were refused, want 5", n)
		}
		a.send(datagram(a.inner, netip.MustParseAddr("10.77.0.1"), 3, 100)) // nobody's
		synctest.Wait()
		if n := a.drops[packet.DropNoPeer].Load(); n != 1 {
			t.Errorf("%d packets had no peer, want 1", n)
		}
		for _, p := range [][]byte{{}, {0x45}, make([]byte, 20), {0x60, 1, 2}, make([]byte, 1420)} {
			if len(p) > 0 {
				a.send(p)
			}
		}
		synctest.Wait()
		if n := a.drops[packet.DropMalformed].Load(); n != 4 {
			t.Errorf("%d packets were malformed, want 4", n)
		}
	})
}

func TestDownAndUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		for i := range uint32(5) {
			a.send(datagram(a.inner, b.inner, i, 100))
			b.wants(datagram(a.inner, b.inner, i, 100))
			a.Down()
			a.send(datagram(a.inner, b.inner, 99, 100))
			b.wantsNothing(time.Second)
			if a.indices.Len() != 0 {
				t.Errorf("%d receiver indices are left", a.indices.Len())
			}
			if err := a.Up(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// An hour without traffic: no peer is in the wheel, no keys are held, nothing is sent.
func TestIdlePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
		time.Sleep(wire.EraseKeysAfter + time.Minute)
		synctest.Wait()
		before := net.Stats().Sent
		time.Sleep(time.Hour)
		if n := net.Stats().Sent - before; n != 0 {
			t.Errorf("%d datagrams were sent while idle", n)
		}
		for _, x := range []*node{a, b} {
			if x.order[0].timer.Armed() {
				t.Error("the peer is in the wheel")
			}
			if n := x.indices.Len(); n != 0 {
				t.Errorf("%d receiver indices are held", n)
			}
			if p := x.order[0]; p.Keypairs.Current != nil || p.Keypairs.Previous != nil || p.Keypairs.Next != nil || p.Sending.Load() != nil {
				t.Error("keys are held")
			}
		}
		a.send(datagram(a.inner, b.inner, 2, 100)) // and it wakes
		b.wants(datagram(a.inner, b.inner, 2, 100))
	})
}
