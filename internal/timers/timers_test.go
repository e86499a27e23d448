package timers

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"throughline/internal/mono"
	"throughline/internal/wire"
)

const (
	ms  = time.Millisecond
	sec = time.Second
	t0  = mono.Time(1000 * sec)
)

// at is the moment d after t0.
func at(d time.Duration) mono.Time { return t0.Add(d) }

// look looks at d after t0 and wants actions and the next look.
func look(t *testing.T, m *Timers, d, jitter time.Duration, do Actions, next mono.Time) {
	t.Helper()
	if d0, n0 := m.Look(at(d), jitter); d0 != do || n0 != next {
		t.Errorf("after %v: %06b, next after %v; want %06b, next after %v", d, d0, n0.Sub(t0), do, next.Sub(t0))
	}
}

func wantDue(t *testing.T, got, want mono.Time) {
	t.Helper()
	if got != want {
		t.Errorf("due after %v, want %v", got.Sub(t0), want.Sub(t0))
	}
}

func TestZeroIsIdle(t *testing.T) {
	var m Timers
	for h := range 10 {
		look(t, &m, time.Duration(h)*time.Hour, 0, 0, mono.Never)
	}
	if !m.MayInitiate(1) || m.LastHandshakeSent() != 0 || m.HandshakeAttempts() != 0 {
		t.Error("a new peer remembers an initiation")
	}
}

// TestIdleForHours: after its last exchange a peer becomes quiet, and stays so.
func TestIdleForHours(t *testing.T) {
	var m Timers
	m.HandshakeInitiated(at(0), 0)
	m.AuthenticatedSent(at(0))
	m.AuthenticatedReceived(at(0))
	m.SessionDerived(at(0))
	m.HandshakeComplete(at(0))
	m.AuthenticatedSent(at(1))
	m.DataSent(at(1))
	m.AuthenticatedReceived(at(2))
	look(t, &m, 15*sec+1, 0, 0, at(540*sec))
	look(t, &m, 540*sec, 0, EraseKeys, mono.Never)
	for h := range 10 {
		look(t, &m, time.Duration(h+1)*time.Hour, 0, 0, mono.Never)
	}
}

// TestUnanswered: data was sent and nothing came. §6.5.
func TestUnanswered(t *testing.T) {
	var m Timers
	wantDue(t, m.DataSent(at(0)), at(15*sec))
	wantDue(t, m.DataSent(at(9*sec)), mono.Never) // from the first, not the last
	look(t, &m, 3*sec, 7*ms, 0, at(15*sec))
	look(t, &m, 15*sec, 200*ms, 0, at(15*sec+200*ms))
	look(t, &m, 15*sec+100*ms, 300*ms, 0, at(15*sec+200*ms)) // the jitter is drawn once
	look(t, &m, 15*sec+200*ms, 0, ClearSource|Initiate, mono.Never)
	wantDue(t, m.DataSent(at(16*sec)), at(31*sec)) // and anew

	look(t, &m, 31*sec, 100*ms, 0, at(31*sec+100*ms))
	m.AuthenticatedReceived(at(31*sec + 50*ms))
	look(t, &m, 31*sec+100*ms, 0, 0, mono.Never)

	// The jitter of a new handshake that was disarmed doesn't count for the next.
	m.DataSent(at(40 * sec))
	look(t, &m, 55*sec, 300*ms, 0, at(55*sec+300*ms))
	m.AuthenticatedReceived(at(55*sec + ms))
	wantDue(t, m.DataSent(at(55*sec+2*ms)), at(70*sec+2*ms))
	look(t, &m, 55*sec+300*ms, 0, 0, at(70*sec+2*ms))
	look(t, &m, 70*sec+2*ms, 0, ClearSource|Initiate, mono.Never)

	// A look that comes hours late, after sleep, does it once.
	m.DataSent(at(100 * sec))
	look(t, &m, 5*time.Hour, 333*ms, ClearSource|Initiate, mono.Never)
}

// TestPassiveKeepalive: data was received and nothing sent. §6.5.
func TestPassiveKeepalive(t *testing.T) {
	var m Timers
	wantDue(t, m.DataReceived(at(0)), at(10*sec))
	look(t, &m, 10*sec, 0, Keepalive, mono.Never)

	// From the first unanswered receipt, whatever was sent before it and received after it.
	m.AuthenticatedSent(at(20*sec - 1))
	wantDue(t, m.DataReceived(at(20*sec)), at(30*sec))
	wantDue(t, m.DataReceived(at(29*sec)), mono.Never)
	look(t, &m, 30*sec-1, 0, 0, at(30*sec))
	look(t, &m, 30*sec, 0, Keepalive, at(40*sec)) // the second packet wants another, unless this one goes out
	look(t, &m, 40*sec, 0, Keepalive, mono.Never)

	m.DataReceived(at(50 * sec))
	m.DataReceived(at(51 * sec))
	look(t, &m, 60*sec, 0, Keepalive, at(70*sec))
	m.AuthenticatedSent(at(60 * sec)) // it did
	look(t, &m, 70*sec, 0, 0, mono.Never)

	// Any packet sent disarms it, and forgets that more had come.
	m.DataReceived(at(80 * sec))
	m.DataReceived(at(81 * sec))
	m.AuthenticatedSent(at(82 * sec))
	m.DataReceived(at(83 * sec))
	look(t, &m, 90*sec, 0, 0, at(93*sec))
	look(t, &m, 93*sec, 0, Keepalive, mono.Never)
}

// TestKeepalivesEndSomewhere: two peers that exchange one packet don't go on answering each other's keepalives.
func TestKeepalivesEndSomewhere(t *testing.T) {
	var a, b Timers
	a.DataSent(at(0))
	a.AuthenticatedSent(at(0))
	b.AuthenticatedReceived(at(0))
	b.DataReceived(at(0))
	keepalives := 0
	for s := range 3600 {
		now := at(time.Duration(s) * sec)
		if do, _ := b.Look(now, 0); do != 0 {
			keepalives++
			b.AuthenticatedSent(now)
			a.AuthenticatedReceived(now)
		}
		if do, _ := a.Look(now, 0); do != 0 {
			t.Errorf("after %d s: %b", s, do)
		}
	}
	if keepalives != 1 {
		t.Errorf("%d keepalives, want 1", keepalives)
	}
}

// TestRetransmit: an initiation that nobody answers is repeated for RekeyAttemptTime, each time after RekeyTimeout and
// jitter, and then given up. §6.4.
func TestRetransmit(t *testing.T) {
	for _, derived := range []bool{false, true} {
		var m Timers
		next, now := mono.Never, time.Duration(0)
		if derived {
			next = m.SessionDerived(at(0))
		}
		m.DataReceived(at(0)) // a keepalive owed is moot once the peer is given up
		for i := range wire.MaxHandshakeAttempts + 1 {
			jitter := time.Duration(i) * ms
			wantDue(t, m.HandshakeInitiated(at(now), jitter), at(now+5*sec+jitter))
			if m.HandshakeAttempts() != i || m.LastHandshakeSent() != at(now) {
				t.Errorf("%d attempts, want %d", m.HandshakeAttempts(), i)
			}
			if m.MayInitiate(at(now+5*sec-1)) || !m.MayInitiate(at(now+5*sec)) {
				t.Error("an initiation may be sent at the wrong time")
			}
			if m.firstReceived.Store(0); i == wire.MaxHandshakeAttempts {
				m.DataReceived(at(now))
			}
			now += 5*sec + jitter
			if i < wire.MaxHandshakeAttempts {
				look(t, &m, now, 0, ClearSource|Initiate|Retry, next)
			}
		}
		if now < wire.RekeyAttemptTime || now > 96*sec {
			t.Errorf("given up after %v", now)
		}
		if !derived {
			next = at(now + 540*sec)
		}
		look(t, &m, now, 0, GiveUp, next)
		if m.HandshakeAttempts() != 0 {
			t.Error("attempts are remembered after giving up")
		}
		look(t, &m, 700*sec, 0, EraseKeys, mono.Never)
	}
}

// TestAnswering: a peer that has answered an initiation sends none for a while, and forgets neither the one it was about
// to repeat nor what was wanted meanwhile.
func TestAnswering(t *testing.T) {
	var m Timers
	m.HandshakeInitiated(at(0), 0)
	m.HandshakeSent(at(3 * sec))
	if m.MayInitiate(at(8*sec-1)) || !m.MayInitiate(at(8*sec)) || m.LastHandshakeSent() != at(3*sec) {
		t.Error("an initiation may be sent at the wrong time")
	}
	look(t, &m, 5*sec, 0, 0, at(8*sec))
	look(t, &m, 8*sec, 0, ClearSource|Initiate|Retry, mono.Never)

	m = Timers{}
	m.HandshakeSent(at(0))
	look(t, &m, 100*sec, 0, 0, mono.Never) // it is the peer's to repeat
	m.HandshakeSent(at(100 * sec))
	wantDue(t, m.InitiationDeferred(100*ms), at(105*sec+100*ms))
	wantDue(t, m.InitiationDeferred(0), at(105*sec+100*ms))
	look(t, &m, 105*sec, 0, 0, at(105*sec+100*ms))
	look(t, &m, 106*sec, 0, Initiate, mono.Never) // the first, and not because of where we sent from
	if m.HandshakeAttempts() != 0 {
		t.Error("it counts as a repeat")
	}
	m.HandshakeInitiated(at(106*sec), 0)
	look(t, &m, 111*sec, 0, ClearSource|Initiate|Retry, mono.Never)

	m = Timers{}
	m.HandshakeSent(at(0))
	m.InitiationDeferred(0)
	m.HandshakeComplete(at(sec))
	look(t, &m, 10*sec, 0, 0, mono.Never)
}

func TestHandshakeComplete(t *testing.T) {
	var m Timers
	m.HandshakeInitiated(at(0), 0)
	m.Look(at(5*sec), 0)
	m.HandshakeInitiated(at(5*sec), 0)
	m.HandshakeComplete(at(6 * sec))
	if m.HandshakeAttempts() != 0 || m.LastHandshakeSent() != at(5*sec) {
		t.Error("attempts must be forgotten, the last initiation not")
	}
	wantDue(t, m.SessionDerived(at(6*sec)), at(546*sec))
	look(t, &m, 20*sec, 0, 0, at(546*sec))
	wantDue(t, m.SessionDerived(at(126*sec)), at(666*sec)) // a new session puts it off
	look(t, &m, 546*sec, 0, 0, at(666*sec))
	look(t, &m, 666*sec, 0, EraseKeys, mono.Never)
}

// TestResetAttempts: new data to send begins the count anew. §6.4.
func TestResetAttempts(t *testing.T) {
	var m Timers
	now := time.Duration(0)
	for range 3 * wire.MaxHandshakeAttempts {
		m.HandshakeInitiated(at(now), 0)
		m.ResetAttempts()
		now += 5 * sec
		look(t, &m, now, 0, ClearSource|Initiate|Retry, mono.Never)
	}
}

// TestNewHandshakeDuringRetry: when both ask for an initiation, it is one, and no retry.
func TestNewHandshakeDuringRetry(t *testing.T) {
	var m Timers
	m.DataSent(at(0))
	m.HandshakeInitiated(at(10*sec), 0)
	look(t, &m, 15*sec, 0, ClearSource|Initiate, mono.Never)
	if m.HandshakeAttempts() != 0 {
		t.Error("the attempts go on being counted")
	}
}

func TestPersistentKeepalive(t *testing.T) {
	var m Timers
	wantDue(t, m.SetPersistentKeepalive(at(0), 25*sec), at(25*sec)) // nothing was ever sent
	look(t, &m, 25*sec, 0, Keepalive, at(50*sec))
	wantDue(t, m.AuthenticatedSent(at(25*sec+ms)), mono.Never)
	look(t, &m, 50*sec, 0, 0, at(50*sec+ms))
	m.AuthenticatedReceived(at(50 * sec))
	look(t, &m, 50*sec+ms, 0, 0, at(75*sec))

	// Silent while active, in either direction.
	for s := 51; s < 200; s += 20 {
		m.AuthenticatedReceived(at(time.Duration(s) * sec))
		look(t, &m, time.Duration(s)*sec, 0, 0, at(time.Duration(s+25)*sec))
	}

	// Applied again and again, as some agents do, it is put off no further; shortened, it comes sooner.
	wantDue(t, m.SetPersistentKeepalive(at(200*sec), 25*sec), at(216*sec))
	wantDue(t, m.SetPersistentKeepalive(at(210*sec), 25*sec), at(216*sec))
	wantDue(t, m.SetPersistentKeepalive(at(211*sec), 5*sec), at(196*sec))
	look(t, &m, 211*sec, 0, Keepalive, at(216*sec))

	wantDue(t, m.SetPersistentKeepalive(at(212*sec), 0), mono.Never)
	look(t, &m, 216*sec, 0, 0, mono.Never)
	wantDue(t, m.SetPersistentKeepalive(at(300*sec), 25*sec), at(325*sec)) // from now, not from the last packet
	wantDue(t, m.SetPersistentKeepalive(at(301*sec), -sec), mono.Never)
	look(t, &m, 325*sec, 0, 0, mono.Never)
}

func TestStop(t *testing.T) {
	var m Timers
	m.SetPersistentKeepalive(at(0), sec)
	m.DataSent(at(0))
	m.DataReceived(at(0))
	m.HandshakeInitiated(at(0), 0)
	m.SessionDerived(at(0))
	m.Look(at(5*sec), 0)
	m.HandshakeInitiated(at(5*sec), 0)
	m.Stop()
	look(t, &m, time.Hour, 0, 0, mono.Never)
	if !m.MayInitiate(at(5*sec)) || m.HandshakeAttempts() != 0 {
		t.Error("a stopped peer remembers its handshake")
	}
}

func TestSize(t *testing.T) {
	if s := unsafe.Sizeof(Timers{}); s > 96 {
		t.Errorf("%d bytes a peer", s)
	}
}

// TestHotBesideLook runs the hot calls beside Look and wants that no timer stays armed that nobody will look at. It is
// for the race detector, too.
func TestHotBesideLook(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4)) // preemption in the middle of a call is what this is about
	var m Timers
	var wake, clock atomic.Int64
	wake.Store(int64(mono.Never))
	clock.Store(int64(t0))
	ask := func(due mono.Time) {
		for w := wake.Load(); int64(due) < w && !wake.CompareAndSwap(w, int64(due)); w = wake.Load() {
		}
	}
	m.SetPersistentKeepalive(t0, 25*sec)
	ask(at(25 * sec))
	for round := range 200 {
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(round), uint64(i)))
				for range 100 {
					now := mono.Time(clock.Add(int64(r.IntN(4)) * int64(sec)))
					switch r.IntN(4) {
					case 0:
						ask(m.DataSent(now))
					case 1:
						ask(m.DataReceived(now))
					case 2:
						ask(m.AuthenticatedSent(now))
					case 3:
						ask(m.AuthenticatedReceived(now))
					}
				}
			})
		}
		wg.Go(func() {
			for range 100 {
				wake.Store(int64(mono.Never))
				_, next := m.Look(mono.Time(clock.Load()), 0)
				ask(next)
			}
		})
		wg.Wait()
		armed := int64(mono.Never)
		if v := m.firstSent.Load(); v != 0 {
			armed = min(armed, v+int64(newHandshakeAfter+wire.RekeyTimeoutJitterMax))
		}
		if v := m.firstReceived.Load(); v != 0 {
			armed = min(armed, v>>1+int64(wire.KeepaliveTimeout))
		}
		if w := wake.Load(); w > armed {
			t.Fatalf("round %d: the next look is %v too late", round, time.Duration(w-armed))
		}
	}
}

func TestHotNeverAllocates(t *testing.T) {
	var m Timers
	now := t0
	if n := testing.AllocsPerRun(1000, func() {
		now++
		m.DataSent(now)
		m.AuthenticatedSent(now)
		m.AuthenticatedReceived(now)
		m.DataReceived(now)
		m.Look(now, 0)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

var sink mono.Time

func BenchmarkHot(b *testing.B) {
	for _, c := range []struct {
		name string
		f    func(m *Timers, now mono.Time) mono.Time
	}{
		{"DataSent", (*Timers).DataSent},
		{"DataReceived", (*Timers).DataReceived},
		{"AuthenticatedSent", (*Timers).AuthenticatedSent},
		{"AuthenticatedReceived", (*Timers).AuthenticatedReceived},
		{"exchange", func(m *Timers, now mono.Time) mono.Time { // both directions, every timer armed and disarmed
			m.DataSent(now)
			m.AuthenticatedSent(now)
			m.AuthenticatedReceived(now)
			return m.DataReceived(now)
		}},
	} {
		for _, interval := range []time.Duration{0, 25 * sec} {
			b.Run(c.name+"/interval="+interval.String(), func(b *testing.B) {
				var m Timers
				m.SetPersistentKeepalive(t0, interval)
				now := t0
				for b.Loop() {
					now++
					sink = c.f(&m, now)
				}
			})
		}
	}
}

func BenchmarkLook(b *testing.B) {
	var m Timers
	m.SetPersistentKeepalive(t0, 25*sec)
	m.DataSent(t0)
	m.DataReceived(t0)
	m.SessionDerived(t0)
	for b.Loop() {
		_, sink = m.Look(t0, 0)
	}
}
