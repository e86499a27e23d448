package udp

import "throughline/packet"

// Offloads are the states of a Conn's offloads, over both families: an offload is on when it is so in each family that
// is there, and withdrawn when it is so in one.
type Offloads struct {
	GSO packet.OffloadState // a train of datagrams is sent as one
	GRO packet.OffloadState // a train of datagrams is received as one
}

// An Offloader is a [Conn] that can tell the state of its offloads, as those of a [Host] can.
type Offloader interface {
	Offloads() Offloads
}
