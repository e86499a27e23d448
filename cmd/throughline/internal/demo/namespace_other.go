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

// A namespace is what other systems than Linux have not.
type namespace struct {
	*netstack.Stack // nil: there never is one
	path            string
}

func newNamespace() (*namespace, error) {
	return nil, fmt.Errorf("network namespaces are Linux's: %w", errors.ErrUnsupported)
}

func (n *namespace) open(string, netip.Prefix, packet.Offload) (tun.Device, error) {
	return nil, errors.ErrUnsupported
}
