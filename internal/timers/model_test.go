package timers

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"throughline/internal/mono"
	"throughline/internal/wire"
)

// An eager peer is the slow reference: five timers that are armed, moved and disarmed at every event, as the kernel's.
type eager struct {
	unanswered, handshake, retransmit, erase, passive, persistent mono.Time // Never: disarmed
	another                                                       bool
	interval                                                      time.Duration
	attempts                                                      int
}

func newEager() *eager {
	n := mono.Never
	return &eager{unanswered: n, handshake: n, retransmit: n, erase: n, passive: n, persistent: n}
}

func (e *eager) dataSent(now mono.Time) {
	if e.unanswered == mono.Never && e.handshake == mono.Never {
		e.unanswered = now.Add(15 * time.Second)
	}
}

func (e *eager) dataReceived(now mono.Time) {
	if e.passive == mono.Never {
		e.passive, e.another = now.Add(10*time.Second), false
	} else {
		e.another = true
	}
}

func (e *eager) sent(now mono.Time) {
	e.passive = mono.Never
	e.deferPersistent(now)
}

func (e *eager) received(now mono.Time) {
	e.unanswered, e.handshake = mono.Never, mono.Never
	e.deferPersistent(now)
}

func (e *eager) deferPersistent(now mono.Time) {
	if e.interval != 0 {
		e.persistent = now.Add(e.interval)
	}
}

func (e *eager) setInterval(now mono.Time, interval time.Duration) {
	switch {
	case interval == 0:
		e.persistent = mono.Never
	case e.interval == 0:
		e.persistent = now.Add(interval)
	default:
		e.persistent = e.persistent.Add(interval - e.interval)
	}
	e.interval = interval
}

func (e *eager) next() mono.Time {
	return min(e.unanswered, e.handshake, e.retransmit, e.erase, e.passive, e.persistent)
}

// fire lets every timer that is due expire.
func (e *eager) fire(now mono.Time, jitter time.Duration) (do Actions) {
	if e.erase <= now {
		e.erase = mono.Never
		do |= EraseKeys
	}
	if e.retransmit <= now {
		e.retransmit = mono.Never
		if e.attempts == 18 {
			do |= GiveUp
			e.attempts, e.passive = 0, mono.Never
			if e.erase == mono.Never {
				e.erase = now.Add(540 * time.Second)
			}
		} else {
			e.attempts++
			do |= ClearSource | Initiate | Retry
		}
	}
	if e.unanswered <= now {
		e.handshake, e.unanswered = e.unanswered.Add(jitter), mono.Never
	}
	if e.handshake <= now {
		e.handshake, e.attempts = mono.Never, 0
		do = do&^Retry | ClearSource | Initiate
	}
	if e.passive <= now {
		do |= Keepalive
		if e.passive = mono.Never; e.another {
			e.passive, e.another = now.Add(10*time.Second), false
		}
	}
	if e.persistent <= now {
		do |= Keepalive
		e.persistent = now.Add(e.interval)
	}
	return do
}

// TestAgainstEager gives the machine and the reference the same history, the machine being looked at only when it asked
// for it and at random moments besides, and wants the same actions at the same moments.
func TestAgainstEager(t *testing.T) {
	var seen [8]int // how often each action was compared
	rapid.Check(t, func(rt *rapid.T) {
		var m Timers
		e, wake, now := newEager(), mono.Never, mono.Time(1)
		jitter := func() time.Duration { // the same for both at any one moment
			return time.Duration(uint64(now)*0x9e3779b97f4a7c15>>40) % (wire.RekeyTimeoutJitterMax + 1)
		}
		due := func(at mono.Time) { wake = min(wake, at) }
		sent := func() { e.sent(now); due(m.AuthenticatedSent(now)) }
		received := func() { e.received(now); due(m.AuthenticatedReceived(now)) }
		initiate := func() {
			sent()
			e.retransmit = now.Add(5*time.Second + jitter())
			due(m.HandshakeInitiated(now, jitter()))
		}
		sends := rapid.Bool().Draw(rt, "what is to be sent can be")
		look := func() {
			do, next := m.Look(now, jitter())
			wake = next
			want := e.fire(now, jitter())
			if do != want {
				rt.Fatalf("%v: %b, want %b", time.Duration(now), do, want)
			}
			for i := range seen {
				seen[i] += int(do >> i & 1)
			}
			if do&Initiate != 0 && sends {
				initiate()
			}
			if do&Keepalive != 0 && sends {
				sent()
			}
			if m.HandshakeAttempts() != e.attempts {
				rt.Fatalf("%v: %d attempts, want %d", time.Duration(now), m.HandshakeAttempts(), e.attempts)
			}
			if do, next := m.Look(now, jitter()); do != 0 || next > e.next() {
				rt.Fatalf("%v: a second look does %b and asks for %v, after %v", time.Duration(now), do,
					time.Duration(next), time.Duration(e.next()))
			}
		}
		// Lets time pass until then; the one of the two that is due first is served first.
		pass := func(until mono.Time) {
			for at := min(wake, e.next()); at <= until; at = min(wake, e.next()) {
				now = at
				if wake > now {
					rt.Fatalf("%v: something is due, and no look was asked for", time.Duration(now))
				}
				look()
			}
			now = until
		}
		events := []func(){
			func() { e.dataSent(now); due(m.DataSent(now)); sent() },
			func() { received(); e.dataReceived(now); due(m.DataReceived(now)) },
			func() { received(); e.dataReceived(now); due(m.DataReceived(now)) },
			sent,
			received,
			initiate,
			func() { e.retransmit, e.attempts = mono.Never, 0; m.HandshakeComplete(now) },
			func() { e.erase = now.Add(540 * time.Second); due(m.SessionDerived(now)) },
			func() { e.attempts = 0; m.ResetAttempts() },
			func() {
				interval := time.Duration(rapid.SampledFrom([]int{0, 1, 5, 25, 25, 65535}).Draw(rt, "interval")) * time.Second
				e.setInterval(now, interval)
				due(m.SetPersistentKeepalive(now, interval))
			},
			look, // uncalled for
			func() { *e = *newEager(); m.Stop() },
		}
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) [2]int {
			return [2]int{
				rapid.SampledFrom([]int{0, 1, 400, 4000, 5000, 9999, 10000, 15000, 15100, 120000, 600000}).Draw(rt, "ms"),
				rapid.IntRange(0, len(events)-1).Draw(rt, "event"),
			}
		}), 1, 60).Draw(rt, "steps")
		for _, s := range steps {
			pass(now.Add(time.Duration(s[0]) * time.Millisecond))
			events[s[1]]()
		}
		pass(now.Add(20 * time.Minute))
	})
	for i, n := range seen[:6] {
		if n == 0 && !t.Failed() {
			t.Errorf("action %b never came up", 1<<i)
		}
	}
}
