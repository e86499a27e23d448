package loadguard

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"throughline/internal/cookie"
	"throughline/internal/mono"
	"throughline/internal/ratelimit"
	"throughline/internal/wire"
	"throughline/wgtypes"
)

const start = mono.Time(time.Hour)

var public = wgtypes.PublicKey{7}

// A sender is one address, and what it has of the guard.
type sender struct {
	from netip.AddrPort
	jar  cookie.Jar
}

func (s *sender) message(now mono.Time) []byte {
	keys := cookie.KeysFor(public)
	msg := make([]byte, wire.InitiationSize)
	binary.LittleEndian.PutUint32(msg, wire.TypeInitiation)
	s.jar.AddMACs(now, &keys, msg)
	return msg
}

// ask sends a message for a cookie, and takes it.
func (s *sender) ask(t interface{ Fatal(...any) }, g *Guard, now mono.Time) {
	keys, reply := cookie.KeysFor(public), make([]byte, wire.CookieReplySize)
	if err := g.Reply(now, reply, s.message(now), s.from); err != nil {
		t.Fatal(err)
	}
	if !s.jar.ConsumeReply(now, &keys, reply) {
		t.Fatal("no cookie")
	}
}

func TestLoadLasts(t *testing.T) {
	g := New(public)
	if g.UnderLoad(1) || g.UnderLoad(start) {
		t.Error("under load from the beginning")
	}
	g.Loaded(start)
	for after, want := range map[time.Duration]bool{0: true, Lasts - 1: true, Lasts: false, time.Hour: false} {
		if g.UnderLoad(start.Add(after)) != want {
			t.Errorf("%v after the load: under load is %v", after, !want)
		}
	}
}

// One source, which owns its address and has a cookie, is held to its rate under load.
func TestRateUnderLoad(t *testing.T) {
	g, s := New(public), sender{from: netip.MustParseAddrPort("203.0.113.1:1")}
	s.ask(t, g, start)
	g.Loaded(start)
	passed := 0
	for range 100 {
		switch c := g.Classify(start, s.message(start), s.from); c {
		case Proven:
			passed++
		case Unproven:
			t.Fatal("a message with a cookie is unproven")
		}
	}
	if passed != ratelimit.Burst {
		t.Errorf("%d of 100 at once passed, want the burst of %d", passed, ratelimit.Burst)
	}
}

// The guard says of each message what a slow reference does: a flag for each cookie, and a list of each source's messages.
func TestClassesAgainstLists(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g, now := New(public), start
		var born, loaded mono.Time // of the secret, of the last load
		senders := make([]sender, 4)
		given := make([]mono.Time, len(senders)) // when each has got its cookie, and of which secret
		secret := make([]mono.Time, len(senders))
		tokens := make(map[int]float64)
		last := make(map[int]mono.Time)
		for i := range senders {
			senders[i].from = netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 1000)
		}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			i := rapid.IntRange(0, len(senders)-1).Draw(t, "sender")
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0:
				now = now.Add(time.Duration(rapid.IntRange(1, 150).Draw(t, "seconds")) * time.Second)
			case 1:
				now = now.Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "ms")) * time.Millisecond)
			case 2:
				g.Loaded(now)
				loaded = now
			case 3:
				if born == 0 || now.Sub(born) >= wire.CookieRefreshTime {
					born = now
				}
				senders[i].ask(t, g, now)
				given[i], secret[i] = now, born
			default:
				want := Unproven
				has := given[i] != 0 && now.Sub(given[i]) < wire.CookieRefreshTime-wire.CookieLatency
				if loaded != 0 && now.Sub(loaded) < Lasts && has && secret[i] == born && now.Sub(born) < wire.CookieRefreshTime {
					if was, ok := last[i]; !ok {
						tokens[i] = ratelimit.Burst
					} else {
						tokens[i] = min(ratelimit.Burst, tokens[i]+now.Sub(was).Seconds()*ratelimit.PerSecond)
					}
					last[i] = now
					if want = TooMany; tokens[i] >= 1-1e-6 {
						tokens[i]--
						want = Proven
					}
				}
				msg := senders[i].message(now)
				if got := g.Classify(now, msg, senders[i].from); got != want {
					t.Fatalf("a message is of class %v, want %v", got, want)
				}
				if !g.CheckMAC1(msg) {
					t.Fatal("mac1 is refused")
				}
			}
		}
	})
}

// A flood takes no lock and no token: without a cookie, with a wrong one, and with somebody else's.
func TestForgeriesTakeNoToken(t *testing.T) {
	g, s := New(public), sender{from: netip.MustParseAddrPort("203.0.113.1:1")}
	s.ask(t, g, start)
	g.Loaded(start)
	elsewhere := netip.MustParseAddrPort("203.0.113.2:1")
	g.mu.Lock() // Classify would wait here for ever
	for range 100 {
		msg := s.message(start)
		if c := g.Classify(start, msg, elsewhere); c != Unproven {
			t.Fatalf("another's cookie: class %v", c)
		}
		msg[len(msg)-1]++
		if c := g.Classify(start, msg, s.from); c != Unproven {
			t.Fatalf("a wrong mac2: class %v", c)
		}
		if c := g.Classify(start, make([]byte, wire.InitiationSize), s.from); c != Unproven {
			t.Fatalf("no mac2: class %v", c)
		}
	}
	g.mu.Unlock()
	for i := range ratelimit.Burst {
		if c := g.Classify(start, s.message(start), s.from); c != Proven {
			t.Errorf("message %d of the source's own: class %v", i, c)
		}
	}
}

// All methods beside each other, for the race detector.
func TestConcurrent(t *testing.T) {
	g := New(public)
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			s := sender{from: netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(n)}), 1)}
			for i := range 200 {
				now := start.Add(time.Duration(i) * time.Second)
				g.Loaded(now)
				s.ask(t, g, now)
				g.Classify(now, s.message(now), s.from)
			}
		})
	}
	wg.Wait()
}
