package udp

// An Offload is the state of one work the kernel can do for a socket.
type Offload uint8

// The states of an [Offload].
const (
	Off       Offload = iota // the kernel doesn't offer it, it is broken there, or the Host has it switched off
	On                       // in use
	Withdrawn                // it was in use, the kernel then refused it, and it is used no longer
)

// String returns the state as it appears in a status.
func (o Offload) String() string {
	switch o {
	case Off:
		return "off"
	case On:
		return "on"
	case Withdrawn:
		return "withdrawn"
	}
	return "unknown"
}

// Offloads are the states of a Conn's offloads, over both families: an offload is On when it is so in each family that
// is there, and Withdrawn when it is so in one.
type Offloads struct {
	GSO Offload // a train of datagrams is sent as one
	GRO Offload // a train of datagrams is received as one
}

// An Offloader is a [Conn] that can tell the state of its offloads, as those of a [Host] can.
type Offloader interface {
	Offloads() Offloads
}

// merge returns the state over two families.
func (o Offload) merge(p Offload) Offload {
	if o == Withdrawn || p == Withdrawn {
		return Withdrawn
	}
	return min(o, p)
}
