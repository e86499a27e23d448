package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// A Network is one side of the proxy: the tunnel, or the operating system. Its methods are called concurrently.
//
// Connections have CloseWrite where a half-closed connection is to be carried through, and SetLinger where a reset is;
// reading and writing end with an error once they are closed or their deadline has passed.
type Network interface {
	// DialContext connects "tcp" or "udp" to host:port. It returns soon after ctx has ended.
	DialContext(ctx context.Context, network, address string) (net.Conn, error)

	// Listen accepts "tcp" at host:port; an empty host stands for all addresses.
	Listen(network, address string) (net.Listener, error)

	// ListenPacket opens "udp" at host:port. With an empty host the socket reaches every family the network has.
	ListenPacket(network, address string) (net.PacketConn, error)

	// LookupHost returns the addresses of a name.
	LookupHost(ctx context.Context, name string) ([]netip.Addr, error)

	// Ping sends an echo request and waits for its answer.
	Ping(ctx context.Context, addr netip.Addr) (time.Duration, error)
}

// Host is the network of the operating system. It can't ping, which needs privileges.
type Host struct{}

var _ Network = Host{}

// DialContext connects as [net.Dialer] does.
func (Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// Listen listens as [net.Listen] does.
func (Host) Listen(network, address string) (net.Listener, error) {
	return net.Listen(network, address)
}

// ListenPacket listens as [net.ListenPacket] does.
func (Host) ListenPacket(network, address string) (net.PacketConn, error) {
	return net.ListenPacket(network, address)
}

// LookupHost asks the system's resolver.
func (Host) LookupHost(ctx context.Context, name string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
}

// Ping returns an error that wraps [errors.ErrUnsupported].
func (Host) Ping(_ context.Context, addr netip.Addr) (time.Duration, error) {
	return 0, fmt.Errorf("proxy: ping %v: %w by the host's network", addr, errors.ErrUnsupported)
}
