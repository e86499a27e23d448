// Package relay carries a connection through: bytes both ways, the end of each direction, and resets.
//
// It opens nothing and speaks no protocol. [Join] uses the caller's goroutine and one more, which has ended when it
// returns, and owns both connections from then on. Where the kernel can move the bytes (two TCP sockets on Linux) it does;
// else each direction has a buffer of 32 KiB from a pool.
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
)

const (
	bufferSize = 32 << 10
	spliceSize = 256 << 10 // how much is moved before deadlines are renewed and bytes counted

	// WriteTimeout is the least time that a receiver has to take one buffer, however short the idle time-out is.
	WriteTimeout = time.Minute

	// maxTick bounds how late a direction without bytes notices that the other is idle too.
	maxTick = 30 * time.Second
)

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// ErrIdle ends a connection on which nothing moved for its idle time-out.
var ErrIdle = errors.New("idle for too long")

// A flow is a connection between a client and its target.
type flow struct {
	client, target net.Conn
	idle           time.Duration // 0: none
	start          time.Time
	last           atomic.Int64 // when a byte moved, since start
}

// Join carries bytes both ways until both directions have ended, or one fails. The end of one direction is carried
// through as the end of the other side's input, a failure as a reset. A connection without a byte for its idle time-out
// is closed, at most half as much later; 0 stands for never. What went to the target is added to up, what went to the
// client to down. Both connections have no deadline set when it is called, and are closed when it returns.
func Join(client, target net.Conn, idle time.Duration, up, down *atomic.Uint64) error {
	f := &flow{client: client, target: target, idle: idle, start: time.Now()}
	sent := make(chan error, 1)
	go func() { sent <- f.carry(target, client, up) }()
	received := f.carry(client, target, down)
	err := <-sent
	client.Close()
	target.Close()
	if errors.Is(received, net.ErrClosed) || received == nil {
		return err // what closed the connections is the cause
	}
	return received
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
	case errors.Is(err, ErrIdle):
		f.client.Close()
		f.target.Close()
		return err
	}
	if !errors.Is(err, net.ErrClosed) {
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
	b := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(b)
	var p pace
	for {
		now := f.renew(dst, src, &p)
		n, err := src.Read(b[:])
		if n > 0 {
			f.last.Store(int64(now.Sub(f.start))) // a little early: the idle time-out isn't that exact
			if _, err := dst.Write(b[:n]); err != nil {
				return err
			}
			bytes.Add(uint64(n))
			f.last.Store(int64(time.Since(f.start)))
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
		f.renew(dst, src, &p)
		chunk := io.LimitedReader{R: src, N: spliceSize}
		n, err := dst.ReadFrom(&chunk)
		if n > 0 {
			bytes.Add(uint64(n))
			f.last.Store(int64(time.Since(f.start)))
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

// renew sets the deadlines of one direction, a few times in each idle time-out.
func (f *flow) renew(dst, src net.Conn, p *pace) time.Time {
	now := time.Now()
	if f.idle > 0 && !now.Before(p.renew) {
		tick := min(f.idle/4, maxTick)
		p.renew, p.write = now.Add(tick/2), now.Add(max(f.idle, WriteTimeout))
		src.SetReadDeadline(now.Add(tick))
		dst.SetWriteDeadline(p.write)
	}
	return now
}

// judge says whether a direction has ended, and how.
func (f *flow) judge(moved bool, err error, p *pace) (done bool, _ error) {
	switch {
	case err == nil:
		return false, nil
	case err == io.EOF:
		return true, nil
	case !errors.Is(err, os.ErrDeadlineExceeded) || f.idle == 0:
		return true, err
	case !moved && time.Since(f.start)-time.Duration(f.last.Load()) >= f.idle:
		return true, ErrIdle
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
