package packet

import "sync/atomic"

import (
	"fmt"
	"slices"
)

// A Drop says why a packet went no further. A dropped packet is not an error: each reason has a counter, which a status
// shows. The zero Drop is no drop, and Taken isn't one either.
type Drop uint8

// Taken marks a packet that was taken out of its batch and goes on elsewhere: staged for a session to come, or copied to
// the handshake workers. It is no reason and has no counter. Every step of a lane passes the packet over as it does a
// dropped one, by the same comparison of Packet.Drop with zero; only what counts drops has to distinguish the two. See
// [Drop.Counted].
const Taken Drop = 1<<8 - 1

// The reasons, by where they are found.
const (
	// Outbound, from the TUN.
	DropMalformed  Drop = iota + 1 // not an IP packet, or a virtio header that doesn't fit it
	DropNoPeer                     // no peer's allowed IPs contain the destination
	DropNoEndpoint                 // the peer's endpoint is not known yet
	DropStagedFull                 // gave way to newer ones: too many wait for a session
	DropHandshake                  // staged when the handshake was given up
	DropSend                       // the socket refused it
	DropDown                       // the device is down
	DropLoop                       // a datagram of our own to the peer, which a route led back into the tunnel
	DropNoKey                      // the device has no private key

	// Inbound, from the socket.
	DropShort       // too short for any message, or not of the length its type has
	DropType        // no known message type
	DropIndex       // no session or handshake has this receiver index
	DropExpired     // the session is too old, its counter used up, or it was erased meanwhile
	DropTag         // the authentication tag is wrong
	DropReplay      // the counter was received before, or is older than the replay window
	DropInner       // the inner packet is no IP packet, or shorter than its header says
	DropNotAllowed  // the inner source address is not among the peer's allowed IPs
	DropTUN         // the TUN refused it
	DropMAC1        // a handshake message whose mac1 is wrong
	DropMAC2        // under load, and without a valid cookie; a cookie reply was sent
	DropRate        // under load, and more from this source than its rate
	DropQueue       // the handshake queue is full
	DropInitiation  // an initiation that didn't decrypt, from an unknown peer, replayed, or too soon after the last
	DropResponse    // a response that didn't decrypt or answers nothing
	DropCookieReply // a cookie reply that didn't decrypt or answers nothing

	NumDrops // how many there are, with the zero Drop
)

var dropNames = [NumDrops]string{
	0: "none", DropMalformed: "malformed", DropNoPeer: "no_peer", DropNoEndpoint: "no_endpoint",
	DropStagedFull: "staged_full", DropHandshake: "handshake_given_up", DropSend: "send_refused", DropDown: "down",
	DropLoop: "routing_loop", DropNoKey: "no_key",
	DropShort: "short", DropType: "unknown_type", DropIndex: "unknown_index", DropExpired: "expired",
	DropTag: "bad_tag", DropReplay: "replay", DropInner: "bad_inner", DropNotAllowed: "not_allowed",
	DropTUN: "tun_refused", DropMAC1: "bad_mac1", DropMAC2: "no_cookie", DropRate: "rate_limited",
	DropQueue: "queue_full", DropInitiation: "bad_initiation", DropResponse: "bad_response",
	DropCookieReply: "bad_cookie_reply",
}

// Counted reports whether d is a reason, with a counter below NumDrops: neither zero nor Taken.
func (d Drop) Counted() bool { return d != 0 && d != Taken }

// String returns the reason's name as it appears in a status: lower case, with underscores.
func (d Drop) String() string {
	switch {
	case d < NumDrops:
		return dropNames[d]
	case d == Taken:
		return "taken"
	}
	return "unknown"
}

// MarshalText returns what String does.
func (d Drop) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (d *Drop) UnmarshalText(text []byte) error {
	i := slices.Index(dropNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("packet: %q is no reason for a drop", text)
	}
	*d = Drop(i)
	return nil
}

// Drops counts the packets that went no further, by reason. The zero Drops is ready, and safe for concurrent use.
type Drops [NumDrops]atomic.Uint64

// Add counts n packets.
func (d *Drops) Add(why Drop, n int) {
	if n > 0 {
		d[why].Add(uint64(n))
	}
}

// Count counts what was dropped of a batch.
func (d *Drops) Count(b *Batch) {
	for i := range b.Packets {
		if why := b.Packets[i].Drop; why.Counted() {
			d[why].Add(1)
		}
	}
}
