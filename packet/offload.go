package packet

import (
	"fmt"
	"iter"
	"strings"
)

// An Offload is a set of the kinds of work that a kernel can do for many packets at once. Configuration, status,
// environment and flags all spell them as [Offload.String] does.
type Offload uint8

// The offloads. The first four are a TUN's, the last two a socket's.
const (
	TSO    Offload = 1 << iota // TCP segments are read from the TUN as one super-packet
	USO                        // UDP datagrams are read from the TUN as one super-packet
	TCPGRO                     // TCP segments are written to the TUN merged
	UDPGRO                     // UDP datagrams are written to the TUN merged
	GSO                        // datagrams are sent to the socket as one
	GRO                        // datagrams are received from the socket as one

	TUNOffloads    = TSO | USO | TCPGRO | UDPGRO
	SocketOffloads = GSO | GRO
	AllOffloads    = TUNOffloads | SocketOffloads
)

// offloadNames are the names of the single offloads, in the order of their bits.
var offloadNames = [...]string{"tso", "uso", "tcp-gro", "udp-gro", "gso", "gro"}

// ParseOffloads reads a list of names with commas or spaces between them; "all" stands for every offload, and the empty
// list for none.
func ParseOffloads(list string) (Offload, error) {
	var set Offload
names:
	for name := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		if name == "all" {
			set |= AllOffloads
			continue
		}
		for i, n := range offloadNames {
			if n == name {
				set |= 1 << i
				continue names
			}
		}
		return 0, fmt.Errorf("%q is no offload: use %s or all, with commas between", name, strings.Join(offloadNames[:], ", "))
	}
	return set, nil
}

// Each iterates over the single offloads in the set, in the order in which they are declared.
func (o Offload) Each() iter.Seq[Offload] {
	return func(yield func(Offload) bool) {
		for i := range offloadNames {
			if one := Offload(1) << i; o&one != 0 && !yield(one) {
				return
			}
		}
	}
}

// String returns the names of the offloads in the set, with commas between them.
func (o Offload) String() string {
	var names []string
	for i, n := range offloadNames {
		if o&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, ",")
}

// MarshalText returns what String does.
func (o Offload) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads what [ParseOffloads] does.
func (o *Offload) UnmarshalText(text []byte) (err error) {
	*o, err = ParseOffloads(string(text))
	return err
}

// OffloadStates is the state of each single offload of a TUN, of sockets, or of both.
type OffloadStates map[Offload]OffloadState

// An OffloadState says whether an offload is in use.
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

// MarshalText returns what String does.
func (s OffloadState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *OffloadState) UnmarshalText(text []byte) error {
	for state := range OffloadWithdrawn + 1 {
		if state.String() == string(text) {
			*s = state
			return nil
		}
	}
	return fmt.Errorf("packet: %q is no state of an offload", text)
}

// Merge returns the common state of two sockets' offload: on when both are, withdrawn when one is.
func (s OffloadState) Merge(t OffloadState) OffloadState {
	if s == OffloadWithdrawn || t == OffloadWithdrawn {
		return OffloadWithdrawn
	}
	return min(s, t)
}
