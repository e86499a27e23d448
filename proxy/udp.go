package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"throughline/proxy/internal/datagram"
	"throughline/proxy/internal/idle"
	"throughline/proxy/internal/places"
)

// What bounds the datagrams that wait until a session has reached its target: their number, and from the second on their
// bytes.
const (
	maxPending      = 8
	maxPendingBytes = 16 << 10
)

// minSessionsForOne is how many sessions one source may have where half of all would be fewer.
const minSessionsForOne = 8

// sessions are those of one UDP tunnel, by the source of their datagrams.
type sessions struct {
	s  *section
	l  *live
	mu sync.Mutex
	by map[netip.AddrPort]*session
}

// A session is one source and its socket to the target.
type session struct {
	client  netip.AddrPort
	clock   *idle.Clock
	place   places.Place    // settled when the target has answered
	ctx     context.Context // ends when the session gives way
	cancel  context.CancelFunc
	mu      sync.Mutex
	conn    net.Conn // nil until the target is reached
	pending [][]byte
	bytes   int // in pending
}

// serveUDP forwards datagrams until Run ends. When all places are taken, sessions to which the target never said anything give
// way, as package places has it: anybody can have as many as he likes, with sources that aren't his.
func (s *section) serveUDP(l *live) error {
	t := &sessions{s: s, l: l, by: make(map[netip.AddrPort]*session)}
	b := datagram.Buffers.Get().(*datagram.Buffer)
	defer datagram.Buffers.Put(b)
	for failures := 0; ; {
		n, from, err := datagram.Receive(s.packets, b[:])
		switch {
		case l.ctx.Err() != nil:
			return nil
		case err == nil:
			failures = 0
			t.forward(b[:n], from)
			continue
		}
		if failures++; failures > maxAcceptErrors || errors.Is(err, net.ErrClosed) {
			return s.errorf("can't receive datagrams: %w", err)
		}
		if !sleep(l.ctx, min(time.Second, time.Millisecond<<failures)) {
			return nil
		}
	}
}

// forward sends one datagram of a client on.
func (t *sessions) forward(b []byte, from netip.AddrPort) {
	t.mu.Lock()
	u := t.by[from]
	if u == nil {
		u = t.begin(from)
	}
	t.mu.Unlock()
	if u == nil {
		return
	}
	u.clock.Moved()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.conn == nil {
		if u.bytes += len(b); len(u.pending) == 0 || len(u.pending) < maxPending && u.bytes <= maxPendingBytes {
			u.pending = append(u.pending, append([]byte(nil), b...))
		} else {
			u.bytes -= len(b)
			t.s.dropped.Add(1)
		}
		return
	}
	t.write(u, b)
}

// begin begins a session, in the place of another if it must; nil if it can't. t.mu is held.
func (t *sessions) begin(from netip.AddrPort) *session {
	s := t.s
	u := &session{client: from, clock: idle.New(s.IdleTimeout)}
	u.ctx, u.cancel = context.WithCancel(t.l.ctx)
	u.place.Clock = u.clock
	u.place.Yield = func() {
		delete(t.by, from)
		u.end()
	}
	ok, displaced := s.open.Load() < 2*int64(s.MaxConnections), false // those that gave way may take a moment to end
	if ok {
		ok, displaced = s.places.Take(&u.place, from.Addr())
	}
	if displaced {
		s.displaced.Add(1)
	}
	if !ok {
		u.cancel()
		s.full()
		return nil
	}
	s.open.Add(1)
	s.total.Add(1)
	t.by[from] = u
	t.l.wg.Go(func() { t.run(u) })
	return u
}

// end has a session end that gives way.
func (u *session) end() {
	u.cancel()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.conn != nil {
		u.conn.Close()
	}
}

func (t *sessions) write(u *session, b []byte) {
	if _, err := u.conn.Write(b); err != nil {
		t.s.dropped.Add(1)
		return
	}
	t.s.toTarget.Add(uint64(len(b)))
}

// run reaches the target of a session and carries its answers back until nothing moved for the idle time-out.
func (t *sessions) run(u *session) {
	defer t.s.open.Add(-1)
	defer u.cancel()
	err := t.carry(u)
	t.mu.Lock()
	left := t.s.places.Leave(&u.place)
	if left {
		delete(t.by, u.client)
	}
	t.mu.Unlock()
	u.mu.Lock()
	t.s.dropped.Add(uint64(len(u.pending)))
	u.mu.Unlock()
	if err != nil && left && t.l.ctx.Err() == nil {
		t.s.failed.Add(1)
		t.s.log.Debug("proxy: session ended", "client", u.client, "error", err)
	}
}

func (t *sessions) carry(u *session) error {
	c, err := t.s.dial(u.ctx, t.l, "udp", t.s.Target)
	if err != nil {
		return err
	}
	defer t.l.drop(c)
	u.mu.Lock()
	if err := u.ctx.Err(); err != nil {
		u.mu.Unlock()
		return err
	}
	u.conn = c
	for _, b := range u.pending {
		t.write(u, b)
	}
	u.pending, u.bytes = nil, 0
	u.mu.Unlock()
	var b *datagram.Buffer // nil until the target says something
	defer func() {
		if b != nil {
			datagram.Buffers.Put(b)
		}
	}()
	for failures := 0; ; {
		if d := u.clock.Deadline(); !d.IsZero() {
			c.SetReadDeadline(d)
		}
		n, err := 0, error(nil)
		if b == nil {
			if err = datagram.Wait(c); err == nil {
				b = datagram.Buffers.Get().(*datagram.Buffer)
			}
		}
		if err == nil {
			n, err = c.Read(b[:])
		}
		switch {
		case err == nil:
			failures = 0
			t.s.places.Settle(&u.place)
			u.clock.Moved()
			if datagram.Send(t.s.packets, b[:n], u.client) == nil {
				t.s.toClient.Add(uint64(n))
			} else {
				t.s.dropped.Add(1)
			}
		case u.clock.Limit() > 0 && errors.Is(err, os.ErrDeadlineExceeded):
			if u.clock.Expired() {
				return nil
			}
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			// An ICMP error of a connected socket: the target may come back.
			if failures++; failures > maxReadFailure {
				return err
			}
		}
	}
}
