package udp

import "throughline/packet"

// An Offloader is a [Conn] that knows the state of its offloads, as those of a [Host] can.
type Offloader interface {
	// Offloads returns the state of each of the sockets' offloads ([packet.SocketOffloads]) over both families, as a map of
	// the caller's own: an offload is on when it is so in each family that is there, and withdrawn when it is so in one.
	Offloads() packet.OffloadStates
}
