// Package association carries datagrams between one client of a SOCKS5 proxy and any number of targets: RFC 1928 §7.
//
// An [Association] is served once, by the caller's goroutine and two more, which have ended when Serve returns. It has at most two
// buffers of 64 KiB, besides what package names holds. Nothing is promised to datagrams: what can't go on at once is dropped, and
// counted.
package association

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"throughline/proxy/internal/datagram"
	"throughline/proxy/internal/idle"
	"throughline/proxy/internal/names"
	"throughline/proxy/internal/socks5"
)

var errUnclaimed = errors.New("no datagram came in time to say which source is the client's")

const maxReadFailure = 16 // in a row, before a socket is given up: an ICMP error may be one

// An Association lives as long as the connection that asked for it, and moves or is asked something before the idle time-out.
//
// Targets see one socket whatever they are, and any of them may answer, as with a socket of the client's own. The first
// source that sends from the client's address is the client from then on, unless one was declared; no other is sent anything.
type Association struct {
	Control     net.Conn       // the connection
	Inner       net.PacketConn // to the client
	Outer       net.PacketConn // to the targets
	Lookup      func(ctx context.Context, host string) ([]netip.Addr, error)
	Client      netip.Addr    // the client's address
	IdleTimeout time.Duration // 0: for ever
	FirstWithin time.Duration // how soon the first datagram must come where no source was declared; 0: whenever it likes

	ToTarget, ToClient *atomic.Uint64 // bytes
	Dropped            *atomic.Uint64 // datagrams

	client atomic.Pointer[netip.AddrPort]
	until  time.Time // for the first datagram; zero: there is no bound
	clock  *idle.Clock
	names  *names.Names
}

// Declare says where the client's datagrams will come from, before Serve.
func (a *Association) Declare(from netip.AddrPort) { a.client.Store(&from) }

// Serve carries datagrams until the connection ends, or the association does. The sockets are closed when it returns.
func (a *Association) Serve(ctx context.Context) error {
	a.clock = idle.New(a.IdleTimeout)
	if a.FirstWithin > 0 && a.client.Load() == nil {
		a.until = time.Now().Add(a.FirstWithin)
	}
	a.names = names.New(ctx, a.Lookup, a.toTarget, func(datagrams int) { a.Dropped.Add(uint64(datagrams)) })
	defer a.names.Close()
	done := make(chan struct{}, 2)
	go func() { a.pump(a.Inner, a.fromClient); done <- struct{}{} }()
	go func() { a.pump(a.Outer, a.fromTarget); done <- struct{}{} }()
	err := a.watch()
	a.Inner.Close()
	a.Outer.Close()
	<-done
	<-done
	return err
}

// watch returns when the connection ends, anything comes on it, or nothing has moved for the idle time-out.
func (a *Association) watch() error {
	var b [1]byte
	for {
		var deadline time.Time
		if tick := a.clock.Tick(); tick > 0 {
			deadline = time.Now().Add(tick)
		}
		unclaimed := !a.until.IsZero() && a.client.Load() == nil
		if unclaimed && (deadline.IsZero() || a.until.Before(deadline)) {
			deadline = a.until
		}
		a.Control.SetReadDeadline(deadline)
		switch n, err := a.Control.Read(b[:]); {
		case n > 0:
			return errors.New("the client sent data on the connection of an association")
		case err == io.EOF:
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case unclaimed && a.client.Load() == nil && !time.Now().Before(a.until):
			return errUnclaimed
		case a.clock.Expired():
			return idle.ErrIdle
		}
	}
}

// pump reads one of the sockets until it fails, and ends the association then.
func (a *Association) pump(pc net.PacketConn, each func(b []byte, n int, from netip.AddrPort)) {
	b := datagram.Buffers.Get().(*datagram.Buffer)
	defer datagram.Buffers.Put(b)
	defer a.Control.Close()
	for failures := 0; ; {
		n, from, err := datagram.Receive(pc, b[datagram.Headroom:])
		if err != nil {
			if failures++; failures > maxReadFailure || errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		failures = 0
		each(b[:], n, from)
	}
}

// fromClient takes the header off a datagram of the client, and sends it to the address in it.
func (a *Association) fromClient(b []byte, n int, from netip.AddrPort) {
	address, data, err := socks5.ParseDatagram(b[datagram.Headroom : datagram.Headroom+n])
	if err != nil || !a.isClient(from) {
		a.Dropped.Add(1)
		return
	}
	if to, err := netip.ParseAddrPort(address); err == nil {
		a.toTarget(data, to)
		return
	}
	host, service, err := net.SplitHostPort(address)
	port, perr := strconv.ParseUint(service, 10, 16)
	if err != nil || perr != nil {
		a.Dropped.Add(1)
		return
	}
	a.names.Send(host, uint16(port), data)
}

// isClient reports whether a datagram is the client's, which its first one says.
func (a *Association) isClient(from netip.AddrPort) bool {
	if from.Addr().WithZone("") != a.Client {
		return false
	}
	c := a.client.Load()
	if c == nil {
		if !a.until.IsZero() && !time.Now().Before(a.until) {
			return false
		}
		a.client.Store(&from)
		return true
	}
	return c.Port() == from.Port()
}

// toTarget sends a datagram; there is no port 0 to send to.
func (a *Association) toTarget(data []byte, to netip.AddrPort) {
	if to.Port() == 0 || datagram.Send(a.Outer, data, to) != nil {
		a.Dropped.Add(1)
		return
	}
	a.ToTarget.Add(uint64(len(data)))
	a.clock.Moved()
}

// fromTarget puts a header before a datagram, where there is room for it, and sends it to the client.
func (a *Association) fromTarget(b []byte, n int, from netip.AddrPort) {
	to := a.client.Load()
	if to == nil {
		a.Dropped.Add(1)
		return
	}
	var h [datagram.Headroom]byte
	header := socks5.AppendHeader(h[:0], from)
	at := datagram.Headroom - len(header)
	copy(b[at:], header)
	if datagram.Send(a.Inner, b[at:datagram.Headroom+n], *to) != nil {
		a.Dropped.Add(1)
		return
	}
	a.ToClient.Add(uint64(n))
	a.clock.Moved()
}
