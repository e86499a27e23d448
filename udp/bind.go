package udp

import (
	"fmt"
	"syscall"
)

// A setupError is why a socket was refused before it was bound: by [Host.Control], or because it couldn't be bound to
// [Host.Interface]. What it holds is hidden from errors.Is until Listen returns it: whatever that is, it is no reason to
// do without the socket's address family or to try another port.
type setupError struct{ err error }

func (e *setupError) Error() string { return e.err.Error() }

// setUp binds a socket to h.Interface and calls h.Control, before it is bound to its port.
func (h *Host) setUp(network, address string, c syscall.RawConn) error {
	if h.Interface != "" {
		if err := bindToInterface(network, c, h.Interface); err != nil {
			return fmt.Errorf("bind to interface %s: %w", h.Interface, err)
		}
	}
	if h.Control != nil {
		return h.Control(network, address, c)
	}
	return nil
}
