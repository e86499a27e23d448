package throughline

import (
	"context"
	"fmt"
	"iter"
	"net"

	"throughline/internal/broadcast"
	"throughline/internal/engine"
	"throughline/wgtypes"
)

// ErrNoPeer is what methods return, wrapped, for a public key that no peer of the device has.
var ErrNoPeer = engine.ErrNoPeer

// Peer returns what one peer is and did at this moment, at less cost than a Status; false if there is no such peer.
func (d *Device) Peer(key PublicKey) (PeerStatus, bool) { return d.engine.Peer(key) }

// Peers iterates over the peers, in the order in which they were added. It holds no lock over the whole: each peer is as it
// is when its turn comes, one that is removed meanwhile is left out, one that is added meanwhile isn't seen.
func (d *Device) Peers() iter.Seq[PeerStatus] { return d.engine.Peers() }

// Keepalive sends a keepalive to a peer now; without a session it begins a handshake, whose completion sends one. It waits
// for neither. While the device is down nothing is sent.
func (d *Device) Keepalive(key PublicKey) error { return wrap(d.engine.Keepalive(key)) }

// WaitHandshake waits until there is a session with a peer, and begins a handshake if there is none. It returns nil at
// once if there is one. While the device is down, or the peer doesn't answer, it goes on waiting: ctx says for how long.
// A peer that isn't there, or is removed meanwhile, is an error that wraps [ErrNoPeer]; a device that was closed, one
// that wraps net.ErrClosed.
func (d *Device) WaitHandshake(ctx context.Context, key PublicKey) error {
	// An event that finds the subscription full is lost, but each that is read has Established asked again, and those
	// that filled it are read afterwards.
	s := d.engine.Subscribe(16)
	defer s.Close()
	for ask := true; ; {
		if done, err := d.engine.Established(key); done || err != nil {
			return wrap(err)
		}
		if ask {
			if err := d.engine.Keepalive(key); err != nil {
				return wrap(err)
			}
		}
		select {
		case event, ok := <-s.Events():
			if !ok {
				return wrap(net.ErrClosed)
			}
			ask = event.Kind == EventUp || event.Kind == EventPeerSilent && event.Peer == key
		case <-ctx.Done():
			return fmt.Errorf("throughline: no handshake with peer %v: %w", key, context.Cause(ctx))
		}
	}
}

// An Event is something that happened to a device, or to one of its peers.
type Event = wgtypes.Event

// An EventKind says what happened.
type EventKind = wgtypes.EventKind

// What can happen.
const (
	EventUp                = wgtypes.Up                // the device opened its sockets
	EventDown              = wgtypes.Down              // the device closed its sockets, and forgot its sessions
	EventHandshakeComplete = wgtypes.HandshakeComplete // a session with the peer was made or renewed
	EventEndpointMoved     = wgtypes.EndpointMoved     // something authenticated came from the peer from another address or port than before
	EventPeerSilent        = wgtypes.PeerSilent        // the peer answered no initiation for a minute and a half
)

// A Subscription receives what happens to a device from when it was made. Its methods are safe for concurrent use.
type Subscription struct {
	events *broadcast.Subscription[Event]
}

// Subscribe returns a subscription to the device's events, in place of asking for its status again and again. At most
// size events wait to be read; when there are as many, newer ones are lost, and counted: the device never waits for a
// reader.
func (d *Device) Subscribe(size int) *Subscription { return &Subscription{d.engine.Subscribe(size)} }

// Events returns the channel of the events, always the same. It is closed when the device or the subscription is.
func (s *Subscription) Events() <-chan Event { return s.events.Events() }

// Lost returns how many events were lost because too many waited.
func (s *Subscription) Lost() uint64 { return s.events.Lost() }

// Close ends the subscription and closes its channel. It may be called more than once.
func (s *Subscription) Close() { s.events.Close() }
