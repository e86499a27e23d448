//go:build !linux

package demo

import (
	"errors"
	"fmt"
	"net/netip"

	"throughline/netstack"
	"throughline/packet"
	"throughline/tun"
)

// A namespace stands for what only Linux has.
type namespace struct {
	*netstack.Stack // nil: it is never made
	path            string
}

// newNamespace returns an error.
func newNamespace() (*namespace, error) {
	return nil, fmt.Errorf("network namespaces are Linux's: %w", errors.ErrUnsupported)
}

// open returns an error.
func (n *namespace) open(string, netip.Prefix, packet.Offload) (tun.Device, error) {
	return nil, errors.ErrUnsupported
}
