package engine

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"throughline/internal/mono"
	"throughline/internal/ratelimit"
	"throughline/internal/staging"
	"throughline/internal/wire"
	"throughline/packet"
	"throughline/udp/udptest"
	"throughline/wgtypes"
)

// crowd makes n peers of x that never answer, with an address inside each.
func crowd(x *node, n int) (inner []netip.Addr) {
	x.t.Helper()
	var c wgtypes.Config
	for i := range n {
		to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, 1}), uint16(1024+i))
		at := netip.AddrFrom4([4]byte{10, 99, byte(i >> 8), byte(i)})
		public := wgtypes.PublicKey{9: 1}
		binary.LittleEndian.PutUint32(public[:], uint32(i))
		c.Peers = append(c.Peers, wgtypes.PeerConfig{PublicKey: public, Endpoint: &to, AllowedIPs: []netip.Prefix{netip.PrefixFrom(at, 32)}})
		inner = append(inner, at)
	}
	x.configure(&c)
	return inner
}

// Without a private key nothing is staged: no session can come of it.
func TestNothingIsStagedWithoutAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		a.configure(&wgtypes.Config{PrivateKey: &wgtypes.PrivateKey{}})
		a.send(datagram(a.inner, b.inner, 1, 100))
		synctest.Wait()
		if n := a.peer(b).Staged.Len(); n != 0 || a.drops[packet.DropNoKey].Load() != 1 {
			t.Errorf("%d packets are staged; drops: %v", n, a.reasons())
		}
		a.configure(&wgtypes.Config{PrivateKey: &a.key})
		a.send(datagram(a.inner, b.inner, 2, 100))
		b.wants(datagram(a.inner, b.inner, 2, 100))
	})
}

// What is staged for a peer with which no handshake can begin, its key being a low-order point, doesn't stay for ever.
func TestStagedForAKeyThatIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a := newNode(t, net, 1)
		to, at := netip.MustParseAddrPort("198.51.100.1:1"), netip.MustParseAddr("10.99.0.1")
		one := wgtypes.PublicKey{1}
		a.configure(&wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: one, Endpoint: &to, AllowedIPs: []netip.Prefix{netip.PrefixFrom(at, 32)}}}})
		for i := range uint32(20) {
			a.send(datagram(a.inner, at, i, 100))
			time.Sleep(time.Second)
		}
		time.Sleep(2 * wire.RekeyAttemptTime)
		if n := a.lookup(one).Staged.Len(); n != 0 || a.drops[packet.DropHandshake].Load() != 20 {
			t.Errorf("%d packets are staged after the time of all attempts; drops: %v", n, a.reasons())
		}
	})
}

// Peers that never answer, each sent more than it may stage: the budget of all holds, every packet is counted, and a peer
// that does answer gets its own.
func TestStagedBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{Latency: time.Millisecond})
		a, b := pair(t, net)
		const peers, each, size, budget = 300, 140, 1000, 4 << 20 // of 300 * 128 * 1000 bytes, a ninth
		a.staged.Close()
		a.staged = staging.New(budget)
		inner := crowd(a, peers)
		for _, at := range inner {
			for i := range uint32(each) {
				a.send(datagram(a.inner, at, i, size))
			}
		}
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
		bytes, packets := 0, 0
		for _, p := range a.order {
			packets += p.Staged.Len()
			bytes += p.Staged.Len() * size
		}
		if bytes > budget || bytes < budget*3/4 {
			t.Errorf("%d bytes are staged, the budget is %d", bytes, budget)
		}
		if lost := int(a.drops[packet.DropStagedFull].Load()); packets+lost != peers*each {
			t.Errorf("%d packets are staged and %d gave way, of %d", packets, lost, peers*each)
		}
		time.Sleep(3 * wire.RekeyAttemptTime)
		for _, p := range a.order {
			if n := p.Staged.Len(); n != 0 {
				t.Fatalf("%d packets are staged long after the peers were given up", n)
			}
		}
	})
}

// later takes so many seconds' turns of initiations to peers without a session.
func later(x *node, seconds int) {
	for range seconds * ratelimit.ToOthers {
		var turn mono.Time
		x.turns.Take(x.clock(), &turn, false)
	}
}

// Initiations to a crowd that never answers go out at their rate; a peer with a session doesn't wait behind them.
func TestInitiationsArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{Latency: time.Millisecond, Queue: 1 << 20})
		a, b := pair(t, net)
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
		later(a, 1) // as if a second's worth had been sent
		initiations := count(net, wire.TypeInitiation)
		inner := crowd(a, 4000)
		for i, at := range inner {
			a.send(datagram(a.inner, at, 1, 100))
			if i%500 == 0 {
				synctest.Wait()
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := initiations(); n < ratelimit.ToOthers*8/10 || n > ratelimit.ToOthers*11/10 {
			t.Errorf("%d initiations in a second, want %d", n, ratelimit.ToOthers)
		}
		time.Sleep(4 * time.Second)
		later(a, 30) // a crowd of half a minute
		had := a.peer(b).Sending.Load()
		had.Expire()
		a.send(datagram(a.inner, b.inner, 2, 100))
		began := time.Now()
		b.wants(datagram(a.inner, b.inner, 2, 100))
		if took := time.Since(began); took > time.Second {
			t.Errorf("a known peer's handshake waited %v behind the crowd", took)
		}
	})
}
