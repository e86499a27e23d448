package wgtypes

import (
	"net/netip"
	"time"

	"throughline/packet"
)

// A Status is what a device is and does at one moment.
type Status struct {
	PrivateKey PrivateKey             // zero: none is set
	PublicKey  PublicKey              // zero: there is no private key
	ListenPort uint16                 // the port in use when the device is up, else the one asked for
	Mark       uint32                 // the firewall mark of outgoing datagrams; 0: none
	Peers      []PeerStatus           // in the order they were added
	Drops      map[packet.Drop]uint64 // packets that went no further, by reason; those that occurred

	// CipherImplementation names the code that seals and opens packets, one of those that this machine can run.
	CipherImplementation string

	// Offloads says of each offload whether it is in use. The sockets' are listed while the device is up, and none that
	// the TUN or the network doesn't know.
	Offloads packet.OffloadStates
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

// Wipe overwrites the secret keys in s with zeros: a caller that has used the status keeps no copy of them.
func (s *Status) Wipe() {
	s.PrivateKey.Wipe()
	for i := range s.Peers {
		s.Peers[i].PresharedKey.Wipe()
	}
}
