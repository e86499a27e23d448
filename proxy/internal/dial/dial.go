// Package dial reaches a host by name or address: it asks for the addresses of a name, orders them by family, and tries
// them one by one, each with its share of the time.
//
// A Dialer doesn't change, and may be used by any number of goroutines; it starts none. At most 8 addresses are tried.
package dial

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"
)

// A Dialer connects through one network.
type Dialer struct {
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
	var first error
	for i, a := range addrs {
		one, stop := share(ctx, len(addrs)-i)
		c, err := d.Network.DialContext(one, network, net.JoinHostPort(a.String(), port))
		stop()
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

// share returns the context of the next of n attempts: it has its part of what time is left, but not less than 2 s.
func share(ctx context.Context, n int) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok || n == 1 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, max(time.Until(end)/time.Duration(n), 2*time.Second))
}

// maxAddresses bounds how many addresses of a name are tried.
const maxAddresses = 8

// Lookup returns the addresses of a host, at least one, the preferred family first.
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
	var first, second []netip.Addr
	for _, a := range found {
		if a = a.Unmap(); a.Is4() == d.PreferIPv4 {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	all := slices.Concat(first, second)
	return all[:min(len(all), maxAddresses)], nil
}
