package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"throughline/proxy/internal/forward"
	"throughline/proxy/internal/idle"
	"throughline/proxy/internal/relay"
	"throughline/proxy/internal/socks5"
)

const (
	maxRequestHeader = 64 << 10
	keepAliveTimeout = 60 * time.Second // between two requests of one client
)

// handleHTTP serves the requests of one connection.
func (s *section) handleHTTP(l *live, c net.Conn) error {
	start := time.Now()
	c.SetDeadline(start.Add(handshakeTimeout))
	if s.tls != nil {
		c = tls.Server(c, s.tls) // its handshake is part of the first read
	}
	client := &forward.Client{Conn: c, Left: maxRequestHeader, Count: &s.toClient}
	in := bufio.NewReader(client)
	forward.Await(in) // where this fails, ReadRequest does too
	for {
		client.Left = maxRequestHeader
		req, err := http.ReadRequest(in)
		if err != nil {
			code, text := 400, "this is not a request"
			switch {
			case errors.Is(err, io.EOF) && in.Buffered() == 0:
				return nil
			case errors.Is(err, forward.ErrTooLong):
				code, text = 431, "the header is longer than 64 KiB"
			case socks5.IsTimeout(err):
				code, text = 408, "the request took too long"
			case !isProtocol(err):
				return err
			}
			return s.answer(c, err, code, "", text)
		}
		client.Left = -1
		if s.login != nil && !s.login.MatchesBasic(req.Header.Get("Proxy-Authorization")) {
			return s.answer(c, errLogin, 407, "Proxy-Authenticate: Basic realm=\"proxy\", charset=\"UTF-8\"\r\n", "this proxy asks for a user name and a password")
		}
		if req.Method == http.MethodConnect {
			return s.connect(l, c, in, req)
		}
		again, err := s.forward(l, client, in, req)
		if err != nil || !again {
			return err
		}
		c.SetDeadline(time.Now().Add(keepAliveTimeout))
		if forward.Await(in) != nil {
			return nil // the client has no more requests
		}
		c.SetDeadline(time.Now().Add(handshakeTimeout))
	}
}

// isProtocol reports whether an error is about what was read, not about the connection.
func isProtocol(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	return !ok && !errors.Is(err, net.ErrClosed)
}

// answer refuses a request, and sees to it that the client can read why.
func (s *section) answer(c net.Conn, why error, code int, header, text string) error {
	c.SetDeadline(time.Now().Add(handshakeTimeout))
	if _, err := c.Write(forward.Refusal(code, header, text)); err != nil {
		return err
	}
	relay.Linger(c)
	return why
}

// hostPort returns where a URL's host is, with a port.
func hostPort(host, port string) (string, error) {
	if h, p, err := net.SplitHostPort(host); err == nil {
		host, port = h, p
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if _, bad := netip.ParseAddr(host); err != nil || n == 0 || bad != nil && !socks5.IsHost(host) {
		return "", errors.New("not a host and a port")
	}
	return net.JoinHostPort(host, port), nil
}

// unreached answers a request whose target wasn't reached.
func (s *section) unreached(c net.Conn, err error) error {
	if socks5.ReplyOf(err) == socks5.Expired {
		return s.answer(c, err, 504, "", "the target doesn't answer")
	}
	return s.answer(c, err, 502, "", "the target can't be reached")
}

// connect serves a CONNECT request. RFC 9110 §9.3.6.
func (s *section) connect(l *live, c net.Conn, in *bufio.Reader, req *http.Request) error {
	address, err := hostPort(req.URL.Host, "443")
	if err != nil {
		return s.answer(c, err, 400, "", "the target is not host:port")
	}
	target, err := s.dial(l.ctx, l, "tcp", address)
	if err != nil {
		return s.unreached(c, err)
	}
	defer l.drop(target)
	c.SetDeadline(time.Now().Add(handshakeTimeout))
	if _, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return err
	}
	if n := in.Buffered(); n > 0 { // sent before the answer: it belongs to the target
		early, _ := in.Peek(n)
		target.SetWriteDeadline(time.Now().Add(idle.WriteTimeout))
		if _, err := target.Write(early); err != nil {
			return err
		}
		target.SetDeadline(time.Time{})
		s.toTarget.Add(uint64(n))
	}
	c.SetDeadline(time.Time{})
	return relay.Join(c, target, s.IdleTimeout, &s.toTarget, &s.toClient)
}

// A pooled is a connection to a target that serves one request after the other. Run closes it when it ends, and waits
// until the pool has noted that and closes it too.
type pooled struct {
	net.Conn
	l    *live
	once sync.Once
}

func (c *pooled) Close() error {
	c.once.Do(func() {
		c.l.drop(c.Conn)
		c.l.wg.Done()
	})
	return nil
}

// pool returns the section's connections to targets of plain requests.
func (l *live) pool(s *section) *forward.Pool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.pools[s]
	if p == nil {
		p = forward.NewPool(func(ctx context.Context, address string) (net.Conn, error) {
			if !l.begin() { // the pool connects in goroutines of its own
				return nil, net.ErrClosed
			}
			c, err := s.dial(ctx, l, "tcp", address)
			if err != nil {
				l.wg.Done()
				return nil, err
			}
			return &pooled{Conn: c, l: l}, nil
		}, &s.toTarget)
		if l.pools == nil {
			l.pools = make(map[*section]*forward.Pool)
		}
		l.pools[s] = p
	}
	return p
}

// forward serves any other request, whose target stands in its first line, and reports whether the client may send
// another one.
func (s *section) forward(l *live, c *forward.Client, in *bufio.Reader, req *http.Request) (again bool, err error) {
	req.Host = strings.TrimSuffix(req.URL.Host, ":") // an empty port is the scheme's. RFC 3986 §3.2.3
	if req.URL.Scheme != "http" || req.Host == "" || req.URL.User != nil {
		return false, s.answer(c.Conn, errors.New("not a request to a proxy"), 400, "", "this is a proxy: use CONNECT host:port, or METHOD http://host/path")
	}
	switch further, err := forward.MaxForwards(req); {
	case err != nil:
		return false, s.answer(c.Conn, err, 400, "", "Max-Forwards is not a number")
	case !further && req.Method == http.MethodTrace:
		// An answer would repeat the request, and show to scripts the cookies that a browser hides from them.
		return false, s.answer(c.Conn, errors.New("a TRACE for the proxy itself"), 501, "", "this proxy repeats no requests")
	case !further:
		return false, s.answer(c.Conn, nil, 200, "", "this is a proxy")
	}
	address, err := hostPort(req.Host, "80")
	if err != nil {
		return false, s.answer(c.Conn, err, 400, "", "the target is not host:port")
	}
	late, again, err := l.pool(s).Exchange(l.ctx, c, in, req, address, s.IdleTimeout)
	unreached, ok := errors.AsType[*forward.DialError](err)
	switch {
	case err == nil && !again:
		relay.Linger(c.Conn)
	case err == nil:
	case late:
		relay.Abort(c.Conn) // so that what was cut short doesn't look complete
	case ok:
		return false, s.unreached(c.Conn, unreached.Err)
	case errors.Is(err, forward.ErrRequest):
		return false, s.answer(c.Conn, err, 400, "", "the request can't be sent on")
	default:
		return false, s.answer(c.Conn, err, 502, "", "the target doesn't speak HTTP, or ended too early")
	}
	return again, err
}
