// Package timers is the timers of one peer as a state machine: its methods record what happened and when, and Look returns
// what is to be done and when to look again. Whitepaper §6.
//
// It sends nothing, has no clock and starts no runtime timer. Every method that may arm a timer returns the moment by
// which [Timers.Look] must be called at the latest; the caller keeps the earliest of those moments for each peer, for
// example in a wheel. A moment may turn out stale, because what it waited for was disarmed meanwhile: Look then does
// nothing and returns the next one. Late calls make actions late, and are otherwise harmless.
//
// Concurrency: DataSent, DataReceived, AuthenticatedSent and AuthenticatedReceived may be called from any goroutine at
// any time; they are what a train of packets costs. All other methods need the peer's lock, Look included. A hot call
// that runs at the same moment as another, or as Look, counts as before or after it; a timer armed by one is either
// seen by a Look that runs meanwhile or by the one that its returned moment asks for.
//
// Limits: every now must be later than the zero mono.Time, which stands for never.
package timers

import (
	"sync/atomic"
	"time"

	"throughline/internal/mono"
	"throughline/internal/wire"
)

// Actions is a set of things to do now. They are to be done in the order of their declaration.
type Actions uint8

// Actions.
const (
	// EraseKeys: erase all sessions and the handshake's ephemeral keys. §6.3.
	EraseKeys Actions = 1 << iota

	// GiveUp: the initiation was repeated as often as is allowed and never answered; drop the staged packets. §6.4.
	GiveUp

	// ClearSource: forget the local address that the peer is sent to from, in case it is why no answer comes.
	ClearSource

	// Initiate: send an initiation if [Timers.MayInitiate], because one wasn't answered (§6.4) or because data sent
	// wasn't (§6.5).
	Initiate

	// Retry comes with Initiate: the initiation repeats one that wasn't answered, and was counted.
	Retry

	// Keepalive: send a packet of no data. §6.5. Without a session to send it in, begin a handshake.
	Keepalive
)

// silence is how long data may go unanswered until a new handshake is tried, before jitter. §6.5.
const silence = wire.KeepaliveTimeout + wire.RekeyTimeout

// Timers are the timers of one peer. The zero Timers is ready, with nothing armed.
type Timers struct {
	// Hot: written by the data path. Zero means disarmed.
	unanswered atomic.Int64 // the first data sent since anything was received
	owing      atomic.Int64 // twice the time of the first data received since anything was sent, plus 1 if more came
	traversal  atomic.Int64 // the last packet in either direction; only kept for persistent keepalives
	interval   atomic.Int64 // of persistent keepalives, a time.Duration; 0 is off

	// Cold: guarded by the peer's lock. Zero means disarmed.
	handshake      mono.Time // the new handshake for unanswered data, once its jitter is known
	retransmit     mono.Time
	erase          mono.Time
	lastInitiation mono.Time
	attempts       int32 // repeats of the initiation
	deferred       bool  // at retransmit, the first is sent
}

// DataSent records that a transport packet other than a keepalive was sent. It is hot.
func (t *Timers) DataSent(now mono.Time) (due mono.Time) {
	if t.unanswered.Load() == 0 && t.unanswered.CompareAndSwap(0, int64(now)) {
		return now.Add(silence) // the jitter comes later, in Look
	}
	return mono.Never
}

// DataReceived records that a transport packet other than a keepalive was received and authenticated. It is hot.
// Keepalives are left out so that they never answer each other.
func (t *Timers) DataReceived(now mono.Time) (due mono.Time) {
	v := t.owing.Load()
	if v == 0 {
		if t.owing.CompareAndSwap(0, int64(now)<<1) {
			return now.Add(wire.KeepaliveTimeout)
		}
		v = t.owing.Load()
	}
	if v != 0 && v&1 == 0 {
		t.owing.CompareAndSwap(v, v|1) // fails if it was answered just now, or another did the same
	}
	return mono.Never
}

// AuthenticatedSent records that any authenticated packet was sent: data, a keepalive or a message of the handshake. It
// is hot.
func (t *Timers) AuthenticatedSent(now mono.Time) (due mono.Time) {
	if t.owing.Load() != 0 {
		t.owing.Store(0)
	}
	t.traversed(now)
	return mono.Never
}

// AuthenticatedReceived records that any authenticated packet was received: data, a keepalive or a message of the
// handshake. It is hot.
func (t *Timers) AuthenticatedReceived(now mono.Time) (due mono.Time) {
	if t.unanswered.Load() != 0 {
		t.unanswered.Store(0)
	}
	t.traversed(now)
	return mono.Never
}

// traversed puts off the persistent keepalive. It arms nothing: while there is an interval, Look's last answer or
// SetPersistentKeepalive's asked for a Look that is no later. Of two calls at once the last to store wins, which moves
// the keepalive by no more than their clocks differ.
func (t *Timers) traversed(now mono.Time) {
	if t.interval.Load() != 0 {
		t.traversal.Store(int64(now))
	}
}

// SetPersistentKeepalive sets how long there may be no packet in either direction until a keepalive is sent; 0
// switches that off. The time runs from the last packet if keepalives were on before, so that a configuration applied
// again and again doesn't put them off without end; else from now. The caller sends the first at once.
func (t *Timers) SetPersistentKeepalive(now mono.Time, interval time.Duration) (due mono.Time) {
	if interval <= 0 {
		t.interval.Store(0)
		return mono.Never
	}
	if t.interval.Load() == 0 {
		t.traversal.Store(int64(now))
	}
	t.interval.Store(int64(interval))
	return mono.Time(t.traversal.Load()).Add(interval)
}

// HandshakeInitiated records that an initiation was sent. It is repeated after RekeyTimeout and jitter, which is
// random, at least 0 and at most [wire.RekeyTimeoutJitterMax]. §6.1, §6.4.
func (t *Timers) HandshakeInitiated(now mono.Time, jitter time.Duration) (due mono.Time) {
	t.lastInitiation = now
	t.retransmit, t.deferred = now.Add(wire.RekeyTimeout+jitter), false
	return t.retransmit
}

// HandshakeSent records that a message of a handshake was sent that isn't to be repeated: a response. For a while no
// initiation is to be sent. §6.1.
func (t *Timers) HandshakeSent(now mono.Time) {
	t.lastInitiation = now
	if t.retransmit != 0 {
		t.retransmit = max(t.retransmit, now.Add(wire.RekeyTimeout))
	}
}

// InitiationDeferred records that an initiation was wanted which may not be sent yet. It is sent as soon as it may, unless
// a handshake is completed until then.
func (t *Timers) InitiationDeferred(jitter time.Duration) (due mono.Time) {
	if t.retransmit == 0 {
		t.retransmit, t.deferred = t.lastInitiation.Add(wire.RekeyTimeout+jitter), true
	}
	return t.retransmit
}

// HandshakeComplete records that a handshake was completed: a response was consumed, or the first packet of a session
// confirmed our own.
func (t *Timers) HandshakeComplete(_ mono.Time) {
	t.retransmit, t.attempts = 0, 0
}

// SessionDerived records that a session was derived, so that key material is erased EraseKeysAfter from now. §6.3.
func (t *Timers) SessionDerived(now mono.Time) (due mono.Time) {
	t.erase = now.Add(wire.EraseKeysAfter)
	return t.erase
}

// ResetAttempts sets the count of attempts to zero, because there is new data to send that wants a handshake. §6.4.
func (t *Timers) ResetAttempts() { t.attempts = 0 }

// HandshakeAttempts returns how often the initiation has been repeated without success.
func (t *Timers) HandshakeAttempts() int { return int(t.attempts) }

// LastInitiation returns when the last initiation or response was sent, zero for never.
func (t *Timers) LastInitiation() mono.Time { return t.lastInitiation }

// MayInitiate reports whether RekeyTimeout has passed since the last initiation or response was sent. §6.1.
func (t *Timers) MayInitiate(now mono.Time) bool {
	return t.lastInitiation == 0 || now.Sub(t.lastInitiation) >= wire.RekeyTimeout
}

// Stop disarms everything, switches persistent keepalives off and forgets the last initiation: the peer is removed, or
// the device down. Hot calls that are still on their way may arm something again; it is harmless to Look or not.
func (t *Timers) Stop() {
	t.interval.Store(0)
	t.unanswered.Store(0)
	t.owing.Store(0)
	t.handshake, t.retransmit, t.erase, t.lastInitiation, t.attempts = 0, 0, 0, 0, 0
}

// Look returns what is to be done now, and the moment by which it must be called again at the latest, Never when
// nothing is armed. jitter is random, at least 0 and at most [wire.RekeyTimeoutJitterMax].
//
// What it says to do it counts as done: the caller reports what was sent as ever, by the methods above, afterwards.
func (t *Timers) Look(now mono.Time, jitter time.Duration) (do Actions, next mono.Time) {
	next = mono.Never
	wait := func(at mono.Time) bool {
		if at > now {
			next = min(next, at)
		}
		return at > now
	}
	if t.erase != 0 && !wait(t.erase) {
		t.erase = 0
		do |= EraseKeys
	}
	if t.retransmit != 0 && !wait(t.retransmit) {
		t.retransmit = 0
		if t.deferred {
			t.deferred = false
			do |= Initiate
		} else if int(t.attempts) < wire.MaxHandshakeAttempts {
			t.attempts++
			do |= ClearSource | Initiate | Retry
		} else {
			do |= GiveUp
			t.attempts = 0
			t.owing.Store(0) // there is no session to send a keepalive in
			if t.erase == 0 {
				// What a partial exchange left behind goes, too. Kernel: wg_expired_retransmit_handshake.
				t.erase = now.Add(wire.EraseKeysAfter)
				next = min(next, t.erase)
			}
		}
	}
	if first := t.unanswered.Load(); first == 0 || wait(mono.Time(first).Add(silence)) {
		t.handshake = 0
	} else {
		if t.handshake == 0 {
			t.handshake = mono.Time(first).Add(silence + jitter)
		}
		if !wait(t.handshake) {
			t.handshake = 0
			// Lost if something was received just now.
			if t.unanswered.CompareAndSwap(first, 0) {
				// An attempt of its own, not a retry: §6.4, kernel wg_expired_new_handshake.
				t.attempts = 0
				do = do&^Retry | ClearSource | Initiate
			}
		}
	}
	for v := t.owing.Load(); v != 0 && !wait(mono.Time(v>>1).Add(wire.KeepaliveTimeout)); v = t.owing.Load() {
		again := int64(0)
		if v&1 != 0 {
			// More was received: the time runs again, until what is sent now is reported. Kernel:
			// timer_need_another_keepalive.
			again = int64(now) << 1
		}
		if t.owing.CompareAndSwap(v, again) { // else something was sent or received just now
			do |= Keepalive
		}
	}
	if interval := time.Duration(t.interval.Load()); interval != 0 {
		if !wait(mono.Time(t.traversal.Load()).Add(interval)) {
			// Counted as sent, so that the next comes even if this one can't be sent.
			t.traversal.Store(int64(now))
			wait(now.Add(interval))
			do |= Keepalive
		}
	}
	return do, next
}
