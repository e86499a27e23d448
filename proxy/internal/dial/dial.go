// Package dial reaches a host by name or address: it asks for the addresses of a name, orders them with their families in
// turn, and lets the attempts to connect to them race, each with a start on the next.
//
// A Dialer doesn't change, and may be used by any number of goroutines. At most 8 addresses are tried, each by a goroutine
// that has ended when Dial returns.
package dial

import (
	"context"
	"net"
	"net/netip"
	"time"
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

// attemptDelay is how long an attempt to connect has the field for itself. RFC 8305 §5.
const attemptDelay = 250 * time.Millisecond

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
	to := make([]string, len(addrs))
	for i, a := range addrs {
		to[i] = net.JoinHostPort(a.String(), port)
	}
	if network == "udp" || len(to) == 1 {
		return d.inTurn(ctx, network, to)
	}
	return d.race(ctx, network, to)
}

// inTurn is for what needs no race: a UDP socket connects, or finds that it has no route, without waiting for anybody.
func (d *Dialer) inTurn(ctx context.Context, network string, to []string) (net.Conn, error) {
	var first error
	for _, address := range to {
		c, err := d.Network.DialContext(ctx, network, address)
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// race begins an attempt when the one before has had its time, or when one has failed. The first to connect is kept; the
// others are cancelled, and closed where they had connected all the same.
func (d *Dialer) race(ctx context.Context, network string, to []string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		attempt int
		conn    net.Conn
		err     error
	}
	var (
		results      = make(chan result)
		pace         = time.NewTimer(0)
		begun, ended int
		kept         net.Conn
		first        error
	)
	defer pace.Stop()
	more := func() bool { return begun == 0 || kept == nil && begun < len(to) && ctx.Err() == nil }
	for more() || ended < begun {
		select {
		case <-pace.C:
			if !more() {
				continue
			}
			i := begun
			begun++
			go func() {
				c, err := d.Network.DialContext(ctx, network, to[i])
				results <- result{i, c, err}
			}()
			pace.Reset(attemptDelay)
		case r := <-results:
			ended++
			switch {
			case r.err != nil:
				if r.attempt == 0 {
					first = r.err
				}
				pace.Reset(0)
			case kept == nil:
				kept = r.conn
				cancel()
			default:
				r.conn.Close()
			}
		}
	}
	if kept != nil {
		return kept, nil
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
	var of [2][]netip.Addr // the preferred family, the other
	for _, a := range found {
		a = a.Unmap()
		i := 0
		if a.Is4() != d.PreferIPv4 {
			i = 1
		}
		of[i] = append(of[i], a)
	}
	var all []netip.Addr
	for i := range max(len(of[0]), len(of[1])) {
		for _, as := range of {
			if i < len(as) {
				all = append(all, as[i])
			}
		}
	}
	return all[:min(len(all), maxAddresses)], nil
}
