// Package relay carries a connection through: bytes both ways, the end of each direction, and resets.
//
// It opens nothing and speaks no protocol. [Join] uses the caller's goroutine and one more, which has ended when it
// returns, and owns both connections from then on. Where the kernel can move the bytes (two TCP sockets on Linux) it does.
// Else each direction has a buffer of 2 KiB, and while it moves much one of 32 KiB; at most 1,024 directions have one
// at a time, so that many connections can't take much memory, whatever they do.
package relay

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"throughline/proxy/internal/idle"
)

const (
	smallSize  = 2 << 10 // what every direction has: enough for what people type
	largeSize  = 32 << 10
	maxLarge   = 1024
	spliceSize = 256 << 10 // how much is moved before deadlines are renewed and bytes counted

	// keepLarge is how long a direction on which nothing comes keeps a large buffer.
	keepLarge = time.Second
)

// The large buffers, and how many are lent.
var (
	larges = sync.Pool{New: func() any { return new([largeSize]byte) }}
	lent   atomic.Int64
)

// borrow returns a large buffer, or nil when there is none to be had.
func borrow() *[largeSize]byte {
	if lent.Add(1) > maxLarge {
		lent.Add(-1)
		return nil
	}
	return larges.Get().(*[largeSize]byte)
}

// giveBack takes back what borrow returned.
func giveBack(b *[largeSize]byte) {
	if b != nil {
		larges.Put(b)
		lent.Add(-1)
	}
}

// A Pool lends buffers of the same kind to others that copy, as an httputil.BufferPool: large ones, and small ones when there is
// none to be had.
type Pool struct{}

// Get returns a buffer, which may have anything in it.
func (Pool) Get() []byte {
	if b := borrow(); b != nil {
		return b[:]
	}
	return make([]byte, smallSize)
}

// Put takes back what Get returned.
func (Pool) Put(b []byte) {
	if len(b) == largeSize {
		giveBack((*[largeSize]byte)(b))
	}
}

// A flow is a connection between a client and its target.
type flow struct {
	client, target net.Conn
	clock          *idle.Clock
}

// Join carries bytes both ways until both directions have ended, or one fails. The end of one direction is carried
// through as the end of the other side's input, a failure as a reset. A connection without a byte for the limit is closed, at
// most half as much later, with [idle.ErrIdle]; 0 stands for never. What went to the target is added to up, what went to the
// client to down. Both connections have no deadline set when it is called, and are closed when it returns.
func Join(client, target net.Conn, limit time.Duration, up, down *atomic.Uint64) error {
	f := &flow{client: client, target: target, clock: idle.New(limit)}
	sent := make(chan error, 1)
	go func() { sent <- f.carry(target, client, up) }()
	received := f.carry(client, target, down)
	err := <-sent
	client.Close()
	target.Close()
	if received == nil || isClosed(received) {
		return err // what closed the connections is the cause
	}
	return received
}

// isClosed reports whether an error means that the connection was closed on this side.
func isClosed(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
}

// carry moves one direction to its end. On failure it ends the other one too.
func (f *flow) carry(dst, src net.Conn, bytes *atomic.Uint64) error {
	err := f.move(dst, src, bytes)
	switch {
	case err == nil:
		if c, ok := dst.(interface{ CloseWrite() error }); ok {
			err = c.CloseWrite()
		} else {
			err = dst.Close()
		}
		if err == nil {
			return nil
		}
	case errors.Is(err, idle.ErrIdle):
		f.client.Close()
		f.target.Close()
		return err
	}
	if !isClosed(err) {
		Abort(f.client)
		Abort(f.target)
	}
	return err
}

func (f *flow) move(dst, src net.Conn, bytes *atomic.Uint64) error {
	to, ok1 := dst.(*net.TCPConn)
	from, ok2 := src.(*net.TCPConn)
	if spliced && ok1 && ok2 {
		return f.splice(to, from, bytes)
	}
	small := make([]byte, smallSize)
	b := small
	var large *[largeSize]byte
	defer func() { giveBack(large) }()
	var p pace
	for {
		now := f.renew(dst, src, &p, large != nil)
		n, err := src.Read(b)
		if n > 0 {
			f.clock.MovedAt(now) // a little early: the idle time-out isn't that exact
			if _, err := dst.Write(b[:n]); err != nil {
				return err
			}
			bytes.Add(uint64(n))
			f.clock.Moved()
		}
		switch {
		case large != nil && errors.Is(err, os.ErrDeadlineExceeded): // nothing comes any more
			giveBack(large)
			large, b = nil, small
			if f.clock.Limit() == 0 {
				src.SetReadDeadline(time.Time{})
				p.renew, err = time.Time{}, nil
			}
		case large == nil && n == len(small): // there may be more
			if large = borrow(); large != nil {
				b = large[:]
				p.renew = time.Time{}
			}
		}
		if done, err := f.judge(n > 0, err, &p); done {
			return err
		}
	}
}

// splice is move where the kernel does it.
func (f *flow) splice(dst, src *net.TCPConn, bytes *atomic.Uint64) error {
	var p pace
	for {
		f.renew(dst, src, &p, false)
		chunk := io.LimitedReader{R: src, N: spliceSize}
		n, err := dst.ReadFrom(&chunk)
		if n > 0 {
			bytes.Add(uint64(n))
			f.clock.Moved()
		}
		if err == nil && chunk.N > 0 {
			return nil // the end came before the limit
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && !time.Now().Before(p.write) {
			return err // the receiver's: what is in the pipe is lost
		}
		if done, err := f.judge(n > 0, err, &p); done {
			return err
		}
	}
}

// A pace is when the deadlines of one direction are set again, and until when a write may take.
type pace struct{ renew, write time.Time }

// renew sets the deadlines of one direction, a few times in each idle time-out, and more often while it has a large
// buffer.
func (f *flow) renew(dst, src net.Conn, p *pace, large bool) time.Time {
	now := time.Now()
	tick := f.clock.Tick()
	if tick == 0 && !large || now.Before(p.renew) {
		return now
	}
	if tick > 0 {
		p.write = f.clock.WriteDeadline(now)
		dst.SetWriteDeadline(p.write)
	}
	if large && (tick == 0 || tick > keepLarge) {
		tick = keepLarge
	}
	p.renew = now.Add(tick / 2)
	src.SetReadDeadline(now.Add(tick))
	return now
}

// judge reports whether a direction has ended, and with which error.
func (f *flow) judge(moved bool, err error, p *pace) (done bool, _ error) {
	switch {
	case err == nil:
		return false, nil
	case err == io.EOF:
		return true, nil
	case !errors.Is(err, os.ErrDeadlineExceeded) || f.clock.Limit() == 0:
		return true, err
	case !moved && f.clock.Expired():
		return true, idle.ErrIdle
	}
	p.renew = time.Time{}
	return false, nil
}

// Abort closes a connection so that the other end sees a reset, where that can be had.
func Abort(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if l, ok := c.(interface{ SetLinger(int) error }); ok {
		l.SetLinger(0)
	}
	c.Close()
}

// Linger lets the other end read what was written last: it would be lost in a reset if its bytes lay unread.
func Linger(c net.Conn) {
	w, ok := c.(interface{ CloseWrite() error })
	if !ok || w.CloseWrite() != nil {
		return
	}
	c.SetReadDeadline(time.Now().Add(time.Second))
	io.CopyN(io.Discard, c, 64<<10)
}
