// Package timers is the timers of one peer as a state machine: its methods record what happened and when, and Look returns
// what is to be done and when to look again. Whitepaper §6.
//
// It sends nothing, has no clock and starts no runtime timer. Every method that may arm a timer returns the moment by
// which [Timers.Look] must be called at the latest; the caller keeps the earliest of those moments for each peer, for
// example in a wheel. A moment may turn out stale, because what it waited for was disarmed meanwhile: Look then does
// nothing and returns the next one. Late calls make actions late, and are otherwise harmless.
//
// Concurrency: DataSent, DataReceived, AuthenticatedSent and AuthenticatedReceived may be called from any goroutine at
// any time; the packet path calls them once for each train. All other methods need the peer's lock, Look included. A hot
// call that runs at the same moment as another, or as Look, counts as before or after it; a timer armed by one is either
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
	// GiveUp: the initiation was repeated as often as is allowed and not answered; drop the staged packets. §6.4.
	GiveUp Actions = 1 << iota

	// EraseKeys: erase all sessions and the handshake's ephemeral keys. §6.3.
	EraseKeys

	// ClearSource: forget the local address that the peer is sent to from, in case it is why no answer comes.
	ClearSource

	// Initiate: send an initiation if [Timers.MayInitiate], because one wasn't answered (§6.4) or because data sent
	// wasn't (§6.5).
	Initiate

	// Retry comes with Initiate: the initiation repeats one that wasn't answered, and was counted.
	Retry

	// Keepalive: send a keepalive. §6.5. Without a session to send it in, begin a handshake.
	Keepalive
)

// newHandshakeAfter is how long after data was sent a new handshake is tried, before jitter, if nothing came back. §6.5.
const newHandshakeAfter = wire.KeepaliveTimeout + wire.RekeyTimeout

// Timers are the timers of one peer. The zero Timers is ready, with nothing armed.
type Timers struct {
	// Hot: written by the packet path. A moment of zero means disarmed.
	firstSent     atomic.Int64 // when data was first sent since anything was received: arms the new handshake
	firstReceived atomic.Int64 // 2 × when data was first received since anything was sent, + 1 if more came: arms the keepalive
	lastPacket    atomic.Int64 // when a packet last went in either direction; kept only while interval isn't 0
	interval      atomic.Int64 // of persistent keepalives, a time.Duration; 0: off

	// Cold: guarded by the peer's lock. A moment of zero means disarmed.
	newHandshake mono.Time // when firstSent leads to a handshake, once its jitter is known
	retransmit   mono.Time // when the initiation is repeated or, if deferred, first sent
	eraseKeys    mono.Time
	lastSent     mono.Time // when the last initiation or response was sent; zero: never
	attempts     int32     // repeats of the initiation
	deferred     bool
}

// DataSent records that a transport packet other than a keepalive was sent. It is hot.
func (t *Timers) DataSent(now mono.Time) (due mono.Time) {
	if t.firstSent.Load() == 0 && t.firstSent.CompareAndSwap(0, int64(now)) {
		return now.Add(newHandshakeAfter) // the jitter comes later, in Look
	}
	return mono.Never
}

// DataReceived records that a transport packet other than a keepalive was received and authenticated. It is hot.
// Keepalives are left out so that they never answer each other.
func (t *Timers) DataReceived(now mono.Time) (due mono.Time) {
	v := t.firstReceived.Load()
	if v == 0 {
		if t.firstReceived.CompareAndSwap(0, int64(now)<<1) {
			return now.Add(wire.KeepaliveTimeout)
		}
		v = t.firstReceived.Load()
	}
	if v != 0 && v&1 == 0 {
		t.firstReceived.CompareAndSwap(v, v|1) // fails if something was sent just now, or another call did the same
	}
	return mono.Never
}

// AuthenticatedSent records that any authenticated packet was sent: data, a keepalive or a message of the handshake. It
// is hot.
func (t *Timers) AuthenticatedSent(now mono.Time) (due mono.Time) {
	if t.firstReceived.Load() != 0 {
		t.firstReceived.Store(0)
	}
	t.deferPersistent(now)
	return mono.Never
}

// AuthenticatedReceived records that any authenticated packet was received: data, a keepalive or a message of the
// handshake. It is hot.
func (t *Timers) AuthenticatedReceived(now mono.Time) (due mono.Time) {
	if t.firstSent.Load() != 0 {
		t.firstSent.Store(0)
	}
	t.deferPersistent(now)
	return mono.Never
}

// deferPersistent defers the persistent keepalive. It arms nothing: while there is an interval, the last Look or
// SetPersistentKeepalive returned a moment that is no later. Of two calls at once the last to store wins, which moves the
// keepalive by no more than the difference of their now.
func (t *Timers) deferPersistent(now mono.Time) {
	if t.interval.Load() != 0 {
		t.lastPacket.Store(int64(now))
	}
}

// SetPersistentKeepalive sets how long there may be no packet in either direction until a keepalive is sent; 0 switches
// that off. The time runs from the last packet if keepalives were on before, so that a configuration applied again and
// again doesn't defer them without end; else from now. The caller sends the first at once.
func (t *Timers) SetPersistentKeepalive(now mono.Time, interval time.Duration) (due mono.Time) {
	if interval <= 0 {
		t.interval.Store(0)
		return mono.Never
	}
	if t.interval.Load() == 0 {
		t.lastPacket.Store(int64(now))
	}
	t.interval.Store(int64(interval))
	return mono.Time(t.lastPacket.Load()).Add(interval)
}

// HandshakeInitiated records that an initiation was sent. It is repeated after RekeyTimeout and jitter, which is
// random, at least 0 and at most [wire.RekeyTimeoutJitterMax]. §6.1, §6.4.
func (t *Timers) HandshakeInitiated(now mono.Time, jitter time.Duration) (due mono.Time) {
	t.lastSent = now
	t.retransmit, t.deferred = now.Add(wire.RekeyTimeout+jitter), false
	return t.retransmit
}

// HandshakeSent records that a handshake message was sent that isn't to be repeated: a response. No initiation may be
// sent for RekeyTimeout. §6.1.
func (t *Timers) HandshakeSent(now mono.Time) {
	t.lastSent = now
	if t.retransmit != 0 {
		t.retransmit = max(t.retransmit, now.Add(wire.RekeyTimeout))
	}
}

// InitiationDeferred records that an initiation is wanted but may not be sent yet ([Timers.MayInitiate]). Look asks for
// it once it may, unless a handshake completes before.
func (t *Timers) InitiationDeferred(jitter time.Duration) (due mono.Time) {
	if t.retransmit == 0 {
		t.retransmit, t.deferred = t.lastSent.Add(wire.RekeyTimeout+jitter), true
	}
	return t.retransmit
}

// InitiationPaced records that an initiation is wanted, whose turn comes at that moment. Look asks for it then, unless a
// handshake completes before.
func (t *Timers) InitiationPaced(at mono.Time) (due mono.Time) {
	t.retransmit, t.deferred = at, true
	return at
}

// HandshakeComplete records that a handshake was completed: a response was consumed, or the first packet of a session
// confirmed our own.
func (t *Timers) HandshakeComplete(_ mono.Time) {
	t.retransmit, t.attempts = 0, 0
}

// SessionDerived records that a session was derived, so that key material is erased EraseKeysAfter from now. §6.3.
func (t *Timers) SessionDerived(now mono.Time) (due mono.Time) {
	t.eraseKeys = now.Add(wire.EraseKeysAfter)
	return t.eraseKeys
}

// ResetAttempts sets the count of attempts to zero, because there is new data to send that wants a handshake. §6.4.
func (t *Timers) ResetAttempts() { t.attempts = 0 }

// HandshakeAttempts returns how often the initiation has been repeated without success.
func (t *Timers) HandshakeAttempts() int { return int(t.attempts) }

// LastHandshakeSent returns when the last initiation or response was sent; zero: never.
func (t *Timers) LastHandshakeSent() mono.Time { return t.lastSent }

// MayInitiate reports whether RekeyTimeout has passed since the last initiation or response was sent. §6.1.
func (t *Timers) MayInitiate(now mono.Time) bool {
	return t.lastSent == 0 || now.Sub(t.lastSent) >= wire.RekeyTimeout
}

// Stop disarms everything, switches persistent keepalives off and forgets the last initiation: the peer is removed, or
// the device down. A hot call that runs at the same moment may arm something again; it is harmless to Look or not.
func (t *Timers) Stop() {
	t.interval.Store(0)
	t.firstSent.Store(0)
	t.firstReceived.Store(0)
	t.newHandshake, t.retransmit, t.eraseKeys, t.lastSent, t.attempts = 0, 0, 0, 0, 0
}

// Look returns what is to be done now, and the moment by which it must be called again at the latest, Never when
// nothing is armed. jitter is random, at least 0 and at most [wire.RekeyTimeoutJitterMax].
//
// It records each action as done. The caller then records what was sent, as always, by the methods above.
func (t *Timers) Look(now mono.Time, jitter time.Duration) (do Actions, next mono.Time) {
	next = mono.Never
	wait := func(at mono.Time) bool {
		if at > now {
			next = min(next, at)
		}
		return at > now
	}
	if t.eraseKeys != 0 && !wait(t.eraseKeys) {
		t.eraseKeys = 0
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
			t.firstReceived.Store(0) // there is no session to send a keepalive in
			if t.eraseKeys == 0 {
				// What an unfinished handshake stored is erased, too. Kernel: wg_expired_retransmit_handshake.
				t.eraseKeys = now.Add(wire.EraseKeysAfter)
				next = min(next, t.eraseKeys)
			}
		}
	}
	if first := t.firstSent.Load(); first == 0 || wait(mono.Time(first).Add(newHandshakeAfter)) {
		t.newHandshake = 0
	} else {
		if t.newHandshake == 0 {
			t.newHandshake = mono.Time(first).Add(newHandshakeAfter + jitter)
		}
		if !wait(t.newHandshake) {
			t.newHandshake = 0
			// Lost if something was received just now.
			if t.firstSent.CompareAndSwap(first, 0) {
				// An attempt of its own, not a retry: §6.4, kernel wg_expired_new_handshake.
				t.attempts = 0
				do = do&^Retry | ClearSource | Initiate
			}
		}
	}
	for v := t.firstReceived.Load(); v != 0 && !wait(mono.Time(v>>1).Add(wire.KeepaliveTimeout)); v = t.firstReceived.Load() {
		again := int64(0)
		if v&1 != 0 {
			// More was received: armed again, until AuthenticatedSent. Kernel: timer_need_another_keepalive.
			again = int64(now) << 1
		}
		if t.firstReceived.CompareAndSwap(v, again) { // else something was sent or received just now
			do |= Keepalive
		}
	}
	if interval := time.Duration(t.interval.Load()); interval != 0 {
		if !wait(mono.Time(t.lastPacket.Load()).Add(interval)) {
			// Counted as sent, so that the next comes even if this one can't be sent.
			t.lastPacket.Store(int64(now))
			wait(now.Add(interval))
			do |= Keepalive
		}
	}
	return do, next
}
