package uapi

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"throughline/internal/secret"
	"throughline/uapi/text"
	"throughline/wgtypes"
)

// A Device is what [Serve] serves. Its methods are safe for concurrent use.
type Device interface {
	// Configure applies cfg whole or not at all. It keeps nothing that cfg points to: the keys are wiped afterwards.
	// The client gets the [syscall.Errno] that the error wraps, or else EINVAL.
	Configure(cfg wgtypes.Config) error

	// Status returns what the device is and does. The Status is the caller's, which wipes the keys in it and in its Peers.
	Status() wgtypes.Status
}

const (
	maxConns  = 64
	ioTimeout = 30 * time.Second // for a connection that is idle, stops within a request, or doesn't read its answer
	readSize  = 16 << 10
)

// Serve answers on l, any number of requests a connection, until ctx ends or l is closed, and returns nil then. It
// returns an error of l's that is not temporary. It owns l and closes it, closes every connection, and returns when all
// goroutines it started have.
//
// A set request that is refused, and a request that is none, is logged in one line and answered with an errno: negative
// to set, as wg(8) reads it there, positive to get and others. The connection stays open.
//
// When there are as many connections as there may be, a new one takes the place of the one that has been idle longest.
func Serve(ctx context.Context, l net.Listener, dev Device, log *slog.Logger) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &server{dev: dev, log: log, conns: make(map[*connection]time.Time)}
	var closing sync.WaitGroup
	closing.Add(1)
	stop := context.AfterFunc(ctx, func() { defer closing.Done(); l.Close() })
	defer func() {
		if stop() {
			closing.Done()
		}
		closing.Wait()
		l.Close()
		s.closeAll()
		s.wg.Wait()
	}()

	const atFirst, atMost = 5 * time.Millisecond, time.Second
	wait := atFirst
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			wait = atFirst
			s.add(conn)
		case errors.Is(err, net.ErrClosed) || ctx.Err() != nil:
			return nil
		case temporary(err):
			log.Warn("no configuration connection accepted", "error", err)
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
			wait = min(2*wait, atMost)
		default:
			return err
		}
	}
}

// temporary reports whether an error of Accept is of one connection, or of a shortage that may end.
func temporary(err error) bool {
	switch n, _ := errors.AsType[syscall.Errno](err); n {
	case syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EINTR, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS,
		syscall.ENOMEM:
		return true
	}
	return false
}

type server struct {
	dev Device
	log *slog.Logger
	wg  sync.WaitGroup // the goroutines of conns

	mu    sync.Mutex                // guards what follows
	conns map[*connection]time.Time // since when it has been idle; zero while it isn't
}

// add serves conn, or closes it when the most connections allowed are all busy.
func (s *server) add(conn net.Conn) {
	c := &connection{s: s, conn: timeoutConn{conn}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) >= maxConns && !s.evict() {
		s.log.Warn("configuration connection refused: too many are busy", "limit", maxConns)
		conn.Close()
		return
	}
	s.conns[c] = time.Now()
	s.wg.Go(c.run)
}

// evict closes the connection that has been idle longest, and reports whether there was one. The caller holds mu.
func (s *server) evict() bool {
	var oldest *connection
	var since time.Time
	for c, t := range s.conns {
		if !t.IsZero() && (oldest == nil || t.Before(since)) {
			oldest, since = c, t
		}
	}
	if oldest == nil {
		return false
	}
	oldest.conn.Close()
	delete(s.conns, oldest)
	return true
}

// setIdle records whether c waits for a request. It reports false when c was evicted meanwhile.
func (s *server) setIdle(c *connection, idle bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[c]; !ok {
		return false
	}
	var since time.Time
	if idle {
		since = time.Now()
	}
	s.conns[c] = since
	return true
}

func (s *server) remove(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// closeAll closes every connection. A request that is being applied is applied; its answer is lost.
func (s *server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.conn.Close()
	}
}

// A connection is one client's, with one request at a time.
type connection struct {
	s    *server
	conn timeoutConn
	r    *bufio.Reader
}

func (c *connection) run() {
	defer c.s.remove(c)
	defer c.conn.Close()
	c.r = bufio.NewReaderSize(c.conn, readSize)
	for c.s.setIdle(c, true) {
		op, err := text.ReadOperation(c.r)
		if err != nil || !c.s.setIdle(c, false) {
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

var errNoOperation = errors.New("uapi: neither get=1 nor set=1")

// get answers a get request. The error is the connection's.
func (c *connection) get() error {
	if err := text.ReadEnd(c.r); err != nil {
		return c.refuse(err, err)
	}
	var err error
	secret.OnClearedStack(func() {
		st := c.s.dev.Status()
		err = text.WriteStatus(c.conn, &st)
		st.Wipe()
	})
	return err
}

// set answers a set request. The error is the connection's.
func (c *connection) set() error {
	var err, connErr error
	secret.OnClearedStack(func() {
		var cfg wgtypes.Config
		cfg, err = text.ReadConfig(c.r)
		connErr = connError(err)
		text.WipeBuffer(c.r, c.conn)
		if err == nil {
			err = c.s.dev.Configure(cfg)
			cfg.Wipe()
		}
	})
	if err != nil {
		c.s.log.Warn("configuration refused", "error", err)
	}
	if connErr != nil {
		err = errnoOf(connErr)
	}
	return cmp.Or(connErr, text.WriteErrno(c.conn, err, true))
}

// refuse answers what is neither a get nor a set request, for the reason given; end is how its end was read.
func (c *connection) refuse(why, end error) error {
	c.s.log.Warn("configuration request refused", "error", why)
	end = connError(end)
	return cmp.Or(end, text.WriteErrno(c.conn, syscall.EPROTO, false))
}

// connError returns err if it is the connection's, and nil if it is the request's.
func connError(err error) error {
	if _, ok := errors.AsType[*text.ParseError](err); ok {
		return nil
	}
	return err
}

// errnoOf distinguishes a request that was cut short from a connection that failed.
func errnoOf(err error) syscall.Errno {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return syscall.EPROTO
	}
	return syscall.EIO
}

// A timeoutConn bounds each read and write by ioTimeout.
type timeoutConn struct{ net.Conn }

func (c timeoutConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(ioTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c timeoutConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(ioTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}
