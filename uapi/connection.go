package uapi

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"throughline/internal/secret"
	"throughline/uapi/text"
	"throughline/wgtypes"
)

const (
	maxConns  = 64 // at the same time
	readSize  = 16 << 10
	ioTimeout = 30 * time.Second // without any progress: between requests, within one, or within an answer

	// A whole request or answer has wholeTimeout, and more the more of it there is: a second for each slowest bytes, up to
	// mostTimeout. A million peers are 360 MB, which take ten seconds on a machine of today.
	wholeTimeout = time.Minute
	mostTimeout  = 10 * time.Minute
	slowest      = 64 << 10

	// A request has maxRequest bytes at most, which a million peers fit into with eight allowed IPs each, however long. From
	// largeRequest on there is one at a time, as it takes up to three times its size in memory.
	maxRequest   = 768 << 20
	largeRequest = 1 << 20
)

// A connection serves one client, one request at a time.
type connection struct {
	s    *server
	conn net.Conn
	r    *bufio.Reader // of the connection

	// Guarded by s.mu.
	progress time.Time // of the client, last: it connected, sent something, or read something; zero while it waits for us
	held     place

	// Of its goroutine only.
	in, out message
	broken  error // of a read: there are no more
}

// A message is a request or an answer on its way.
type message struct {
	begun time.Time // zero: not yet
	bytes int64
}

// deadline is when the message must have got further. Its time as a whole counts from its first byte, so that progress of a
// byte now and then doesn't extend it for ever.
func (m *message) deadline(now time.Time) time.Time {
	next := now.Add(ioTimeout)
	if m.begun.IsZero() {
		return next
	}
	whole := m.begun.Add(min(wholeTimeout+time.Duration(m.bytes/slowest)*time.Second, mostTimeout))
	if whole.Before(next) {
		return whole
	}
	return next
}

func newConnection(s *server, conn net.Conn) *connection {
	c := &connection{s: s, conn: conn, progress: time.Now()}
	c.r = bufio.NewReaderSize(c, readSize)
	return c
}

// run answers requests until the connection ends.
func (c *connection) run() {
	defer c.s.remove(c)
	defer c.conn.Close()
	for c.idle() {
		op, err := text.ReadOperation(c.r)
		if err != nil {
			return
		}
		switch op {
		case text.Get:
			err = c.get()
		case text.Set:
			err = c.set()
		default:
			err = c.refuse(errNoOperation, text.ReadEnd(c.r))
		}
		if err != nil {
			return
		}
	}
}

// idle begins to wait for a request. Like the two that follow it reports false when c was evicted.
func (c *connection) idle() bool {
	c.in = message{}
	if c.r.Buffered() > 0 {
		c.in.begun = time.Now()
	}
	return c.mark(time.Now(), true)
}

// working says that the client waits for us: it isn't evicted.
func (c *connection) working() bool { return c.mark(time.Time{}, false) }

// answering begins an answer.
func (c *connection) answering() bool {
	c.out = message{begun: time.Now()}
	return c.mark(c.out.begun, false)
}

// mark records the client's progress, and gives back its place if asked to.
func (c *connection) mark(progress time.Time, leave bool) bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.progress = progress
	if leave {
		c.held = nowhere
	}
	_, ok := c.s.conns[c]
	return ok
}

// errTooLarge is the error of a request beyond maxRequest.
var errTooLarge = fmt.Errorf("uapi: a request of more than %d MiB: %w", maxRequest>>20, syscall.E2BIG)

// errEvicted is the error of a connection whose place another one took.
var errEvicted = errors.New("uapi: another connection took its place")

// Read reads from the client, for r. An error is final.
func (c *connection) Read(b []byte) (int, error) {
	if c.broken != nil {
		return 0, c.broken
	}
	n, err := c.read(b)
	c.broken = err
	return n, err
}

func (c *connection) read(b []byte) (int, error) {
	if err := c.conn.SetReadDeadline(c.in.deadline(time.Now())); err != nil {
		return 0, err
	}
	n, err := c.conn.Read(b)
	now := time.Now()
	if n > 0 {
		if !c.mark(now, false) {
			return 0, errEvicted
		}
		if c.in.begun.IsZero() {
			c.in.begun = now
		}
	}
	before := c.in.bytes
	c.in.bytes += int64(n)
	switch {
	case c.in.bytes > maxRequest:
		clear(b[:n])
		return 0, errTooLarge
	case before < largeRequest && c.in.bytes >= largeRequest:
		if !c.s.take(c, inRequest) {
			clear(b[:n])
			return 0, errEvicted
		}
		c.in.begun = c.in.begun.Add(time.Since(now)) // waiting for the place doesn't count
	}
	return n, err
}

// Write writes to the client.
func (c *connection) Write(b []byte) (int, error) {
	if err := c.conn.SetWriteDeadline(c.out.deadline(time.Now())); err != nil {
		return 0, err
	}
	n, err := c.conn.Write(b)
	c.out.bytes += int64(n)
	if !c.mark(time.Now(), false) {
		err = errEvicted
	}
	return n, err
}

var errNoOperation = errors.New("uapi: neither get=1 nor set=1")

// get answers a get request. It returns an error if the connection failed.
func (c *connection) get() error {
	if err := text.ReadEnd(c.r); err != nil {
		return c.refuse(err, err)
	}
	if !c.s.take(c, inAnswer) || !c.working() {
		return errEvicted
	}
	var err error
	secret.OnClearedStack(func() {
		st := c.s.dev.Status()
		if err = errEvicted; c.answering() {
			err = text.WriteStatus(c, &st)
		}
		st.Wipe()
	})
	return err
}

// set answers a set request. It returns an error if the connection failed.
func (c *connection) set() error {
	var err, connErr error
	secret.OnClearedStack(func() {
		var cfg wgtypes.Config
		cfg, err = text.ReadConfig(c.r)
		connErr = connError(err)
		text.WipeBuffer(c.r, c)
		if err != nil {
			return
		}
		if c.working() {
			err = c.s.dev.Configure(cfg)
		} else {
			connErr = errEvicted // nobody would know whether it was applied
		}
		cfg.Wipe()
	})
	if !c.answering() {
		return errEvicted
	}
	if err != nil {
		c.s.log.Warn("configuration refused", "error", err)
	}
	if connErr != nil {
		err = errnoOf(connErr)
	}
	return cmp.Or(connErr, text.WriteErrno(c, err, true))
}

// refuse answers what is neither a get nor a set request, for the reason given. end is the error of reading its end, if any.
func (c *connection) refuse(why, end error) error {
	if !c.answering() {
		return errEvicted
	}
	c.s.log.Warn("configuration request refused", "error", why)
	end = connError(end)
	return cmp.Or(end, text.WriteErrno(c, syscall.EPROTO, false))
}

// connError returns err if the connection failed, and nil if only the request is wrong.
func connError(err error) error {
	if _, ok := errors.AsType[*text.ParseError](err); ok {
		return nil
	}
	return err
}

// errnoOf returns EPROTO for a request that was cut short, E2BIG for one that is too large, and EIO for a connection that
// failed.
func errnoOf(err error) syscall.Errno {
	if errors.Is(err, errTooLarge) {
		return syscall.E2BIG
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return syscall.EPROTO
	}
	return syscall.EIO
}
