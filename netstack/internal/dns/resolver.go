package dns

import (
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// attempts is how long a server has to answer, each time it is asked: 10 s in all, as with resolv.conf(5)'s default of two
// attempts of 5 s. The first is shorter, so that a lost datagram or a dead server costs 1 s.
var attempts = [...]time.Duration{time.Second, 3 * time.Second, 6 * time.Second}

// resolutionDelay is how long the answer about one family is waited for, at least, when that about the other has come.
// RFC 8305 §3.
const resolutionDelay = 50 * time.Millisecond

// How long a server is asked without EDNS: one that refused it, and one that only answered when asked without. The latter may
// have been slow, or a datagram lost.
const (
	refusedFor = 10 * time.Minute
	silentFor  = 2 * time.Minute
)

// A Resolver asks servers in turn, by UDP and, where an answer is truncated, by TCP. It is safe for concurrent use as long as
// nobody changes its fields.
type Resolver struct {
	Servers []netip.Addr // at least one

	// Dial connects to a server; network is "udp" or "tcp". The connection must support deadlines.
	Dial func(ctx context.Context, network string, server netip.AddrPort) (net.Conn, error)

	mu    sync.Mutex
	plain map[netip.Addr]time.Time // until when a server is asked without EDNS; has no others than Servers. Guarded by mu
}

// isPlain reports whether a server is to be asked without EDNS.
func (r *Resolver) isPlain(server netip.Addr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	until, ok := r.plain[server]
	if ok && !time.Now().Before(until) {
		delete(r.plain, server)
		ok = false
	}
	return ok
}

// setPlain remembers that a server is to be asked without EDNS.
func (r *Resolver) setPlain(server netip.Addr, d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.plain == nil {
		r.plain = map[netip.Addr]time.Time{}
	}
	r.plain[server] = time.Now().Add(d)
}

// Lookup returns the addresses of name, in the order of kinds, which are A or AAAA or both. The name must be one that IsName
// accepts. server is the one that was asked last.
func (r *Resolver) Lookup(ctx context.Context, name string, kinds ...uint16) (ips []netip.Addr, server netip.AddrPort, err error) {
	heard := make([]bool, len(r.Servers)) // servers that have answered something
	for i, wait := range attempts {
		for j, s := range r.Servers {
			server = netip.AddrPortFrom(s, 53)
			known := r.isPlain(s)
			// A server may also ignore what it doesn't understand.
			a := asking{edns: !known && (i == 0 || heard[j])}
			ips, err = r.ask(ctx, wait, server, name, kinds, &a)
			switch {
			case a.refused:
				r.setPlain(s, refusedFor)
			case a.heard && !a.edns && !known:
				r.setPlain(s, silentFor)
			}
			heard[j] = heard[j] || a.heard
			switch {
			case err == nil && len(ips) == 0:
				return nil, server, ErrNoHost
			case err == nil || ctx.Err() != nil:
				return ips, server, err
			}
		}
	}
	return nil, server, err
}

// A question is a question to a server, and its answer.
type question struct {
	id   uint16
	kind uint16
	edns bool // it was asked with EDNS
	ips  []netip.Addr
	err  error
	done bool
}

// An asking is how a server is asked, and what became of that.
type asking struct {
	edns    bool // with EDNS, at first
	heard   bool // it answered
	refused bool // it answered without EDNS, and said that it can't with it
}

// ask asks one server for all addresses of name. The questions are asked at the same time.
//
// Some servers never answer about AAAA. Once there are addresses, the other answer may take as long again as this one took:
// both take the same path, so only the server's own time differs.
func (r *Resolver) ask(ctx context.Context, wait time.Duration, server netip.AddrPort, name string, kinds []uint16, a *asking) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	began := time.Now()
	c, err := r.Dial(ctx, "udp", server)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	giveUp := func() { c.SetDeadline(time.Unix(1, 0)) }
	defer context.AfterFunc(ctx, giveUp)()
	late := time.AfterFunc(wait, giveUp)
	defer late.Stop()
	var qs []*question
	for _, kind := range kinds {
		q := &question{id: uint16(rand.Uint32()), kind: kind, edns: a.edns}
		if _, err := c.Write(AppendQuery(nil, q.id, name, kind, q.edns)); err != nil {
			return nil, err
		}
		qs = append(qs, q)
	}
	buf := make([]byte, 4096)
	for slices.ContainsFunc(qs, func(q *question) bool { return !q.done }) {
		n, err := c.Read(buf)
		if err != nil {
			for _, q := range qs {
				if !q.done {
					q.err = err
				}
			}
			break
		}
		for _, q := range qs {
			if !q.done && q.edns && RefusesEDNS(buf[:n], q.id, name, q.kind) {
				q.id, q.edns = uint16(rand.Uint32()), false
				if _, err := c.Write(AppendQuery(nil, q.id, name, q.kind, false)); err != nil {
					q.done, q.err = true, err
				}
				continue
			}
			if q.done || !IsAnswer(buf[:n], q.id, name, q.kind) {
				continue
			}
			q.done, a.heard = true, true
			a.refused = a.refused || a.edns && !q.edns && !RefusesEDNS(buf[:n], q.id, name, q.kind)
			q.ips, q.err = Parse(buf[:n], q.kind)
			if q.err == ErrTruncated {
				q.ips, q.err = r.askTCP(ctx, server, name, q)
			}
			if len(q.ips) > 0 {
				late.Reset(max(resolutionDelay, time.Since(began)))
			}
		}
	}
	var ips []netip.Addr
	for _, q := range qs {
		ips = append(ips, q.ips...)
		if q.err != nil && q.err != ErrNoHost {
			err = q.err
		}
	}
	if len(ips) > 0 {
		return ips, nil // what is known of the other family doesn't matter
	}
	return nil, err
}

// askTCP asks again, by TCP, for an answer that is too long for UDP. RFC 7766 §8.
func (r *Resolver) askTCP(ctx context.Context, server netip.AddrPort, name string, q *question) ([]netip.Addr, error) {
	c, err := r.Dial(ctx, "tcp", server)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	msg := AppendQuery(make([]byte, 2), q.id, name, q.kind, q.edns)
	binary.BigEndian.PutUint16(msg, uint16(len(msg)-2))
	if _, err := c.Write(msg); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	msg = make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, msg); err != nil {
		return nil, err
	}
	if !IsAnswer(msg, q.id, name, q.kind) {
		return nil, ErrServer
	}
	return Parse(msg, q.kind)
}
