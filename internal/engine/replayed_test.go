package engine

import (
	"bytes"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"throughline/internal/loglimit"
	"throughline/internal/wire"
	"throughline/packet"
	"throughline/udp/udptest"
	"throughline/wgtypes"
)

// record keeps every message of a type that is sent from now on. The function it returns returns them.
func record(net *udptest.Net, kind byte) func() []udptest.Datagram {
	var mu sync.Mutex
	var kept []udptest.Datagram
	net.Hook(func(d *udptest.Datagram) bool {
		if len(d.Data) > 0 && d.Data[0] == kind {
			mu.Lock()
			defer mu.Unlock()
			c := *d
			c.Data = slices.Clone(d.Data)
			kept = append(kept, c)
		}
		return true
	})
	return func() []udptest.Datagram {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(kept)
	}
}

var attacker = netip.MustParseAddrPort("203.0.113.66:666")

// oldInitiations makes a begin handshakes with b, n of them, and returns its initiations, which a recorded.
func oldInitiations(t *testing.T, net *udptest.Net, a, b *node, n int) []udptest.Datagram {
	t.Helper()
	kept := record(net, wire.TypeInitiation)
	for i := range uint32(n) {
		a.send(datagram(a.inner, b.inner, i, 100))
		b.wants(datagram(a.inner, b.inner, i, 100))
		a.Down()
		time.Sleep(time.Second) // initiations may not come too soon after each other
		if err := a.Up(); err != nil {
			t.Fatal(err)
		}
	}
	if len(kept()) != n {
		t.Fatalf("%d initiations were recorded, want %d", len(kept()), n)
	}
	return kept()
}

// readd removes a from b and adds it again, as a restart would: no timestamp of a's is known to b any more.
func readd(b, a *node, change ...func(*wgtypes.PeerConfig)) {
	b.configure(&wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: a.public(), Remove: true}}})
	b.knows(a, change...)
}

// While no timestamp of a peer is known to be new, old initiations, each newer than the one before, don't move its
// endpoint: whoever replays them can't use the session. Whitepaper §5.1.
func TestReplayedInitiationsMoveNoEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		old := oldInitiations(t, net, a, b, 3)
		readd(b, a)
		for i, d := range old {
			d.From = attacker
			net.Inject(d)
			synctest.Wait()
			if got := b.peer(a).Endpoint().Addr; got != a.outer() {
				t.Fatalf("replayed initiation %d moved the endpoint to %v", i+1, got)
			}
			time.Sleep(time.Second)
		}
		// What b sends meanwhile goes to a.
		b.send(datagram(b.inner, a.inner, 1, 100))
		a.wants(datagram(b.inner, a.inner, 1, 100))
	})
}

// Once the peer has used a session, timestamps can be trusted, and an initiation moves the endpoint at once. The first
// session moves it with its first transport packet.
func TestTheFirstSessionMovesTheEndpointOnceItIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := newNode(t, net, 1), newNode(t, net, 2)
		a.knows(b)
		elsewhere := netip.MustParseAddrPort("198.51.100.1:1")
		b.knows(a, func(pc *wgtypes.PeerConfig) { pc.Endpoint = &elsewhere })
		var held []udptest.Datagram
		var mu sync.Mutex
		hold := func(kind byte) {
			net.Hook(func(d *udptest.Datagram) bool {
				mu.Lock()
				defer mu.Unlock()
				if d.Data[0] != kind {
					return true
				}
				c := *d
				c.Data = slices.Clone(d.Data)
				held = append(held, c)
				return false
			})
		}
		hold(wire.TypeTransport)
		a.send(datagram(a.inner, b.inner, 1, 100))
		synctest.Wait()
		if got := b.peer(a).Endpoint().Addr; got != elsewhere {
			t.Errorf("the first initiation moved the endpoint to %v before its session was used", got)
		}
		net.Hook(nil)
		mu.Lock()
		net.Inject(held[0])
		mu.Unlock()
		b.wants(datagram(a.inner, b.inner, 1, 100))
		if got := b.peer(a).Endpoint().Addr; got != a.outer() {
			t.Errorf("the session's first packet left the endpoint at %v", got)
		}
		// The next initiation, from a third place, moves it at once.
		kept := record(net, wire.TypeInitiation)
		net.Cut(a.host, b.host)
		a.Down()
		time.Sleep(time.Second)
		if err := a.Up(); err != nil {
			t.Fatal(err)
		}
		a.send(datagram(a.inner, b.inner, 2, 100))
		synctest.Wait()
		net.Heal(a.host, b.host)
		d := kept()[0]
		d.From = netip.MustParseAddrPort("198.51.100.2:2")
		net.Inject(d)
		synctest.Wait()
		if got := b.peer(a).Endpoint().Addr; got != d.From {
			t.Errorf("a new initiation of a peer whose timestamps are known left the endpoint at %v, want %v", got, d.From)
		}
	})
}

// A peer without an endpoint gets the one its first initiation came from: nothing that worked is replaced, and what is to
// be sent to it can wait for the session.
func TestTheFirstInitiationSetsAnEndpointThatIsNotKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		old := oldInitiations(t, net, a, b, 1)
		readd(b, a, withoutEndpoint)
		d := old[0]
		d.From = attacker
		net.Inject(d)
		synctest.Wait()
		if got := b.peer(a).Endpoint(); got == nil || got.Addr != attacker {
			t.Errorf("the endpoint is %v, want where the initiation came from", got)
		}
		a.send(datagram(a.inner, b.inner, 9, 100))
		b.wants(datagram(a.inner, b.inner, 9, 100))
		if got := b.peer(a).Endpoint().Addr; got != a.outer() {
			t.Errorf("the peer itself left the endpoint at %v", got)
		}
	})
}

// Replays, five thousand a second, write a few lines, which say how many more there were; and each is counted.
func TestReplaysAreLoggedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		var said bytes.Buffer
		a := newNode(t, net, 1)
		b := newNodeWith(t, net, 2, simulatedClock(), &said)
		b.limited = loglimit.New(slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug})), b.clock)
		a.knows(b)
		b.knows(a)
		d := oldInitiations(t, net, a, b, 1)[0]
		const seconds, rate = 3, 5000
		before := b.drops[packet.DropInitiation].Load()
		for range seconds * rate / 50 {
			for range 50 {
				net.Inject(d)
			}
			synctest.Wait()
			time.Sleep(time.Second / (rate / 50))
		}
		b.Close()
		lines := bytes.Count(said.Bytes(), []byte("replayed"))
		if lines < 2 || lines > loglimit.Burst+seconds {
			t.Errorf("%d lines for %d replays, want %d and one a second", lines, seconds*rate, loglimit.Burst)
		}
		if got := b.drops[packet.DropInitiation].Load() - before; got != seconds*rate {
			t.Errorf("%d of %d replays were counted; drops: %v", got, seconds*rate, b.reasons())
		}
		if !bytes.Contains(said.Bytes(), []byte("left_out=")) {
			t.Errorf("no line says how many were left out:\n%s", &said)
		}
	})
}
