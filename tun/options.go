package tun

import "throughline/packet"

// DefaultMTU is the MTU of a TUN that [Open] creates when Options name none: 1500 less what the tunnel adds over IPv6.
const DefaultMTU = 1420

// MaxMTU is the largest MTU a TUN can have.
const MaxMTU = 65535

// Options say how to open a TUN. The zero Options are the usual.
type Options struct {
	// MTU is the MTU to set. 0: Open sets DefaultMTU, FromFD leaves the interface's.
	MTU int

	// Off holds the offloads not to use; a socket's mean nothing here. Each of the others is used as far as the kernel is
	// found to have it.
	Off packet.Offload
}

// An Offloader is a Device that knows offloads. The devices that [Open] and [FromFD] return on Linux are Offloaders.
type Offloader interface {
	Device

	// Offloads returns the state of each of the device's offloads ([packet.TUNOffloads]), as a map of the caller's own. The
	// states may change while the device works.
	Offloads() packet.OffloadStates
}
