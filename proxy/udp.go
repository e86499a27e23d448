package proxy

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"throughline/proxy/internal/datagram"
	"throughline/proxy/internal/idle"
)

// What bounds the datagrams that wait until a session has reached its target: their number, and from the second on their
// bytes.
const (
	maxPending      = 8
	maxPendingBytes = 16 << 10
)

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
	mu      sync.Mutex
	conn    net.Conn // nil until the target is reached
	pending [][]byte
	bytes   int // in pending
}

// serveUDP forwards datagrams until Run ends. Above the limit no session is begun: a
// client that sends from many addresses can't push out those that are there.
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
		if !t.s.enter() {
			t.mu.Unlock()
			return
		}
		u = &session{client: from, clock: idle.New(t.s.IdleTimeout)}
		t.by[from] = u
		t.l.wg.Go(func() { t.run(u) })
	}
	t.mu.Unlock()
	u.clock.Moved()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.conn == nil {
		if u.bytes += len(b); len(u.pending) == 0 || len(u.pending) < maxPending && u.bytes <= maxPendingBytes {
			u.pending = append(u.pending, append([]byte(nil), b...))
		} else {
			u.bytes -= len(b)
		}
		return
	}
	t.write(u, b)
}

func (t *sessions) write(u *session, b []byte) {
	if _, err := u.conn.Write(b); err == nil {
		t.s.toTarget.Add(uint64(len(b)))
	}
}

// run reaches the target of a session and carries its answers back until nothing moved for the idle time-out.
func (t *sessions) run(u *session) {
	defer t.s.open.Add(-1)
	err := t.carry(u)
	t.mu.Lock()
	delete(t.by, u.client)
	t.mu.Unlock()
	if err != nil && t.l.ctx.Err() == nil {
		t.s.failed.Add(1)
		t.s.log.Debug("proxy: session ended", "client", u.client, "error", err)
	}
}

func (t *sessions) carry(u *session) error {
	c, err := t.s.dial(t.l.ctx, t.l, "udp", t.s.Target)
	if err != nil {
		return err
	}
	defer t.l.drop(c)
	u.mu.Lock()
	u.conn = c
	for _, b := range u.pending {
		t.write(u, b)
	}
	u.pending, u.bytes = nil, 0
	u.mu.Unlock()
	b := datagram.Buffers.Get().(*datagram.Buffer)
	defer datagram.Buffers.Put(b)
	for failures := 0; ; {
		if d := u.clock.Deadline(); !d.IsZero() {
			c.SetReadDeadline(d)
		}
		n, err := c.Read(b[:])
		switch {
		case err == nil:
			failures = 0
			u.clock.Moved()
			if datagram.Send(t.s.packets, b[:n], u.client) == nil {
				t.s.toClient.Add(uint64(n))
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
