package proxy

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"throughline/proxy/internal/datagram"
)

// What bounds the datagrams that wait until a session has reached its target: their number, and from the second on their
// bytes.
const (
	maxPending      = 8
	maxPendingBytes = 16 << 10
)

// sessions are those of one UDP tunnel, by the source of their datagrams.
type sessions struct {
	s     *section
	l     *live
	start time.Time
	mu    sync.Mutex
	by    map[netip.AddrPort]*session
}

// A session is one source and its socket to the target.
type session struct {
	client  netip.AddrPort
	last    atomic.Int64 // when a datagram moved, since start
	mu      sync.Mutex
	conn    net.Conn // nil until the target is reached
	pending [][]byte
	bytes   int // in pending
}

// serveUDP forwards datagrams until Run ends. Above the limit no session is begun: those that are there are not pushed out
// by whoever sends from many addresses.
func (s *section) serveUDP(l *live) error {
	t := &sessions{s: s, l: l, start: time.Now(), by: make(map[netip.AddrPort]*session)}
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
		u = &session{client: from}
		u.last.Store(int64(time.Since(t.start)))
		t.by[from] = u
		t.l.wg.Go(func() { t.run(u) })
	}
	t.mu.Unlock()
	u.last.Store(int64(time.Since(t.start)))
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
	idle := t.s.IdleTimeout
	for failures := 0; ; {
		if idle > 0 {
			c.SetReadDeadline(t.start.Add(time.Duration(u.last.Load()) + idle))
		}
		n, err := c.Read(b[:])
		switch {
		case err == nil:
			failures = 0
			u.last.Store(int64(time.Since(t.start)))
			if datagram.Send(t.s.packets, b[:n], u.client) == nil {
				t.s.toClient.Add(uint64(n))
			}
		case idle > 0 && errors.Is(err, os.ErrDeadlineExceeded):
			if time.Since(t.start)-time.Duration(u.last.Load()) >= idle {
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
