package hop

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// ErrTooLong is what reading ends with at the limit of a [Meter].
var ErrTooLong = errors.New("the header is too long")

// An idleness bounds how long nothing may move on all of the connections that share it.
type idleness struct {
	limit atomic.Int64 // a time.Duration; 0: no bound
	start time.Time
	last  atomic.Int64 // when a byte moved, since start
}

// newIdle returns one that counts from now.
func newIdle(limit time.Duration) *idleness {
	i := &idleness{start: time.Now()}
	i.limit.Store(int64(limit))
	return i
}

func (i *idleness) moved() { i.last.Store(int64(time.Since(i.start))) }

// left returns how much of a limit is left while nothing moves.
func (i *idleness) left(limit time.Duration) time.Duration {
	return limit - (time.Since(i.start) - time.Duration(i.last.Load()))
}

// A Meter reads and writes one connection within bounds: of time, while [Exchange] uses it, and of what a header may
// have. One goroutine may read while another one writes.
type Meter struct {
	net.Conn
	Left  int64          // bytes that may be read; negative: any number
	Count *atomic.Uint64 // what was written
	idle  *idleness      // for reading, and, with at least a minute, for one write; nil: the deadlines are left as they are
	lost  error          // why reading failed, if it did without an end or a time-out
	ended atomic.Bool
}

// stop ends reading until resume, also a read that is under way in another goroutine.
func (m *Meter) stop() {
	m.ended.Store(true)
	m.SetReadDeadline(time.Now())
}

// resume allows reading again, once nobody reads any more. The deadline is still in the past.
func (m *Meter) resume() { m.ended.Store(false) }

// Read reads, and fails with [ErrTooLong] once nothing is left of what may be read.
func (m *Meter) Read(b []byte) (int, error) {
	if m.Left == 0 {
		return 0, ErrTooLong
	}
	if m.Left > 0 {
		b = b[:min(int64(len(b)), m.Left)]
	}
	n, err := m.read(b)
	if m.Left > 0 {
		m.Left -= int64(n)
	}
	if err != nil && err != io.EOF && !errors.Is(err, os.ErrDeadlineExceeded) {
		m.lost = err
	}
	return n, err
}

// shorten lets a read, also one that is under way in another goroutine, wait for no longer than this.
func (m *Meter) shorten(limit time.Duration) {
	if old := m.idle.limit.Load(); old == 0 || old > int64(limit) {
		m.idle.limit.Store(int64(limit))
		m.SetReadDeadline(time.Now().Add(limit))
	}
}

// read waits for as long as anything moves, here or on the other connection.
func (m *Meter) read(b []byte) (int, error) {
	fresh := true
	for {
		var limit time.Duration
		if m.idle != nil {
			limit = time.Duration(m.idle.limit.Load())
		}
		wait := limit
		if !fresh && limit > 0 {
			wait = m.idle.left(limit)
		}
		if limit > 0 {
			m.SetReadDeadline(time.Now().Add(wait))
		}
		// Both after the deadline was set: that of stop or shorten may have been overwritten.
		if m.ended.Load() {
			return 0, os.ErrDeadlineExceeded
		}
		if m.idle != nil && time.Duration(m.idle.limit.Load()) != limit {
			continue
		}
		n, err := m.Conn.Read(b)
		if m.idle == nil {
			return n, err
		}
		if n > 0 {
			m.idle.moved()
		}
		fresh = false
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || m.idle.left(time.Duration(m.idle.limit.Load())) <= 0 {
			return n, err
		}
	}
}

// Write writes and counts.
func (m *Meter) Write(b []byte) (int, error) {
	if m.idle != nil {
		if limit := time.Duration(m.idle.limit.Load()); limit > 0 {
			m.SetWriteDeadline(time.Now().Add(max(limit, time.Minute)))
		}
	}
	n, err := m.Conn.Write(b)
	if m.idle != nil && n > 0 {
		m.idle.moved()
	}
	m.Count.Add(uint64(n))
	return n, err
}
