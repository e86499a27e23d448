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
	"sync/atomic"
	"time"

	"throughline/internal/session"
	"throughline/internal/staging"
	"throughline/internal/timers"
	"throughline/packet"
	"throughline/wgtypes"
)

// A Peer is the state of one peer.
type Peer struct {
	Public wgtypes.PublicKey // never changes

	// Any goroutine, any time.
	Timers        timers.Timers                   // its hot half; the cold half belongs to Keypairs' guard
	Sending       atomic.Pointer[session.Keypair] // the snapshot of Keypairs.Current that the data path sends with
	Waiting       atomic.Bool                     // packets are staged or being flushed: new ones queue behind them
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

// LastHandshake returns when the last handshake completed, the zero Time if none has.
func (p *Peer) LastHandshake() time.Time {
	if ns := p.lastHandshake.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// HandshakeCompleted records when a handshake completed.
func (p *Peer) HandshakeCompleted(at time.Time) { p.lastHandshake.Store(at.UnixNano()) }
