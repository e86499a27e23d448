package engine

import (
	"errors"
	"iter"
	"net"
	"net/netip"
	"time"

	"throughline/internal/broadcast"
	"throughline/packet"
	"throughline/wgtypes"
)

// ErrNoPeer is returned for a public key that no peer has.
var ErrNoPeer = errors.New("no such peer")

// Subscribe returns a subscription to the engine's events, which holds at most size of them. Closing the engine closes
// it.
func (e *Engine) Subscribe(size int) *broadcast.Subscription[wgtypes.Event] {
	return e.events.Subscribe(size)
}

// publish publishes an event of the engine itself.
func (e *Engine) publish(kind wgtypes.EventKind) {
	e.events.Publish(wgtypes.Event{Kind: kind, At: time.Now()})
}

// publishPeer publishes an event of a peer, with its endpoint; nil for none.
func (e *Engine) publishPeer(kind wgtypes.EventKind, p *Peer, at *packet.Endpoint) {
	var endpoint netip.AddrPort
	if at != nil {
		endpoint = at.Addr
	}
	e.events.Publish(wgtypes.Event{Kind: kind, At: time.Now(), Peer: p.Public, Endpoint: endpoint})
}

// recordHandshake records that a handshake with p completed, and publishes it.
func (e *Engine) recordHandshake(p *Peer) {
	p.HandshakeCompleted(time.Now())
	e.publishPeer(wgtypes.HandshakeComplete, p, p.Endpoint())
}

// roam makes the source of an authenticated message the peer's endpoint. Whitepaper §2.1.
func (e *Engine) roam(p *Peer, from *packet.Endpoint) {
	if moved := p.SetEndpoint(from); moved {
		e.publishPeer(wgtypes.EndpointMoved, p, from)
	}
}

// Peer returns what one peer is and did; false if there is none with this key.
func (e *Engine) Peer(key wgtypes.PublicKey) (wgtypes.PeerStatus, bool) {
	e.configMu.RLock()
	defer e.configMu.RUnlock()
	p := e.peers[key]
	if p == nil {
		return wgtypes.PeerStatus{}, false
	}
	return p.status(), true
}

// Peers iterates over the peers that there are when it begins, in the order in which they were added. It holds a lock for
// one peer at a time only: a peer that is removed meanwhile is left out, and each is as it is when its turn comes.
func (e *Engine) Peers() iter.Seq[wgtypes.PeerStatus] {
	return func(yield func(wgtypes.PeerStatus) bool) {
		e.configMu.RLock()
		order := e.order // its elements don't change: a peer is appended, and a removal makes another slice
		e.configMu.RUnlock()
		for _, p := range order {
			e.configMu.RLock()
			there := e.peers[p.Public] == p
			var s wgtypes.PeerStatus
			if there {
				s = p.status()
			}
			e.configMu.RUnlock()
			if there && !yield(s) {
				return
			}
		}
	}
}

// Established reports whether there is a session with a peer that can be used for sending.
func (e *Engine) Established(key wgtypes.PublicKey) (bool, error) {
	e.configMu.RLock()
	defer e.configMu.RUnlock()
	if e.closed {
		return false, net.ErrClosed
	}
	p := e.peers[key]
	if p == nil {
		return false, ErrNoPeer
	}
	kp := p.Sending.Load()
	return kp != nil && kp.CanSend(e.clock()), nil
}

// Keepalive sends a keepalive to a peer, or begins the handshake that it needs, whose completion sends one. It doesn't
// wait for either.
func (e *Engine) Keepalive(key wgtypes.PublicKey) error {
	e.configMu.RLock()
	defer e.configMu.RUnlock()
	if e.closed {
		return net.ErrClosed
	}
	p := e.peers[key]
	if p == nil {
		return ErrNoPeer
	}
	e.work.Add(&p.work, wantKeepalive)
	return nil
}
