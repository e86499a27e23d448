package uapi

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"throughline"
)

// A Device is what [Serve] serves. Its methods are safe for concurrent use.
type Device interface {
	// Configure applies cfg whole or not at all. It keeps nothing that cfg points to: the keys are wiped afterwards.
	// The other side is told the [syscall.Errno] its error wraps, or else EINVAL.
	Configure(cfg throughline.Config) error

	// Status returns what the device is and does. The caller doesn't change what the Status points to.
	Status() throughline.Status
}

const (
	maxConns = 64
	patience = 30 * time.Second // with a connection that says nothing, stops amid a request, or doesn't read its answer
	readSize = 16 << 10
)

// Serve answers on l, any number of requests a connection, until ctx ends or l is closed, and returns nil then. An error
// is one of l's that doesn't pass. It owns l and closes it, closes every connection, and returns when all goroutines it
// started have.
//
// A set request that is refused, and a request that is none, is logged in one line and answered with an errno: negative
// to set, as wg(8) reads it there, positive to get and the rest. The connection goes on.
//
// When there are as many connections as there may be, a new one takes the place of the one that has been idle longest.
func Serve(ctx context.Context, l net.Listener, dev Device, log *slog.Logger) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &server{dev: dev, log: log, conns: make(map[*conversation]time.Time)}
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
		case passing(err):
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

// passing reports whether an error of Accept is of one connection, or of a shortage that may end.
func passing(err error) bool {
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

	mu    sync.Mutex                  // guards what follows
	conns map[*conversation]time.Time // since when it has been idle; zero while it isn't
}

// add begins a conversation on conn, or closes it when all there may be are busy.
func (s *server) add(conn net.Conn) {
	c := &conversation{s: s, conn: patient{conn}}
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
	var oldest *conversation
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
func (s *server) setIdle(c *conversation, idle bool) bool {
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

func (s *server) remove(c *conversation) {
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

// A conversation is what is said on one connection, one request at a time.
type conversation struct {
	s    *server
	conn patient
	r    *bufio.Reader
}

func (c *conversation) run() {
	defer c.s.remove(c)
	defer c.conn.Close()
	c.r = bufio.NewReaderSize(c.conn, readSize)
	for c.s.setIdle(c, true) {
		op, ok := c.operation()
		if !ok || !c.s.setIdle(c, false) {
			return
		}
		var err error
		switch op {
		case "get=1":
			err = c.get()
		case "set=1":
			err = c.set()
		default:
			err = c.other()
		}
		if err != nil {
			return
		}
	}
}

// operation returns the first line of the next request, "" for one that is too long; false when there is no more.
// Empty lines before it are passed over.
func (c *conversation) operation() (string, bool) {
	l := lines{r: c.r}
	for {
		line, err := l.next()
		switch {
		case err == errLongLine:
			return "", true
		case err == io.ErrUnexpectedEOF:
			return "", true // other answers, then finds the end
		case err != nil:
			return "", false
		case len(line) > 0:
			op := "other"
			if string(line) == "get=1" || string(line) == "set=1" {
				op = string(line)
			}
			clear(line)
			return op, true
		}
	}
}

// get answers a get request. The error is the connection's.
func (c *conversation) get() error {
	l := lines{r: c.r}
	line, err := l.next()
	if err == nil && len(line) == 0 {
		st := c.s.dev.Status()
		return WriteStatus(c.conn, &st)
	}
	if err == nil || err == errLongLine {
		err = l.skip()
	}
	c.s.log.Warn("configuration request refused", "operation", "get", "error", "uapi: a get request has no lines")
	return c.answer(number(syscall.EPROTO), err)
}

// set answers a set request. The error is the connection's.
func (c *conversation) set() error {
	cfg, err := ReadConfig(c.r)
	if err == nil {
		err = c.s.dev.Configure(cfg)
		wipe(&cfg)
		if err == nil {
			return c.answer(0, nil)
		}
		c.s.log.Warn("configuration refused", "error", err)
		return c.answer(-number(errnoOf(err)), nil)
	}
	c.s.log.Warn("configuration request refused", "operation", "set", "error", err)
	if bad, ok := errors.AsType[*ParseError](err); ok {
		return c.answer(-number(bad.Errno), nil)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return c.answer(-number(syscall.EPROTO), err)
	}
	return c.answer(-number(syscall.EIO), err)
}

// other answers what is neither get=1 nor set=1. The error is the connection's.
func (c *conversation) other() error {
	l := lines{r: c.r}
	err := l.skip()
	c.s.log.Warn("configuration request refused", "error", "uapi: neither get=1 nor set=1")
	return c.answer(number(syscall.EPROTO), err)
}

// skip reads to the empty line.
func (l *lines) skip() error {
	for {
		line, err := l.next()
		if err != nil && err != errLongLine {
			return err
		}
		if err == nil && len(line) == 0 {
			return nil
		}
		clear(line)
	}
}

// answer writes an errno and returns the error that came before, or else its own.
func (c *conversation) answer(n int, before error) error {
	_, err := c.conn.Write(append(strconv.AppendInt([]byte("errno="), int64(n), 10), "\n\n"...))
	if before != nil {
		return before
	}
	return err
}

// A patient connection gives the other side some time for each read and write, and no more.
type patient struct{ net.Conn }

func (p patient) Read(b []byte) (int, error) {
	if err := p.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	return p.Conn.Read(b)
}

func (p patient) Write(b []byte) (int, error) {
	if err := p.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}
