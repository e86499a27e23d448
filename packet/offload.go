package packet

// An OffloadState says whether a work that the kernel can do for many packets at once is in use, at either end of a
// batch's way.
type OffloadState uint8

// The states of an offload.
const (
	OffloadOff       OffloadState = iota // switched off, not offered by this kernel, or known to be broken there
	OffloadOn                            // in use
	OffloadWithdrawn                     // it was in use, the kernel then refused it, and it is used no longer
)

// String returns the state as it appears in a status: "off", "on" or "withdrawn".
func (s OffloadState) String() string {
	switch s {
	case OffloadOff:
		return "off"
	case OffloadOn:
		return "on"
	case OffloadWithdrawn:
		return "withdrawn"
	}
	return "unknown"
}

// Merge returns the state over two parts of one end: on when both are, withdrawn when one is.
func (s OffloadState) Merge(t OffloadState) OffloadState {
	if s == OffloadWithdrawn || t == OffloadWithdrawn {
		return OffloadWithdrawn
	}
	return min(s, t)
}
