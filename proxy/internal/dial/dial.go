// Package dial reaches a host by name or address: it asks for the addresses of a name and connects to one of them, as
// internal/eyeballs has it.
//
// A Dialer doesn't change, and may be used by any number of goroutines. At most 8 addresses are tried; nothing runs on
// when Dial has returned.
package dial

import (
	"context"
	"net"
	"net/netip"

	"throughline/internal/eyeballs"
)

// A Dialer connects through one network.
type Dialer struct {
	// Network connects. When ctx ends it returns soon, whatever the far end does.
	Network interface {
		DialContext(ctx context.Context, network, address string) (net.Conn, error)
	}
	Names interface {
		LookupHost(ctx context.Context, name string) ([]netip.Addr, error)
	}
	PreferIPv4 bool
}

// Dial connects to host:port. When no address can be reached, the error is that of the first one.
func (d *Dialer) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs, err := d.Lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	connect := func(ctx context.Context, a netip.Addr) (net.Conn, error) {
		return d.Network.DialContext(ctx, network, net.JoinHostPort(a.String(), port))
	}
	if network == "udp" {
		return inTurn(ctx, addrs, connect)
	}
	c, failures := eyeballs.Dial(ctx, addrs, connect)
	for _, f := range failures {
		if f.Attempt == 0 {
			return nil, f.Err
		}
	}
	return c, nil
}

// inTurn is for what needs no race: a UDP socket connects, or finds that it has no route, without waiting for an answer.
func inTurn(ctx context.Context, to []netip.Addr, connect func(context.Context, netip.Addr) (net.Conn, error)) (net.Conn, error) {
	var first error
	for _, a := range to {
		c, err := connect(ctx, a)
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// maxAddresses bounds how many addresses of a name are tried.
const maxAddresses = 8

// Lookup returns the addresses of a host, at least one. The families take turns, beginning with the preferred one, so that
// a family that leads nowhere costs little time. RFC 8305 §4.
func (d *Dialer) Lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	found, err := d.Names.LookupHost(ctx, host)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, &net.DNSError{Err: "no address", Name: host, IsNotFound: true}
	}
	all := eyeballs.Interleave(found, d.PreferIPv4)
	return all[:min(len(all), maxAddresses)], nil
}
