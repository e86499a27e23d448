package engine

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"throughline/internal/aead"
	"throughline/internal/loadguard"
	"throughline/internal/session"
	"throughline/internal/wire"
	"throughline/internal/workqueue"
	"throughline/packet"
	"throughline/wgtypes"
)

// A packet that is staged is taken out of its batch: it is neither sent with it nor, when the sockets close meanwhile,
// counted among the packets that were dropped. It leaves later.
func TestStagedPacketsAreTaken(t *testing.T) {
	packets := [][]byte{ // of two peers by turns
		datagram(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 1, 100),
		datagram(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.9.0.2"), 2, 100),
		datagram(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 3, 100),
	}
	e, s, out, _ := newPath(t, packets...)
	to := s.from.Addr
	if err := e.Configure(&wgtypes.Config{Peers: []wgtypes.PeerConfig{{ // without a session
		PublicKey: wgtypes.PublicKey{60}, Endpoint: &to, AllowedIPs: prefixes("10.9.0.0/16"),
	}}}); err != nil {
		t.Fatal(err)
	}
	b := newOutBatch()
	if _, _, err := out.Take(b); err != nil {
		t.Fatal(err)
	}
	for i, want := range []packet.Drop{0, 0, packet.Taken} { // brought together, in the order of their first
		if p := b.Packets[i]; p.Drop != want || p.Len != 100 {
			t.Errorf("packet %d: %v, %d bytes; want %v, 100 bytes", i, p.Drop, p.Len, want)
		}
	}
	if n := e.lookup(wgtypes.PublicKey{60}).Staged.Len(); n != 1 {
		t.Errorf("%d packets are staged, want 1", n)
	}
	out.Work(b)
	open := e.sockets.Swap(nil)
	out.Emit(b)
	e.sockets.Store(open)
	for why := range packet.NumDrops {
		want := uint64(0)
		if why == packet.DropDown {
			want = 2
		}
		if got := e.drops[why].Load(); got != want {
			t.Errorf("%d packets were dropped as %v, want %d", got, why, want)
		}
	}
}

// A handshake message that was handed on is taken; one that found the queue full is dropped, and counted.
func TestHandshakeMessagesAreTaken(t *testing.T) {
	e := &Engine{work: workqueue.New[loadguard.Message, *Peer](1, 1)} // which nobody serves
	b := newInBatch()
	for range 2 {
		_, free := b.Free()
		clear(free[:wire.InitiationSize])
		binary.LittleEndian.PutUint32(free, wire.TypeInitiation)
		b.Received(wire.InitiationSize, 0, packet.Endpoint{})
		e.classify(b, len(b.Runs)-1)
	}
	for i, want := range []packet.Drop{packet.Taken, packet.DropQueue} {
		if p := b.Packets[i]; p.Drop != want || p.Len != wire.InitiationSize {
			t.Errorf("initiation %d: %v, %d bytes; want %v, %d bytes", i, p.Drop, p.Len, want, wire.InitiationSize)
		}
	}
	e.sink = writing(func(*packet.Batch) { t.Error("a handshake message was written to the TUN") })
	(&inbound{e: e}).Emit(b)
	for why := range packet.NumDrops {
		want := uint64(0)
		if why == packet.DropQueue {
			want = 1
		}
		if got := e.drops[why].Load(); got != want {
			t.Errorf("%d packets were dropped as %v, want %d", got, why, want)
		}
	}
}

// A keepalive is a live packet, not one that was taken: it confirms a session and counts as received, and there is nothing
// of it for the TUN.
func TestAKeepaliveIsLive(t *testing.T) {
	e, s, _, in := newPath(t, nil)
	delivered := false
	e.sink = writing(func(*packet.Batch) { delivered = true })
	p := e.order[0]

	// A session that the peer began waits for its first use.
	k := [wire.KeySize]byte{7}
	now := e.clock()
	index := e.indices.Insert(&indexEntry{peer: p})
	next := session.New(aead.Best(), &k, &k, index, 9, false, now)
	if !e.installKeypair(p, &indexEntry{peer: p, keypair: next}, now, session.Keypairs.Responded) {
		t.Fatal("the session was not installed")
	}
	s.twin = session.New(aead.Best(), &k, &k, 9, index, true, now)

	b := newInBatch()
	if _, _, err := in.Take(b); err != nil {
		t.Fatal(err)
	}
	in.Work(b)
	in.Emit(b)
	if got := b.Packets[0]; got.Drop != 0 || got.Len != 0 {
		t.Errorf("a keepalive: %v, %d bytes; want it live, without bytes", got.Drop, got.Len)
	}
	if delivered {
		t.Error("a keepalive was written to the TUN")
	}
	if p.Sending.Load() != next {
		t.Error("a keepalive didn't confirm the session")
	}
	if got := p.Rx.Load(); got != wire.TransportOverhead {
		t.Errorf("%d bytes were received, want %d", got, wire.TransportOverhead)
	}

	// Beside data in one train, it isn't looked into either.
	s.packets = append(s.packets, datagram(netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1"), 1, 100))
	if _, _, err := in.Take(b); err != nil {
		t.Fatal(err)
	}
	in.Work(b)
	in.Emit(b)
	if b.Packets[0].Drop != 0 || b.Packets[1].Drop != 0 || !delivered {
		t.Errorf("a keepalive and data: %v and %v, delivered: %v", b.Packets[0].Drop, b.Packets[1].Drop, delivered)
	}
}
