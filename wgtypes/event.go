package wgtypes

import (
	"net/netip"
	"time"
)

// An Event is something that happened to a device, or to one of its peers.
type Event struct {
	Kind     EventKind      // what happened
	At       time.Time      // when
	Peer     PublicKey      // the peer it happened to; zero for Up and Down
	Endpoint netip.AddrPort // where the peer is: of HandshakeComplete, and of EndpointMoved the new one; else invalid
}

// An EventKind says what happened.
type EventKind uint8

// What can happen.
const (
	Up                EventKind = iota + 1 // the device opened its sockets
	Down                                   // the device closed its sockets, and forgot its sessions
	HandshakeComplete                      // a session with the peer was made or renewed, and can be used in both directions
	EndpointMoved                          // something authenticated came from the peer from another address or port than before
	PeerSilent                             // the peer answered no initiation for a minute and a half: attempts end until there is something to send
)

var eventNames = [...]string{Up: "up", Down: "down", HandshakeComplete: "handshake complete", EndpointMoved: "endpoint moved", PeerSilent: "peer silent"}

// String returns what happened in a few words, in lower case.
func (k EventKind) String() string {
	if int(k) < len(eventNames) && eventNames[k] != "" {
		return eventNames[k]
	}
	return "unknown"
}
