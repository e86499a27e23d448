package engine

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"throughline/internal/wire"
	"throughline/udp/udptest"
	"throughline/wgtypes"
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// shown returns the peers of an engine and their allowed IPs, in order, each by the first byte of its key.
func shown(e *Engine) string {
	var all []string
	for _, p := range e.Status().Peers {
		var ips []string
		for _, prefix := range p.AllowedIPs {
			ips = append(ips, prefix.String())
		}
		slices.Sort(ips)
		all = append(all, fmt.Sprintf("%d[%s]", p.PublicKey[0], strings.Join(ips, " ")))
	}
	return strings.Join(all, " ")
}

// TestPeersAndAllowedIPs applies one change after the other, and looks at what there is after each.
func TestPeersAndAllowedIPs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, udptest.New(1, udptest.Options{}), 1)
		key := func(n byte) wgtypes.PublicKey { return wgtypes.PublicKey{n} }
		for i, c := range []struct {
			change wgtypes.Config
			want   string
		}{
			{wgtypes.Config{Peers: []wgtypes.PeerConfig{
				{PublicKey: key(3), AllowedIPs: prefixes("10.0.3.0/24", "fd03::/64")},
				{PublicKey: key(1), AllowedIPs: prefixes("10.0.1.0/24")},
				{PublicKey: key(2)},
			}}, "3[10.0.3.0/24 fd03::/64] 1[10.0.1.0/24] 2[]"}, // in the order of adding
			{wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: key(2), AllowedIPs: prefixes("10.0.1.0/24", "10.0.1.0/25")}}},
				"3[10.0.3.0/24 fd03::/64] 1[] 2[10.0.1.0/24 10.0.1.0/25]"}, // a prefix moves to who asks last
			{wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: key(2), AllowedIPs: prefixes("10.0.1.0/24")}}},
				"3[10.0.3.0/24 fd03::/64] 1[] 2[10.0.1.0/24 10.0.1.0/25]"}, // twice is once
			{wgtypes.Config{Peers: []wgtypes.PeerConfig{
				{PublicKey: key(1), AllowedIPs: prefixes("10.0.1.0/24")}, // away and back, in one change
				{PublicKey: key(2), AllowedIPs: prefixes("10.0.1.0/24")},
			}}, "3[10.0.3.0/24 fd03::/64] 1[] 2[10.0.1.0/24 10.0.1.0/25]"},
			{wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: key(2), RemoveAllowedIPs: prefixes("10.0.1.0/24", "10.0.3.0/24", "1.2.3.4/32")}}},
				"3[10.0.3.0/24 fd03::/64] 1[] 2[10.0.1.0/25]"}, // another's is left alone
			{wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: key(3), ReplaceAllowedIPs: true, AllowedIPs: prefixes("0.0.0.0/0")}}},
				"3[0.0.0.0/0] 1[] 2[10.0.1.0/25]"},
			{wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: key(9), UpdateOnly: true, AllowedIPs: prefixes("0.0.0.0/0")}}},
				"3[0.0.0.0/0] 1[] 2[10.0.1.0/25]"},
			{wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: key(9), Remove: true}, {PublicKey: key(1), Remove: true}}},
				"3[0.0.0.0/0] 2[10.0.1.0/25]"},
			{wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: a.public(), AllowedIPs: prefixes("0.0.0.0/0")}}},
				"3[0.0.0.0/0] 2[10.0.1.0/25]"}, // nobody is their own peer
			{wgtypes.Config{Peers: []wgtypes.PeerConfig{
				{PublicKey: key(2), Remove: true},
				{PublicKey: key(2), AllowedIPs: prefixes("10.2.0.0/16")}, // removed and added: a new one, last
			}}, "3[0.0.0.0/0] 2[10.2.0.0/16]"},
			{wgtypes.Config{ReplacePeers: true, Peers: []wgtypes.PeerConfig{{PublicKey: key(5)}, {PublicKey: key(2)}}},
				"2[10.2.0.0/16] 5[]"}, // who is named stays as it is
			{wgtypes.Config{ReplacePeers: true}, ""},
		} {
			a.configure(&c.change)
			if got := shown(a.Engine); got != c.want {
				t.Fatalf("after change %d: %s\nwant %s", i, got, c.want)
			}
		}
		if _, ok := a.allowed.Lookup(netip.MustParseAddr("10.2.0.1")); ok {
			t.Error("a removed peer's allowed IPs are left")
		}
	})
}

// A private key whose public key is a peer's removes that peer.
func TestBecomingOnesPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		a.configure(&wgtypes.Config{PrivateKey: &b.key})
		if got := shown(a.Engine); got != "" {
			t.Errorf("peers: %s", got)
		}
	})
}

// What fails changes nothing.
func TestAllOrNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		if _, err := a.host.Listen(7777); err != nil {
			t.Fatal(err)
		}
		before := a.Status()
		err := a.Configure(&wgtypes.Config{
			PrivateKey: &wgtypes.PrivateKey{0: 8, 31: 64}, ListenPort: new(uint16(7777)), Mark: new(uint32(9)), ReplacePeers: true,
			Peers: []wgtypes.PeerConfig{{PublicKey: wgtypes.PublicKey{7}, AllowedIPs: prefixes("0.0.0.0/0")}},
		})
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatalf("a taken port: %v", err)
		}
		after := a.Status()
		if before.PrivateKey != after.PrivateKey || before.ListenPort != after.ListenPort || before.Mark != after.Mark || len(after.Peers) != 1 ||
			after.Peers[0].PublicKey != b.public() {
			t.Errorf("the change was applied in part:\n%+v\n%+v", before, after)
		}
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
	})
}

// The port may change under a live session; the peer learns it from the next packet.
func TestPortChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
		handshakes := count(net, wire.TypeInitiation)
		for _, port := range []uint16{40000, 0, 51820} {
			a.configure(&wgtypes.Config{ListenPort: &port})
			got := a.Status().ListenPort
			if port != 0 && got != port || got == 0 {
				t.Errorf("asked for port %d, got %d", port, got)
			}
			a.send(datagram(a.inner, b.inner, 2, 100))
			b.wants(datagram(a.inner, b.inner, 2, 100))
			if to := b.peer(a).Endpoint().Addr; to.Port() != got {
				t.Errorf("b sends to %v, a is at port %d", to, got)
			}
			b.send(datagram(b.inner, a.inner, 3, 100))
			a.wants(datagram(b.inner, a.inner, 3, 100))
		}
		if n := handshakes(); n != 0 {
			t.Errorf("%d handshakes for a change of port", n)
		}
	})
}

// A new preshared key is the next handshake's; the session goes on.
func TestPresharedKeyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
		for _, x := range []*node{a, b} {
			x.configure(&wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: x.order[0].Public, PresharedKey: &wgtypes.PresharedKey{5}}}})
		}
		handshakes := count(net, wire.TypeInitiation)
		a.send(datagram(a.inner, b.inner, 2, 100))
		b.wants(datagram(a.inner, b.inner, 2, 100))
		if handshakes() != 0 {
			t.Error("the session was dropped")
		}
		time.Sleep(wire.RekeyAfterTime)
		a.send(datagram(a.inner, b.inner, 3, 100))
		b.wants(datagram(a.inner, b.inner, 3, 100))
		time.Sleep(time.Second)
		a.send(datagram(a.inner, b.inner, 4, 100))
		b.wants(datagram(a.inner, b.inner, 4, 100))
		if handshakes() != 1 {
			t.Errorf("%d handshakes", handshakes())
		}
		a.configure(&wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: b.public(), PresharedKey: &wgtypes.PresharedKey{}}}})
		if got := a.Status().Peers[0].PresharedKey; got != [wire.KeySize]byte{} {
			t.Error("the preshared key is there still")
		}
	})
}

// A new private key begins new sessions at once, though a handshake was a moment ago.
func TestPrivateKeyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
		old := a.public()
		a.key[5] ^= 1
		a.configure(&wgtypes.Config{PrivateKey: &a.key})
		b.configure(&wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: old, Remove: true}}})
		b.knows(a, withoutEndpoint)
		before := time.Now()
		a.send(datagram(a.inner, b.inner, 2, 100))
		b.wants(datagram(a.inner, b.inner, 2, 100))
		if took := time.Since(before); took > time.Second {
			t.Errorf("it took %v", took)
		}
		a.configure(&wgtypes.Config{PrivateKey: &wgtypes.PrivateKey{}}) // no key at all
		a.send(datagram(a.inner, b.inner, 3, 100))
		b.wantsNothing(time.Minute)
		a.configure(&wgtypes.Config{PrivateKey: &a.key})
		a.send(datagram(a.inner, b.inner, 4, 100))
		b.wants(datagram(a.inner, b.inner, 4, 100))
	})
}

func TestPersistentKeepalive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := newNode(t, net, 1), newNode(t, net, 2)
		b.knows(a, withoutEndpoint)
		handshakes, datagrams := count(net, wire.TypeInitiation), 0
		a.knows(b, withKeepalive(25*time.Second)) // it speaks at once, and so b learns where it is
		time.Sleep(time.Second)
		if handshakes() != 1 || b.peer(a).Endpoint() == nil {
			t.Fatalf("%d handshakes after a second", handshakes())
		}
		datagrams = net.Stats().Sent
		time.Sleep(100 * time.Second)
		if n := net.Stats().Sent - datagrams; n != 4 {
			t.Errorf("%d datagrams in 100 s, want 4 keepalives", n)
		}
		b.wantsNothing(0) // a keepalive is nothing to deliver

		a.configure(&wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: b.public(), PersistentKeepalive: new(time.Duration(0))}}})
		datagrams = net.Stats().Sent
		time.Sleep(time.Hour)
		if n := net.Stats().Sent - datagrams; n != 0 {
			t.Errorf("%d datagrams after it was switched off", n)
		}
	})
}

// A private key that is set on an interface that is up already makes it send to peers with a keepalive at once.
func TestKeepaliveWhenTheKeyComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := newNode(t, net, 1), newNode(t, net, 2)
		a.configure(&wgtypes.Config{PrivateKey: &wgtypes.PrivateKey{}})
		a.knows(b, withKeepalive(time.Hour))
		b.knows(a, withoutEndpoint)
		time.Sleep(time.Second)
		if b.peer(a).Endpoint() != nil {
			t.Fatal("a sent without a key")
		}
		a.configure(&wgtypes.Config{PrivateKey: &a.key})
		time.Sleep(time.Second)
		if b.peer(a).Endpoint() == nil {
			t.Error("a has its key, and doesn't send")
		}
		a.Down()
		before := b.peer(a).LastHandshake()
		time.Sleep(10 * time.Second)
		if err := a.Up(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if !b.peer(a).LastHandshake().After(before) {
			t.Error("a came up, and doesn't send")
		}
	})
}

func TestClosedEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, udptest.New(1, udptest.Options{}), 1)
		for range 3 {
			a.Close()
		}
		if err := a.Up(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Up: %v", err)
		}
		if err := a.Configure(&wgtypes.Config{}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Configure: %v", err)
		}
		a.Down()
		if a.Status().PrivateKey != [wire.KeySize]byte{} {
			t.Error("the private key is held")
		}
		select {
		case <-a.TUNEnded():
		default:
			t.Error("TUNEnded isn't closed")
		}
	})
}

// The deletion of the interface, seen by the engine.
func TestTUNEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, udptest.New(1, udptest.Options{}), 1)
		a.tun.Close()
		<-a.TUNEnded()
	})
}

// Ten thousand idle peers: few goroutines, and little memory for each.
func TestManyIdlePeers(t *testing.T) {
	const n, most = 10_000, 2 << 10
	e, _, _, _ := newPath(t)
	change := manyPeers(n)
	before := heap()
	if err := e.Configure(change); err != nil {
		t.Fatal(err)
	}
	after := heap()
	each := int(after-before) / n
	t.Logf("%d bytes of heap for each of %d peers, %d goroutines", each, n, runtime.NumGoroutine())
	if each > most {
		t.Errorf("%d bytes of heap for each peer, more than %d", each, most)
	}
	if g := runtime.NumGoroutine(); g >= 40 {
		t.Errorf("%d goroutines", g)
	}
	if got := len(e.Status().Peers); got != n+1 {
		t.Errorf("%d peers", got)
	}
	runtime.KeepAlive(change)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// manyPeers is a change that adds n peers, each with an endpoint, an IPv4 and an IPv6 prefix.
func manyPeers(n int) *wgtypes.Config {
	c := &wgtypes.Config{}
	for i := range uint32(n) {
		b := [4]byte{byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
		c.Peers = append(c.Peers, wgtypes.PeerConfig{
			PublicKey: wgtypes.PublicKey{0: 1, 1: b[1], 2: b[2], 3: b[3], 31: 9},
			Endpoint:  new(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), uint16(i)|1)),
			AllowedIPs: []netip.Prefix{
				netip.PrefixFrom(netip.AddrFrom4([4]byte{10, b[1], b[2], b[3]}), 32),
				netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 13: b[1], 14: b[2], 15: b[3]}), 128),
			},
		})
	}
	return c
}

func BenchmarkConfigure10000Peers(b *testing.B) {
	e, _, _, _ := newPath(b)
	change := manyPeers(10_000)
	b.ReportAllocs()
	for b.Loop() {
		if err := e.Configure(change); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := e.Configure(&wgtypes.Config{ReplacePeers: true}); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
