package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"throughline/proxy/internal/dial"
	"throughline/proxy/internal/forward"
	"throughline/proxy/internal/login"
	"throughline/proxy/internal/places"
	"throughline/proxy/internal/relay"
	"throughline/proxy/internal/socks5"
)

const (
	handshakeTimeout = 10 * time.Second // for a client to send its request
	dialTimeout      = 30 * time.Second // to find and reach a target
	maxRefusals      = 16               // refusals that are being sent, for each section
	maxAcceptErrors  = 20               // in a row, before accepting is given up: about 10 s
)

// A Proxy serves a configuration.
type Proxy struct {
	cfg      *Config
	tunnel   Network
	log      *slog.Logger
	sections []*section
	pongs    []pong
	warned   pace   // that /metrics fails, which whoever asks could have said as often as he asks
	opened   func() // for tests: every listener is open
}

// A section is one section being served. Its counters outlive a Run.
type section struct {
	Section
	listens  Network // where clients come from
	targets  Network // where targets are
	dialer   dial.Dialer
	log      *slog.Logger
	login    *login.Login // nil: none is asked for
	tls      *tls.Config
	stdin    io.Reader // of the STDIOTunnel
	stdout   io.Writer
	listener net.Listener   // of the kinds that have one, while Run runs
	packets  net.PacketConn // likewise
	refusals atomic.Int64   // under way
	places   *places.Table  // of clients that have asked for nothing yet; of UDP sessions
	greeting atomic.Int64   // those clients, and those that gave way and haven't ended
	outgoing sync.Map       // the local addresses (netip.AddrPort) of connections to targets of plain requests
	warned   struct{ full, displaced, accept pace }

	open                                                  atomic.Int64
	total, refused, displaced, failed, toTarget, toClient atomic.Uint64
	dropped                                               atomic.Uint64 // datagrams
}

// New returns a proxy that serves cfg between a tunnel and a host. [Config.Check] and Run report what is wrong with
// cfg. A nil logger stands for silence.
func New(cfg *Config, tunnel, host Network, log *slog.Logger) *Proxy {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := &Proxy{cfg: cfg, tunnel: tunnel, log: log, pongs: make([]pong, len(cfg.CheckAlive))}
	for i := range cfg.Sections {
		s := &section{Section: cfg.Sections[i], listens: host, targets: tunnel, stdin: cfg.Stdin, stdout: cfg.Stdout}
		s.Name, s.places = s.name(), places.New(maxHandshakes, maxHandshakesForOne)
		if s.MaxConnections == 0 {
			s.MaxConnections = DefaultConnections
		}
		if s.Kind.udp() {
			s.places = places.New(s.MaxConnections, max(s.MaxConnections/2, min(s.MaxConnections, minSessionsForOne)))
		}
		if s.Kind == TCPServerTunnel || s.Kind == UDPServerTunnel {
			s.listens, s.targets = tunnel, host
		}
		names := s.targets
		if s.ResolveLocally {
			names = host
		}
		s.dialer = dial.Dialer{Network: s.targets, Names: names, PreferIPv4: cfg.PreferIPv4}
		if s.Username != "" || s.Password != "" {
			s.login = login.New(string(s.Username), string(s.Password))
		}
		s.log = log.With("section", s.Name, "address", s.BindAddress)
		p.sections = append(p.sections, s)
	}
	return p
}

// Run serves cfg until ctx ends, as [Proxy.Run] does.
func Run(ctx context.Context, cfg *Config, tunnel, host Network, log *slog.Logger) error {
	return New(cfg, tunnel, host, log).Run(ctx)
}

// Run checks the configuration and opens all listeners, or none and returns an error; then it serves until ctx ends or the
// STDIOTunnel does, and returns nil, or until a listener fails. When it returns, every connection is closed and every
// goroutine has ended.
func (p *Proxy) Run(ctx context.Context) error {
	if err := p.cfg.Check(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &live{ctx: ctx, open: make(map[io.Closer]struct{})}
	for _, s := range p.sections {
		if err := s.listen(l); err != nil {
			l.end()
			return err
		}
	}
	if p.opened != nil {
		p.opened()
	}
	ended := make(chan error, len(p.sections))
	for _, s := range p.sections {
		l.wg.Go(func() {
			if err := s.serve(l); err != nil || s.Kind == STDIOTunnel {
				ended <- err
			}
		})
	}
	for i := range p.pongs {
		l.wg.Go(func() { p.keepPinging(ctx, i) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-ended:
	}
	cancel() // before the listeners are closed: that they fail is no error then
	l.end()
	l.wg.Wait()
	return err
}

// live is what is open during one Run.
type live struct {
	ctx   context.Context
	wg    sync.WaitGroup
	mu    sync.Mutex // guards what follows
	open  map[io.Closer]struct{}
	ended bool
}

// add has c closed when Run ends, or at once, with false, when it has ended.
func (l *live) add(c io.Closer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		c.Close()
		return false
	}
	l.open[c] = struct{}{}
	return true
}

// drop closes c.
func (l *live) drop(c io.Closer) {
	l.mu.Lock()
	delete(l.open, c)
	l.mu.Unlock()
	c.Close()
}

func (l *live) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	for c := range l.open {
		c.Close()
	}
	clear(l.open)
}

// begin has Run wait for something that was started by others, until wg.Done. It reports false when Run has ended.
func (l *live) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.wg.Add(1)
	}
	return !l.ended
}

// listen opens what the section listens on.
func (s *section) listen(l *live) (err error) {
	switch s.Kind {
	case STDIOTunnel:
		return nil
	case UDPClientTunnel, UDPServerTunnel:
		if s.packets, err = s.listens.ListenPacket("udp", s.BindAddress); err == nil {
			l.add(s.packets)
		}
	default:
		if s.CertFile != "" {
			cert, err := s.Certificate()
			if err != nil {
				return err
			}
			s.tls = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
		}
		if s.listener, err = s.listens.Listen("tcp", s.BindAddress); err == nil {
			l.add(s.listener)
		}
	}
	if err != nil {
		hint := ""
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			hint = "; choose another port, or end the program that uses it"
		case errors.Is(err, fs.ErrPermission):
			hint = "; choose a port from 1024 up"
		}
		return s.errorf("can't listen on %q: %w%s", s.BindAddress, err, hint)
	}
	s.log.Info("proxy: listening")
	if host, _, _ := net.SplitHostPort(s.BindAddress); (s.Kind == Socks5 || s.Kind == HTTP) && s.login == nil && !isLoopback(host) {
		s.log.Warn("proxy: open to every client that reaches it: set Username and Password, or bind to 127.0.0.1")
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// serve serves the section until Run ends.
func (s *section) serve(l *live) error {
	switch s.Kind {
	case STDIOTunnel:
		return s.serveSTDIO(l)
	case UDPClientTunnel, UDPServerTunnel:
		return s.serveUDP(l)
	case HTTP:
		return s.serveHTTP(l)
	}
	for {
		c, err := s.next(l)
		switch {
		case l.ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		s.accept(l, c)
	}
}

// next accepts the next connection. It fails when Run has ended, or the listener is of no use any more.
func (s *section) next(l *live) (net.Conn, error) {
	for failures := 1; ; failures++ {
		c, err := s.listener.Accept()
		if err == nil {
			return c, nil
		}
		if l.ctx.Err() != nil {
			return nil, net.ErrClosed
		}
		// Out of descriptors, or a connection that was reset too early: what is open goes on meanwhile.
		if failures > maxAcceptErrors || errors.Is(err, net.ErrClosed) {
			return nil, s.errorf("can't accept connections: %w", err)
		}
		if s.warned.accept.may() {
			s.log.Warn("proxy: can't accept a connection", "error", err)
		}
		if !sleep(l.ctx, min(time.Second, 5*time.Millisecond<<failures)) {
			return nil, net.ErrClosed
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// accept serves one connection in a goroutine of its own.
func (s *section) accept(l *live, c net.Conn) {
	v := s.admit(l, c)
	if v == nil {
		return
	}
	l.wg.Go(func() {
		defer v.leave()
		defer l.drop(c)
		s.report(l, c, s.handle(l, v))
	})
}

// report notes the error with which a connection ended, if it did.
func (s *section) report(l *live, c net.Conn, err error) {
	if err != nil && l.ctx.Err() == nil {
		s.failed.Add(1)
		s.log.Debug("proxy: connection ended", "client", c.RemoteAddr(), "error", err)
	}
}

// refuse closes the connection of a client above the limit, with a message of its own protocol where one can be sent before
// the client's first.
func (s *section) refuse(l *live, c net.Conn) {
	var message []byte
	switch {
	case s.Kind == Socks5:
		message = []byte{socks5.Version, socks5.NoMethod}
	case s.Kind == HTTP && s.tls == nil:
		message = forward.Refusal(503, tooMany)
	}
	if message == nil || s.refusals.Add(1) > maxRefusals {
		if message != nil {
			s.refusals.Add(-1)
		}
		relay.Abort(c)
		l.drop(c)
		return
	}
	l.wg.Go(func() {
		defer s.refusals.Add(-1)
		defer l.drop(c)
		c.SetDeadline(time.Now().Add(time.Second))
		if _, err := c.Write(message); err == nil {
			relay.Linger(c)
		}
	})
}

// handle serves one connection to its end.
func (s *section) handle(l *live, v *client) error {
	if s.Kind == Socks5 {
		return s.handleSocks(l, v)
	}
	c := v.Conn
	target, err := s.dial(l.ctx, l, "tcp", s.Target)
	if err != nil {
		relay.Abort(c)
		return err
	}
	defer l.drop(target)
	return relay.Join(c, target, s.IdleTimeout, &s.toTarget, &s.toClient)
}

// dial connects to host:port, within [dialTimeout] and before ctx or Run ends. The connection is closed when Run ends.
func (s *section) dial(ctx context.Context, l *live, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	c, err := s.dialer.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if !l.add(c) {
		return nil, net.ErrClosed
	}
	return c, nil
}
