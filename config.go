package throughline

import (
	"net/netip"
	"time"
)

// A Config is a change to a device: what is nil or empty stays as it is. It is applied whole or not at all.
type Config struct {
	PrivateKey   *PrivateKey // the zero key takes the device's key away; others are clamped
	ListenPort   *uint16     // 0 picks a free port
	Mark         *uint32     // the firewall mark of outgoing datagrams; 0 takes it away
	ReplacePeers bool        // remove every peer that Peers doesn't name
	Peers        []PeerConfig
}

// A PeerConfig is a change to one peer of a device. A peer that is not there is added, unless UpdateOnly or Remove is
// set. The device's own public key is ignored as a peer.
type PeerConfig struct {
	PublicKey           PublicKey
	Remove              bool            // remove the peer; the rest is not looked at
	UpdateOnly          bool            // do nothing when the peer is not there
	PresharedKey        *PresharedKey   // the zero key takes it away
	Endpoint            *netip.AddrPort // an IPv4-mapped IPv6 address is unmapped
	PersistentKeepalive *time.Duration  // whole seconds, 0 (off) to 65535 s
	ReplaceAllowedIPs   bool            // forget the allowed IPs the peer has, first
	RemoveAllowedIPs    []netip.Prefix  // taken from the peer before AllowedIPs are added; those it doesn't have are ignored
	AllowedIPs          []netip.Prefix  // masked to their length; a prefix another peer has moves to this one
}

// A Status is what a device is and does at one moment.
type Status struct {
	PrivateKey PrivateKey // zero: none is set
	PublicKey  PublicKey
	ListenPort uint16 // the port in use when the device is up, else the one asked for
	Mark       uint32
	Peers      []PeerStatus      // in the order they were added
	Drops      map[string]uint64 // packets that went no further, by reason; those that occurred

	// Cipher names the way in which packets are sealed and opened, one of [Ciphers].
	Cipher string

	// Offloads tells of each work that the kernel can do for many packets at once whether it is "on", "off" or, because
	// the kernel refused it when it was tried, "withdrawn". The TUN's are tso, uso, tcp-gro and udp-gro; those of the
	// sockets, gso and gro, are there while the device is up. What a TUN or network doesn't know isn't listed.
	Offloads map[string]string
}

// A PeerStatus is what a peer is and did at one moment.
type PeerStatus struct {
	PublicKey           PublicKey
	PresharedKey        PresharedKey   // zero: none is set
	Endpoint            netip.AddrPort // invalid while none is known
	PersistentKeepalive time.Duration  // 0: off
	LastHandshake       time.Time      // zero: never
	RxBytes, TxBytes    uint64         // whole datagrams, as on the wire without outer headers
	AllowedIPs          []netip.Prefix // sorted
}
