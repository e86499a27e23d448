package tun

import (
	"strings"

	"throughline/packet"
)

// DefaultMTU is the MTU of a TUN that [Open] creates when it is told none: 1500 less what the tunnel adds over IPv6.
const DefaultMTU = 1420

// MaxMTU is the largest MTU a TUN can have.
const MaxMTU = 65535

// Options say how to open a TUN. The zero Options are the usual.
type Options struct {
	// MTU is the MTU to set. 0: Open sets DefaultMTU, FromFD leaves the interface's.
	MTU int

	// Off holds the offloads not to use. Each of the others is used as far as the kernel is found to have it.
	Off Offload
}

// An Offload is a set of ways to have the kernel move many packets as one.
type Offload uint8

// Offloads.
const (
	TSO    Offload = 1 << iota // read TCP super-packets
	USO                        // read UDP super-packets
	TCPGRO                     // write TCP segments merged
	UDPGRO                     // write UDP datagrams merged

	AllOffloads = TSO | USO | TCPGRO | UDPGRO
)

var offloadNames = [...]string{"tso", "uso", "tcp-gro", "udp-gro"}

// String returns the names of the offloads in o, with commas between them.
func (o Offload) String() string {
	var names []string
	for i, n := range offloadNames {
		if o&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, ",")
}

// Offloads are the states of a device's offloads at one moment.
type Offloads struct {
	TSO, USO, TCPGRO, UDPGRO packet.OffloadState // each of the offload of its name
}

// An Offloader is a Device that knows offloads. The devices that [Open] and [FromFD] return on Linux are Offloaders.
type Offloader interface {
	Device

	// Offloads returns the states of the device's offloads; they may change while it works.
	Offloads() Offloads
}
