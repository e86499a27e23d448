package uapi

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"throughline/wgtypes"
)

// A Device is what [Serve] serves. Its methods are safe for concurrent use.
type Device interface {
	// Configure applies all of cfg or nothing. It keeps nothing that cfg points to: the keys are wiped afterwards. The
	// client gets the [syscall.Errno] that the error wraps, or else EINVAL.
	Configure(cfg wgtypes.Config) error

	// Status returns the device's configuration and counters. The Status is the caller's: Serve wipes the keys in it and in
	// its Peers.
	Status() wgtypes.Status
}

// Serve answers requests on the connections that l accepts, any number on each, until ctx ends or l is closed; then it
// returns nil. If accepting fails for good, it returns that error. It owns l: before it returns it closes l and every
// connection, and waits for all goroutines that it started. A nil log discards.
//
// A set request that is refused, and a request that is neither get nor set, is logged in one line and answered with an
// errno, which is negative in the answer to a set request, as wg(8) expects there, and positive elsewhere. The connection
// stays open.
//
// When there are 64 connections, a new one takes the place of the one that has made no progress for longest: that waits for
// a request, is within one, or doesn't read its answer. So clients that stop halfway keep nobody out. Those whose request is
// being carried out keep their places. How many gave way is logged, in a line every half minute at most.
func Serve(ctx context.Context, l net.Listener, dev Device, log *slog.Logger) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &server{dev: dev, log: log, conns: make(map[*connection]struct{})}
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

// temporary reports whether an error of Accept concerns one connection, or a shortage that may end.
func temporary(err error) bool {
	switch n, _ := errors.AsType[syscall.Errno](err); n {
	case syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EINTR, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS,
		syscall.ENOMEM:
		return true
	}
	return false
}

// A server is a running Serve.
type server struct {
	dev Device
	log *slog.Logger
	wg  sync.WaitGroup // the goroutines of conns

	mu      sync.Mutex // guards what follows, and the progress and held of connections
	conns   map[*connection]struct{}
	closed  bool
	gaveWay uint64    // connections that were closed for others
	logged  time.Time // when that was logged last
}

// add serves conn, or closes it when there are maxConns connections and all are being served.
func (s *server) add(conn net.Conn) {
	c := newConnection(s, conn)
	s.mu.Lock()
	full := len(s.conns) >= maxConns
	if full && !s.evict(s.stalest(nowhere)) {
		s.mu.Unlock()
		s.log.Warn("configuration connection refused: too many are busy", "limit", maxConns)
		conn.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.wg.Go(c.run)
	s.mu.Unlock()
	if full {
		s.logGaveWay()
	}
}

// logGaveWay logs how many connections gave way, unless it was logged a short while ago.
func (s *server) logGaveWay() {
	s.mu.Lock()
	now := time.Now()
	due := s.logged.IsZero() || now.Sub(s.logged) >= ioTimeout
	if due {
		s.logged = now
	}
	n := s.gaveWay
	s.mu.Unlock()
	if due {
		s.log.Warn("configuration connections closed: others took their places", "total", n)
	}
}

// stalest returns the connection that has made no progress for longest, of those that hold a place of that kind, or of all
// for nowhere. It returns nil if there is none, or all of them wait for the server. The caller holds mu.
func (s *server) stalest(of place) *connection {
	var oldest *connection
	for c := range s.conns {
		if (of == nowhere || c.held == of) && !c.progress.IsZero() && (oldest == nil || c.progress.Before(oldest.progress)) {
			oldest = c
		}
	}
	return oldest
}

// evict closes a connection for another one, and reports whether there is one to close. The caller holds mu.
func (s *server) evict(c *connection) bool {
	if c == nil {
		return false
	}
	c.conn.Close()
	delete(s.conns, c)
	s.gaveWay++
	return true
}

// remove forgets a connection that has ended.
func (s *server) remove(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// closeAll closes every connection. A request that is being applied is applied; its answer is lost.
func (s *server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.conns {
		c.conn.Close()
	}
}

// A place is what only a few connections may have at once, as each takes much memory.
type place int

const (
	nowhere   place = iota
	inRequest       // a request that is large so far, until it has been applied
	inAnswer        // the device's status, until it has been written
)

// places says how many connections may hold a place of each kind, and for how long one that makes no progress keeps it when
// another one waits for it.
var places = [...]struct {
	most int
	keep time.Duration
}{
	inRequest: {most: 1, keep: 500 * time.Millisecond},
	inAnswer:  {most: 4, keep: 100 * time.Millisecond},
}

// lookAgain is how often a connection that waits for a place looks whether there is one.
const lookAgain = 5 * time.Millisecond

// take waits for a place for c. It reports false when c was evicted meanwhile, or the server ends.
func (s *server) take(c *connection, p place) bool {
	for {
		s.mu.Lock()
		if _, ok := s.conns[c]; !ok || s.closed {
			s.mu.Unlock()
			return false
		}
		n := 0
		for other := range s.conns {
			if other.held == p {
				n++
			}
		}
		evicted := false
		if n >= places[p].most {
			if v := s.stalest(p); v != nil && time.Since(v.progress) >= places[p].keep {
				evicted = s.evict(v)
				n--
			}
		}
		if n < places[p].most {
			c.held = p
		}
		s.mu.Unlock()
		if evicted {
			s.logGaveWay()
		}
		if n < places[p].most {
			return true
		}
		time.Sleep(lookAgain)
	}
}
