// Package peer is one peer: its handshakes, keypairs, cookie, timers, endpoint, counters of bytes, and staged packets.
//
// It has no clock, no lock and no goroutine of its own. Its fields are of three kinds: atomics, which any goroutine may
// use; and two groups that the owner guards by a lock each, as the fields say. An idle peer costs only little memory:
// what a handshake or a session needs is allocated when it begins and freed when it ends.
//
// Limits: at most [wire.MaxStaged] packets are staged (package staging), [wire.MaxHandshakeAttempts] handshakes are tried in a row, and
// five keypairs are kept, two of them Late.
package peer

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"throughline/internal/mono"
	"throughline/internal/session"
	"throughline/internal/staging"
	"throughline/internal/timers"
	"throughline/packet"
	"throughline/wgtypes"
)

// A Peer is the state of one peer.
//
// After a restart, or when the peer was added anew, no timestamp of its initiations is known, and every old one is newer
// than none. Whoever recorded some can have them answered, one after the other, but can't use the sessions. So until
// Proven an initiation doesn't replace an endpoint: the first packet in its session does. (It sets one that isn't known,
// which takes nothing away and lets packets for the peer wait; the response goes to where the initiation came from in any
// case.) From then on what is accepted is newer than an initiation that was no replay. Whitepaper §5.1.
type Peer struct {
	Public wgtypes.PublicKey // never changes

	// Any goroutine, any time.
	Timers        timers.Timers                   // its hot half; the cold half is guarded as Keypairs is
	Sending       atomic.Pointer[session.Keypair] // the snapshot of Keypairs.Current that the packet path sends with
	Waiting       atomic.Bool                     // packets are staged or being flushed: new ones queue behind them
	Proven        atomic.Bool                     // the peer has used a session that it began: see below
	Rx, Tx        atomic.Uint64                   // bytes of whole datagrams
	endpoint      atomic.Pointer[packet.Endpoint] // what it points to never changes; nil: unknown
	lastHandshake atomic.Int64                    // when the last handshake completed, Unix nanoseconds; 0: never

	// Guarded by the owner's handshake lock, which is held through Diffie-Hellman.
	Handshake Handshake

	// Guarded by the owner's state lock, which is held for moments only.
	Keypairs session.Keypairs
	Staged   staging.Queue // and by its store: packets may give way at any time
	Flushing bool          // a goroutine is sending what was staged
	Removed  bool          // it was removed from the device: it begins no handshake and stages no packet any more

	// Guarded by the owner's configuration lock.
	Keepalive  time.Duration  // persistent keepalive; 0: off
	AllowedIPs []netip.Prefix // unsorted
}

// LogName returns the public key as logs show it: enough of it to distinguish peers.
func (p *Peer) LogName() string {
	s := p.Public.String()
	return s[:4] + "…" + s[39:43]
}

// Reserve reserves n counters of the session that the peer is sent to with; false when there is none. A session with
// fewer counters left has reached its end: it doesn't send the few that it might, lest it be neither used nor renewed. Any
// goroutine may call it.
func (p *Peer) Reserve(now mono.Time, n int) (*session.Keypair, uint64, bool) {
	kp := p.Sending.Load()
	if kp == nil || !kp.CanSend(now) {
		return nil, 0, false
	}
	counter, ok := kp.Reserve(n)
	if !ok {
		kp.Expire()
	}
	return kp, counter, ok
}

// DeferInitiation arms an initiation for what is staged, in case the handshake under way, which may be the peer's,
// doesn't complete. It returns when that is due, Never if nothing was armed. The state lock is held.
func (p *Peer) DeferInitiation(now mono.Time, jitter time.Duration) (due mono.Time) {
	if kp := p.Sending.Load(); p.Staged.Len() == 0 || kp != nil && kp.CanSend(now) {
		return mono.Never
	}
	return p.Timers.InitiationDeferred(jitter)
}

// Endpoint returns the peer's endpoint, nil while it isn't known. What it points to never changes.
func (p *Peer) Endpoint() *packet.Endpoint { return p.endpoint.Load() }

// SetEndpoint sets the peer's endpoint to a copy of ep, and reports whether another address or port was known before. The
// packet path calls it for every train, so it allocates only on a change.
func (p *Peer) SetEndpoint(ep *packet.Endpoint) (moved bool) {
	old := p.endpoint.Load()
	if old != nil && *old == *ep {
		return false
	}
	fresh := *ep
	p.endpoint.Store(&fresh)
	return old != nil && old.Addr != ep.Addr
}

// ClearSource clears the source, the local address that the peer is sent to from, of the endpoint seen, which Endpoint
// returned: the kernel then chooses one. If the endpoint has changed since, nothing happens.
func (p *Peer) ClearSource(seen *packet.Endpoint) {
	if seen != nil && (seen.Src.IsValid() || seen.SrcIf != 0) {
		p.endpoint.CompareAndSwap(seen, &packet.Endpoint{Addr: seen.Addr})
	}
}

// Status returns what the peer is and did. The handshake lock and the configuration lock are held.
func (p *Peer) Status() wgtypes.PeerStatus {
	s := wgtypes.PeerStatus{
		PublicKey: p.Public, PersistentKeepalive: p.Keepalive, LastHandshake: p.LastHandshake(),
		RxBytes: p.Rx.Load(), TxBytes: p.Tx.Load(), AllowedIPs: slices.Clone(p.AllowedIPs),
	}
	slices.SortFunc(s.AllowedIPs, netip.Prefix.Compare)
	if to := p.Endpoint(); to != nil {
		s.Endpoint = to.Addr
	}
	if p.Handshake.Preshared != nil {
		s.PresharedKey = *p.Handshake.Preshared
	}
	return s
}

// LastHandshake returns when the last handshake completed, the zero Time if none has.
func (p *Peer) LastHandshake() time.Time {
	if ns := p.lastHandshake.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// HandshakeCompleted records when a handshake completed.
func (p *Peer) HandshakeCompleted(at time.Time) { p.lastHandshake.Store(at.UnixNano()) }
