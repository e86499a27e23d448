package engine

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"throughline/internal/cookie"
	"throughline/internal/loadguard"
	"throughline/internal/mono"
	"throughline/internal/ratelimit"
	"throughline/internal/wire"
	"throughline/packet"
	"throughline/udp/udptest"
	"throughline/wgtypes"
)

// flood floods b with initiations whose mac1 is right, as anyone who knows its public key can make them.
func flood(net *udptest.Net, b *node, n int, from func(i int) netip.AddrPort) {
	keys := cookie.KeysFor(b.public())
	var jar cookie.Jar
	msg := make([]byte, wire.InitiationSize)
	for i := range n {
		rand.Read(msg)
		binary.LittleEndian.PutUint32(msg, wire.TypeInitiation)
		jar.AddMACs(1, &keys, msg)
		net.Inject(udptest.Datagram{From: from(i), To: b.outer(), Data: slices.Clone(msg)})
	}
}

// Under a flood, a sender that receives at its address gets through by a cookie, and the flood costs no Diffie-Hellman.
func TestUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{Latency: time.Millisecond})
		a, b := pair(t, net)
		strangers := func(i int) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), 1000)
		}
		a.send(datagram(a.inner, b.inner, 1, 100))
		began := time.Now()
		delivered := false
		for !delivered && time.Since(began) < time.Minute {
			flood(net, b, 600, strangers)
			time.Sleep(500 * time.Millisecond)
			synctest.Wait()
			delivered = len(b.received()) > 0
		}
		if !delivered {
			t.Errorf("a didn't get through in a minute; drops: %v", b.reasons())
		}
		if b.drops[packet.DropMAC2].Load() == 0 {
			t.Errorf("nobody was asked for a cookie; drops: %v", b.reasons())
		}
		time.Sleep(2 * loadguard.Lasts)
		if b.identity.Load().guard.UnderLoad(b.clock()) {
			t.Error("the load doesn't end")
		}
		// And without a flood nobody is asked.
		before := b.drops[packet.DropMAC2].Load()
		a.key[7] ^= 1
		old := b.order[0].Public
		a.configure(&wgtypes.Config{PrivateKey: &a.key})
		b.configure(&wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: old, Remove: true}}})
		b.knows(a)
		a.send(datagram(a.inner, b.inner, 2, 100))
		b.wants(datagram(a.inner, b.inner, 2, 100))
		if b.drops[packet.DropMAC2].Load() != before {
			t.Error("a cookie was asked for without load")
		}
	})
}

// One source, which owns its address and has a cookie, is held to its rate under load.
func TestRateUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		b := newNode(t, net, 2)
		local := b.identity.Load()
		from := netip.MustParseAddrPort("203.0.113.1:1")
		keys := cookie.KeysFor(b.public())
		var jar cookie.Jar
		msg := make([]byte, wire.InitiationSize)
		binary.LittleEndian.PutUint32(msg, wire.TypeInitiation)
		jar.AddMACs(b.clock(), &keys, msg)
		reply := make([]byte, wire.CookieReplySize)
		if err := local.guard.Reply(b.clock(), reply, msg, from); err != nil {
			t.Fatal(err)
		}
		if !jar.ConsumeReply(b.clock(), &keys, reply) {
			t.Fatal("no cookie")
		}
		jar.AddMACs(b.clock(), &keys, msg)
		local.guard.Loaded(b.clock())
		passed := 0
		for range 100 {
			if why := b.post(wire.TypeInitiation, msg, &packet.Endpoint{Addr: from}, b.clock()); why == packet.Taken {
				passed++
			} else if why != packet.DropRate {
				t.Fatalf("dropped: %v", why)
			}
		}
		if passed != 5 {
			t.Errorf("%d of 100 at once passed, want the burst of 5", passed)
		}
	})
}

// Under a flood that keeps the queue full, what has shown its address isn't kept out, nor what answers us; and a source
// that has a cookie may not fill the queue of those that have.
func TestProvenBeforeAFlood(t *testing.T) {
	const now = mono.Time(time.Hour)
	public := wgtypes.PublicKey{1}
	guard, keys := loadguard.New(public), cookie.KeysFor(public)
	e := &Engine{work: loadguard.NewQueue[*Peer]()} // which nobody serves
	e.identity.Store(&identity{guard: guard})
	message := func(jar *cookie.Jar) []byte {
		msg := make([]byte, wire.InitiationSize)
		binary.LittleEndian.PutUint32(msg, wire.TypeInitiation)
		jar.AddMACs(now, &keys, msg)
		return msg
	}
	withCookie := func(from netip.AddrPort) *cookie.Jar {
		var jar cookie.Jar
		reply := make([]byte, wire.CookieReplySize)
		if err := guard.Reply(now, reply, message(&jar), from); err != nil || !jar.ConsumeReply(now, &keys, reply) {
			t.Fatal("no cookie", err)
		}
		return &jar
	}
	post := func(from netip.AddrPort, msg []byte) packet.Drop {
		return e.post(binary.LittleEndian.Uint32(msg), msg, &packet.Endpoint{Addr: from}, now)
	}
	for i := range 3 * loadguard.MaxMessages {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 1000)
		want := packet.Taken
		if i >= loadguard.MaxMessages {
			want = packet.DropQueue
		}
		if why := post(from, message(new(cookie.Jar))); why != want {
			t.Fatalf("message %d of the flood: %v, want %v", i, why, want)
		}
	}
	greedy, honest := netip.MustParseAddrPort("203.0.113.1:1"), netip.MustParseAddrPort("203.0.113.2:1")
	g, refused := withCookie(greedy), 0
	for range 100 {
		if post(greedy, message(g)) == packet.DropRate {
			refused++
		}
	}
	if refused != 100-ratelimit.Burst {
		t.Errorf("%d of 100 messages of one source with a cookie were refused, want all but the burst of %d", refused, ratelimit.Burst)
	}
	if why := post(honest, message(withCookie(honest))); why != packet.Taken {
		t.Errorf("a message with a cookie, in the flood: %v", why)
	}
	index := e.indices.Insert(&indexEntry{peer: new(Peer)})
	for kind, size := range map[uint32]int{wire.TypeResponse: wire.ResponseSize, wire.TypeCookieReply: wire.CookieReplySize} {
		msg := make([]byte, size)
		binary.LittleEndian.PutUint32(msg, kind)
		at := map[uint32]int{wire.TypeResponse: wire.ResponseReceiver, wire.TypeCookieReply: wire.CookieReplyReceiver}[kind]
		binary.LittleEndian.PutUint32(msg[at:], index+1)
		if why := post(honest, msg); why != packet.DropQueue && why != packet.DropIndex {
			t.Errorf("type %d, to nothing of ours, in the flood: %v", kind, why)
		}
		binary.LittleEndian.PutUint32(msg[at:], index)
		if why := post(honest, msg); why != packet.Taken {
			t.Errorf("type %d, to an initiation of ours, in the flood: %v", kind, why)
		}
	}
	none := message(new(cookie.Jar))
	if n := testing.AllocsPerRun(100, func() { post(honest, none) }); n > 0 {
		t.Errorf("%v allocations for a message of the flood", n)
	}
}

// What is no message of the protocol, or not for us, is counted, and nothing else happens.
func TestCountedReasons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		sized := func(kind byte, n int) []byte { d := make([]byte, n); d[0] = kind; return d }
		for i, c := range []struct {
			data []byte
			want packet.Drop
		}{
			{[]byte{4}, packet.DropShort},
			{sized(4, 31), packet.DropShort},
			{sized(4, 32), packet.DropIndex},
			{sized(1, 147), packet.DropShort},
			{sized(1, 149), packet.DropShort},
			{sized(1, 148), packet.DropMAC1},
			{sized(2, 92), packet.DropMAC1},
			{sized(2, 91), packet.DropShort},
			{sized(3, 64), packet.DropIndex},
			{sized(3, 65), packet.DropShort},
			{sized(0, 100), packet.DropType},
			{sized(5, 100), packet.DropType},
			{[]byte{4, 0, 0, 1, 31: 0}, packet.DropType}, // the reserved bytes are not zero
			{[]byte{1, 1, 0, 0, 147: 0}, packet.DropType},
		} {
			before := b.drops[c.want].Load()
			net.Inject(udptest.Datagram{From: a.outer(), To: b.outer(), Data: c.data})
			synctest.Wait()
			if b.drops[c.want].Load() != before+1 {
				t.Errorf("message %d was not counted as %v; drops: %v", i, c.want, b.reasons())
			}
		}
	})
}

// A stranger's initiation, its own key good, is counted and not answered.
func TestStranger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := newNode(t, net, 1), newNode(t, net, 2)
		a.knows(b)
		responses := count(net, wire.TypeResponse)
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wantsNothing(time.Minute)
		if b.drops[packet.DropInitiation].Load() == 0 || responses() != 0 {
			t.Errorf("%d responses; drops: %v", responses(), b.reasons())
		}
	})
}

// A peer that doesn't answer is tried for ninety seconds, then given up until there is something to send.
func TestGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		net.Cut(a.host, b.host)
		initiations := count(net, wire.TypeInitiation)
		a.send(datagram(a.inner, b.inner, 1, 100))
		time.Sleep(10 * time.Minute)
		if n := initiations(); n != wire.MaxHandshakeAttempts+1 {
			t.Errorf("%d initiations, want %d", n, wire.MaxHandshakeAttempts+1)
		}
		if a.drops[packet.DropHandshake].Load() != 1 {
			t.Errorf("the staged packets were not dropped: %v", a.reasons())
		}
		net.Heal(a.host, b.host)
		b.wantsNothing(time.Hour)
		a.send(datagram(a.inner, b.inner, 2, 100))
		b.wants(datagram(a.inner, b.inner, 2, 100))
	})
}

// The counter's end: the session isn't used beyond it, and a new one is made.
func TestCounterRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
		old := a.peer(b).Sending.Load()
		old.Expire()
		time.Sleep(wire.RekeyTimeout)
		a.send(datagram(a.inner, b.inner, 2, 100))
		b.wants(datagram(a.inner, b.inner, 2, 100))
		if a.peer(b).Sending.Load() == old {
			t.Error("the old session is used")
		}
	})
}

// A session is forgotten when its time is over, though the peer goes on using it.
func TestExpiredSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
		var late udptest.Datagram
		net.Hook(func(d *udptest.Datagram) bool {
			late = *d
			late.Data = slices.Clone(d.Data)
			return false
		})
		time.Sleep(wire.RekeyAfterTime - time.Second)
		a.send(datagram(a.inner, b.inner, 2, 100))
		synctest.Wait()
		if late.Data[0] != wire.TypeTransport {
			t.Fatal("no transport message was kept")
		}
		net.Hook(func(*udptest.Datagram) bool { return false }) // no handshake gets through
		time.Sleep(wire.RejectAfterTime - wire.RekeyAfterTime + time.Second)
		net.Inject(late)
		b.wantsNothing(time.Second)
		if b.drops[packet.DropExpired].Load() != 1 {
			t.Errorf("drops: %v", b.reasons())
		}
	})
}
