package peer

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"throughline/internal/aead"
	"throughline/internal/cookie"
	"throughline/internal/mono"
	"throughline/internal/noise"
	"throughline/internal/session"
	"throughline/internal/wire"
	"throughline/packet"
	"throughline/wgtypes"
)

const begin = mono.Time(time.Hour)

// A side is one end: who it is, and what it knows of the other.
type side struct {
	id *noise.Identity
	Handshake
}

func sides(t *testing.T) (a, b *side) {
	t.Helper()
	make := func(n byte) *side {
		id, err := noise.NewIdentity(&wgtypes.PrivateKey{0: n, 31: 64})
		if err != nil {
			t.Fatal(err)
		}
		return &side{id: id}
	}
	return make(8), make(16)
}

func (s *side) initiate(t *testing.T, now mono.Time, to *side, sender uint32, at time.Time) []byte {
	t.Helper()
	e, err := noise.NewEphemeral(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	msg := make([]byte, wire.InitiationSize)
	if err := s.Initiate(now, msg, s.id, to.id.Public(), e, sender, noise.TAI64N(at)); err != nil {
		t.Fatal(err)
	}
	return msg
}

func (s *side) accept(t *testing.T, now mono.Time, msg []byte, sender uint32) ([]byte, *session.Keypair, error) {
	t.Helper()
	r, err := noise.ConsumeInitiation(msg, s.id)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Clear()
	reply := make([]byte, wire.ResponseSize)
	kp, err := s.Accept(now, reply, r, s.id, rand.Reader, sender, aead.Best())
	return reply, kp, err
}

// agree checks that what one keypair seals the other opens.
func agree(t *testing.T, a, b *session.Keypair) {
	t.Helper()
	for _, way := range [][2]*session.Keypair{{a, b}, {b, a}} {
		batch := packet.New()
		batch.Append([]byte("over there"))
		way[0].Seal(batch.Slab, batch.Packets, 0)
		if index := binary.LittleEndian.Uint32(batch.Bytes(0)[wire.TransportReceiver:]); index != way[1].LocalIndex {
			t.Errorf("addressed to %#x, which is %#x", index, way[1].LocalIndex)
		}
		way[1].Open(batch.Slab, batch.Packets)
		if batch.Packets[0].Drop != 0 || !bytes.HasPrefix(batch.Bytes(0), []byte("over there")) {
			t.Error("what one seals the other doesn't open")
		}
	}
}

func TestHandshake(t *testing.T) {
	for name, psk := range map[string]*wgtypes.PresharedKey{"without": nil, "zero": {}, "with": {1, 2, 3}} {
		t.Run(name+" preshared key", func(t *testing.T) {
			a, b := sides(t)
			a.SetPreshared(psk)
			b.SetPreshared(psk)
			now := begin
			for round := range 3 {
				msg := a.initiate(t, now, b, uint32(100+round), time.Unix(int64(1000+round), 0))
				if index, ok := a.Pending(); !ok || index != uint32(100+round) {
					t.Errorf("pending: %d, %v", index, ok)
				}
				reply, kb, err := b.accept(t, now, msg, uint32(200+round))
				if err != nil {
					t.Fatal(err)
				}
				ka, err := a.ConsumeResponse(now, reply, a.id, aead.Best())
				if err != nil {
					t.Fatal(err)
				}
				if !ka.Initiator || kb.Initiator || ka.Birth != now {
					t.Errorf("keypairs %v and %v", ka.Initiator, kb.Initiator)
				}
				agree(t, ka, kb)
				if _, ok := a.Pending(); ok {
					t.Error("the initiation is pending still")
				}
				if _, err := a.ConsumeResponse(now, reply, a.id, aead.Best()); !errors.Is(err, ErrPending) {
					t.Errorf("the response came twice: %v", err)
				}
				now = now.Add(time.Minute)
			}
		})
	}
}

func TestReplayedAndFloodingInitiations(t *testing.T) {
	a, b := sides(t)
	at := time.Unix(1000, 0)
	first := a.initiate(t, begin, b, 1, at)
	if _, _, err := b.accept(t, begin, first, 1); err != nil {
		t.Fatal(err)
	}
	later := begin.Add(time.Hour)
	if _, _, err := b.accept(t, later, first, 2); !errors.Is(err, ErrStale) {
		t.Errorf("a replayed initiation: %v", err)
	}
	older := (&side{id: a.id}).initiate(t, later, b, 1, at.Add(-time.Second))
	if _, _, err := b.accept(t, later, older, 2); !errors.Is(err, ErrStale) {
		t.Errorf("an older initiation: %v", err)
	}
	second := a.initiate(t, later, b, 1, at.Add(time.Second))
	if _, _, err := b.accept(t, later, second, 2); err != nil {
		t.Errorf("a newer initiation: %v", err)
	}
	third := a.initiate(t, later, b, 1, at.Add(2*time.Second))
	if _, _, err := b.accept(t, later.Add(wire.InitiationInterval-1), third, 3); !errors.Is(err, ErrFlood) {
		t.Errorf("an initiation too soon: %v", err)
	}
	if _, _, err := b.accept(t, later.Add(wire.InitiationInterval), third, 3); err != nil {
		t.Errorf("the same a moment later: %v", err)
	}
}

// A wall clock that is set back, or stands, doesn't shut us out: to one peer timestamps only grow, and by no more than
// they must.
func TestTimestampsGrow(t *testing.T) {
	a, b := sides(t)
	at, now := time.Unix(1000, 999e6), begin
	for i, step := range []time.Duration{0, -time.Hour, time.Minute, 0, 0} {
		at, now = at.Add(step), now.Add(time.Second)
		if _, _, err := b.accept(t, now, a.initiate(t, now, b, 1, at), 1); err != nil {
			t.Fatalf("initiation %d, at %v: %v", i, at, err)
		}
	}
	if most := noise.TAI64N(time.Unix(1000, 999e6).Add(5 * 17 * time.Millisecond)); a.sent.After(most) {
		t.Errorf("the last timestamp is %x, want at most %x", a.sent, most)
	}
}

// What is forged changes nothing: neither the newest timestamp, nor the initiation that is pending.
func TestForgeriesChangeNothing(t *testing.T) {
	a, b := sides(t)
	msg := a.initiate(t, begin, b, 1, time.Unix(1000, 0))
	forged := bytes.Clone(msg)
	forged[wire.InitiationTimestamp] ^= 1
	if _, _, err := b.accept(t, begin, forged, 1); err == nil {
		t.Fatal("a forged initiation passes")
	}
	reply, kb, err := b.accept(t, begin, msg, 1)
	if err != nil {
		t.Fatalf("after a forgery the genuine initiation fails: %v", err)
	}
	for i := range wire.ResponseMAC1 {
		if wire.ResponseSender <= i && i < wire.ResponseReceiver {
			continue // the sender's index is vouched for by mac1 only, which the engine checks
		}
		bad := bytes.Clone(reply)
		bad[i] ^= 1
		if _, err := a.ConsumeResponse(begin, bad, a.id, aead.Best()); err == nil {
			t.Fatalf("a response with a bit of byte %d flipped passes", i)
		}
		if _, ok := a.Pending(); !ok {
			t.Fatalf("a forged response ended the handshake, at byte %d", i)
		}
	}
	ka, err := a.ConsumeResponse(begin, reply, a.id, aead.Best())
	if err != nil {
		t.Fatal(err)
	}
	agree(t, ka, kb)
}

func TestPresharedKeyMustAgree(t *testing.T) {
	a, b := sides(t)
	a.SetPreshared(&wgtypes.PresharedKey{1})
	b.SetPreshared(&wgtypes.PresharedKey{2})
	reply, _, err := b.accept(t, begin, a.initiate(t, begin, b, 1, time.Unix(1, 0)), 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.ConsumeResponse(begin, reply, a.id, aead.Best()); err == nil {
		t.Error("preshared keys differ, and the handshake completes")
	}
}

func TestCookieIsUsed(t *testing.T) {
	a, b := sides(t)
	checker := cookie.NewChecker(b.id.Public())
	from := netip.MustParseAddrPort("192.0.2.1:1000")
	msg := a.initiate(t, begin, b, 1, time.Unix(1, 0))
	if !checker.CheckMAC1(msg) || checker.CheckMAC2(begin, msg, from) {
		t.Fatal("the first message should have mac1 and no mac2")
	}
	reply := make([]byte, wire.CookieReplySize)
	if err := checker.Reply(begin, reply, msg, from, rand.Reader); err != nil {
		t.Fatal(err)
	}
	if !a.ConsumeCookie(begin, reply, b.id.Public()) {
		t.Fatal("the cookie wasn't taken")
	}
	if msg = a.initiate(t, begin, b, 2, time.Unix(2, 0)); !checker.CheckMAC2(begin, msg, from) {
		t.Error("the cookie isn't used")
	}
}

func TestForget(t *testing.T) {
	a, b := sides(t)
	a.initiate(t, begin, b, 1, time.Unix(1, 0))
	secret := a.secret
	a.Forget()
	if _, ok := a.Pending(); ok || a.secret != nil || *secret != [wire.KeySize]byte{} {
		t.Error("secrets are left")
	}
	psk := wgtypes.PresharedKey{9}
	a.SetPreshared(&psk)
	held := a.Preshared
	a.SetPreshared(nil)
	if *held != (wgtypes.PresharedKey{}) || psk == (wgtypes.PresharedKey{}) {
		t.Error("the old preshared key should be cleared, the caller's not")
	}
}

func TestEndpoint(t *testing.T) {
	var p Peer
	if p.Endpoint() != nil {
		t.Fatal("an endpoint out of nothing")
	}
	ep := packet.Endpoint{Addr: netip.MustParseAddrPort("192.0.2.1:1"), Src: netip.MustParseAddr("192.0.2.2"), SrcIf: 3}
	p.SetEndpoint(&ep)
	got := p.Endpoint()
	ep.SrcIf = 4
	if got.SrcIf != 3 {
		t.Error("the endpoint is not a copy")
	}
	ep.SrcIf = 3
	if n := testing.AllocsPerRun(100, func() { p.SetEndpoint(&ep) }); n != 0 || p.Endpoint() != got {
		t.Errorf("setting the same endpoint: %v allocations", n)
	}
	again := packet.Endpoint{Addr: ep.Addr, Src: netip.MustParseAddr("192.0.2.3"), SrcIf: 3}
	p.SetEndpoint(&again)
	p.ClearSource(got) // it was heard since
	if *p.Endpoint() != again {
		t.Errorf("what was learned since is forgotten: %+v", p.Endpoint())
	}
	p.ClearSource(p.Endpoint())
	p.ClearSource(nil)
	if got := p.Endpoint(); got.Src.IsValid() || got.SrcIf != 0 || got.Addr != ep.Addr {
		t.Errorf("without source: %+v", got)
	}
}
