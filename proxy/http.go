package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"throughline/proxy/internal/datagram"
	"throughline/proxy/internal/forward"
	"throughline/proxy/internal/idle"
	"throughline/proxy/internal/relay"
	"throughline/proxy/internal/socks5"
)

const (
	maxRequestHeader = 64 << 10
	keepAliveTimeout = 60 * time.Second // between two requests of one client
)

const tooMany = "all connections of this proxy are taken; try again later"

var errCut = errors.New("the response was cut short")

// A limitListener is a section's listener as an http.Server has it: its connections are those that were let in.
type limitListener struct {
	net.Listener
	s *section
	l *live
}

func (ll limitListener) Accept() (net.Conn, error) {
	for {
		c, err := ll.s.next(ll.l)
		if err != nil {
			return nil, err
		}
		v := ll.s.admit(ll.l, c)
		if v == nil {
			continue
		}
		ll.l.wg.Add(1) // until leave
		if ll.s.tls != nil {
			c = tls.Server(c, ll.s.tls)
		}
		return forward.NewConn(c, handshakeTimeout, v), nil
	}
}

// leave ends what Accept began, when the server has closed a connection, or when the handler has that took it over.
func (s *section) leave(l *live, c *forward.Conn) {
	v := c.Owner.(*client)
	l.drop(v.Conn)
	v.leave()
	s.report(l, v.Conn, c.End())
	l.wg.Done()
}

// serveHTTP serves an HTTP proxy until Run ends.
func (s *section) serveHTTP(l *live) error {
	log := slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)
	p := forward.New(func(ctx context.Context, address string) (net.Conn, error) { return s.pool(ctx, l, address) }, s.unanswered, log)
	server := &http.Server{
		Handler:                      http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.handleHTTP(l, p, w, r) }),
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            handshakeTimeout,
		IdleTimeout:                  keepAliveTimeout,
		MaxHeaderBytes:               maxRequestHeader - 4<<10, // the server adds as much
		ErrorLog:                     log,
		BaseContext:                  func(net.Listener) context.Context { return l.ctx },
		ConnContext:                  forward.Bind,
		ConnState: func(c net.Conn, state http.ConnState) {
			client := c.(*forward.Conn)
			if client.Note(state); state == http.StateClosed {
				s.leave(l, client)
			}
		},
	}
	if err := server.Serve(limitListener{s.listener, s, l}); l.ctx.Err() == nil {
		return err
	}
	return nil
}

// handleHTTP serves one request.
func (s *section) handleHTTP(l *live, p *forward.Proxy, w http.ResponseWriter, r *http.Request) {
	c := forward.ConnOf(r)
	whole := false
	defer func() {
		switch {
		case c.Hijacked():
			s.leave(l, c)
		case !whole:
			c.Fail(errCut)
			relay.Abort(c.Conn) // so that what was cut short doesn't look complete
		}
	}()
	c.Begin(w)
	switch {
	case s.login != nil && !s.login.MatchesBasic(r.Header.Get("Proxy-Authorization")):
		w.Header().Set("Proxy-Authenticate", `Basic realm="proxy", charset="UTF-8"`)
		answer(w, r, errLogin, 407, "this proxy asks for a user name and a password")
	case c.Owner.(*client).serve() != nil:
		answer(w, r, errFull, 503, tooMany)
	case r.Method == http.MethodConnect:
		s.connect(l, w, r)
	default:
		s.forward(p, w, r)
	}
	c.Finish(w, r.Body)
	whole = true
}

// answer answers a request in the proxy's own name, and ends the connection.
func answer(w http.ResponseWriter, r *http.Request, why error, code int, text string) {
	forward.ConnOf(r).Refuse(why)
	h := w.Header()
	h.Set("Connection", "close")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(text)+1))
	w.WriteHeader(code)
	io.WriteString(w, text+"\n")
}

// unanswered answers a request that failed before its response came.
func (s *section) unanswered(w http.ResponseWriter, r *http.Request, err error) {
	unreached, ok := errors.AsType[*forward.DialError](err)
	switch {
	case forward.ConnOf(r).Context().Err() != nil:
		panic(http.ErrAbortHandler) // nobody reads an answer
	case !ok:
		answer(w, r, err, 502, "the target doesn't speak HTTP, or ended too early")
	case socks5.ReplyOf(unreached.Err) == socks5.Expired:
		answer(w, r, err, 504, "the target doesn't answer")
	default:
		answer(w, r, err, 502, "the target can't be reached")
	}
}

// connect serves a CONNECT request. RFC 9110 §9.3.6.
func (s *section) connect(l *live, w http.ResponseWriter, r *http.Request) {
	address, err := socks5.HostPort(r.URL.Host, "443")
	if err != nil {
		answer(w, r, err, 400, "the target is not host:port")
		return
	}
	client := forward.ConnOf(r)
	target, err := s.dial(client.Context(), l, "tcp", address)
	if err != nil {
		s.unanswered(w, r, &forward.DialError{Err: err})
		return
	}
	defer l.drop(target)
	early, err := client.Hijack(w)
	if err != nil {
		client.Fail(err)
		return
	}
	c := client.Conn
	c.SetDeadline(time.Now().Add(handshakeTimeout))
	target.SetWriteDeadline(time.Now().Add(idle.WriteTimeout))
	_, err = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	if err == nil && len(early) > 0 { // sent before the answer: it belongs to the target
		_, err = target.Write(early)
		s.toTarget.Add(uint64(len(early)))
	}
	if err == nil {
		c.SetDeadline(time.Time{})
		target.SetDeadline(time.Time{})
		err = relay.Join(c, target, s.IdleTimeout, &s.toTarget, &s.toClient)
	}
	client.Fail(err)
}

// A pooled is a connection to a target that serves one request after the other. Run closes it when it ends, and waits
// until the pool has noted that and closes it too.
type pooled struct {
	net.Conn
	s    *section
	l    *live
	once sync.Once
}

func (c *pooled) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.s.toTarget.Add(uint64(n))
	return n, err
}

func (c *pooled) Close() error {
	c.once.Do(func() {
		c.s.outgoing.Delete(datagram.AddrPort(c.LocalAddr()))
		c.l.drop(c.Conn)
		c.l.wg.Done()
	})
	return nil
}

// pool connects to a target of plain requests. net/http calls it in goroutines of its own.
func (s *section) pool(ctx context.Context, l *live, address string) (net.Conn, error) {
	if !l.begin() {
		return nil, net.ErrClosed
	}
	c, err := s.dial(ctx, l, "tcp", address)
	if err != nil {
		l.wg.Done()
		return nil, err
	}
	s.outgoing.Store(datagram.AddrPort(c.LocalAddr()), true)
	return &pooled{Conn: c, s: s, l: l}, nil
}

// isLoop reports whether a request whose host stands in Host only, as in those that the proxy sends on, comes from the proxy
// itself, or leads to it.
func (s *section) isLoop(r *http.Request) bool {
	c := forward.ConnOf(r)
	from := datagram.AddrPort(c.RemoteAddr())
	_, own := s.outgoing.Load(from)
	return own && from.IsValid() || r.Host == c.LocalAddr().String()
}

// forward serves any other request. Its target stands in its first line, or, as wireproxy has it, is a path at Host.
func (s *section) forward(p *forward.Proxy, w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.RequestURI, "/") && r.Host != "" && !s.isLoop(r) {
		r.URL.Scheme, r.URL.Host = "http", r.Host
	}
	r.Host = strings.TrimSuffix(r.URL.Host, ":") // an empty port is the scheme's. RFC 3986 §3.2.3
	if r.URL.Scheme != "http" || r.Host == "" || r.URL.User != nil {
		answer(w, r, errors.New("not a request to a proxy"), 400, "this is a proxy: use CONNECT host:port, or METHOD http://host/path")
		return
	}
	address, bad := socks5.HostPort(r.Host, "80")
	further, err := forward.MaxForwards(r)
	switch {
	case err != nil:
		answer(w, r, err, 400, "Max-Forwards is not a number")
	case !further && r.Method == http.MethodTrace:
		// An answer would repeat the request, and show to scripts the cookies that a browser hides from them.
		answer(w, r, errors.New("a TRACE for the proxy itself"), 501, "this proxy repeats no requests")
	case !further:
		answer(w, r, nil, 200, "this is a proxy")
	case bad != nil:
		answer(w, r, bad, 400, "the target is not host:port")
	default:
		p.Serve(w, r, address, s.IdleTimeout, &s.toClient)
	}
}
