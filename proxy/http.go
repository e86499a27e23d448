package proxy

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"throughline/proxy/internal/hop"
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
	m := &hop.Meter{Conn: c, Left: maxRequestHeader, Count: &s.toClient}
	in := bufio.NewReader(m)
	hop.Await(in) // where this fails, ReadRequest does too
	for {
		m.Left = maxRequestHeader
		req, err := http.ReadRequest(in)
		if err != nil {
			code, text := 400, "this is not a request"
			switch {
			case errors.Is(err, io.EOF) && in.Buffered() == 0:
				return nil
			case errors.Is(err, hop.ErrTooLong):
				code, text = 431, "the header is longer than 64 KiB"
			case socks5.IsTimeout(err):
				code, text = 408, "the request took too long"
			case !isProtocol(err):
				return err
			}
			return s.answer(c, err, code, "", text)
		}
		m.Left = -1
		if s.login != nil && !s.login.AdmitsBasic(req.Header.Get("Proxy-Authorization")) {
			return s.answer(c, errLogin, 407, "Proxy-Authenticate: Basic realm=\"proxy\", charset=\"UTF-8\"\r\n", "this proxy asks for a user name and a password")
		}
		if req.Method == http.MethodConnect {
			return s.connect(l, c, in, req)
		}
		again, err := s.forward(l, m, in, req)
		if err != nil || !again {
			return err
		}
		c.SetDeadline(time.Now().Add(keepAliveTimeout))
		if hop.Await(in) != nil {
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
	if _, err := c.Write(hop.Error(code, header, text)); err != nil {
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

// reach connects to the target of a request, or tells the client why not.
func (s *section) reach(l *live, c net.Conn, host, port string) (net.Conn, error) {
	address, err := hostPort(host, port)
	if err != nil {
		return nil, s.answer(c, err, 400, "", "the target is not host:port")
	}
	target, err := s.dial(l, "tcp", address)
	if err == nil {
		return target, nil
	}
	if socks5.ReplyOf(err) == socks5.Expired {
		return nil, s.answer(c, err, 504, "", "the target doesn't answer")
	}
	return nil, s.answer(c, err, 502, "", "the target can't be reached")
}

// connect serves a CONNECT request. RFC 9110 §9.3.6.
func (s *section) connect(l *live, c net.Conn, in *bufio.Reader, req *http.Request) error {
	target, err := s.reach(l, c, req.URL.Host, "443")
	if err != nil {
		return err
	}
	defer l.drop(target)
	c.SetDeadline(time.Now().Add(handshakeTimeout))
	if _, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return err
	}
	if n := in.Buffered(); n > 0 { // sent before the answer: it belongs to the target
		early, _ := in.Peek(n)
		target.SetWriteDeadline(time.Now().Add(relay.WriteTimeout))
		if _, err := target.Write(early); err != nil {
			return err
		}
		target.SetDeadline(time.Time{})
		s.toTarget.Add(uint64(n))
	}
	c.SetDeadline(time.Time{})
	return relay.Join(c, target, s.IdleTimeout, &s.toTarget, &s.toClient)
}

// forward serves any other request, whose target stands in its first line, and reports whether the client may send
// another one. Each has a connection of its own to the target.
func (s *section) forward(l *live, m *hop.Meter, in *bufio.Reader, req *http.Request) (again bool, err error) {
	req.Host = strings.TrimSuffix(req.URL.Host, ":") // an empty port is the scheme's. RFC 3986 §3.2.3
	if req.URL.Scheme != "http" || req.Host == "" || req.URL.User != nil {
		return false, s.answer(m.Conn, errors.New("not a request to a proxy"), 400, "", "this is a proxy: use CONNECT host:port, or METHOD http://host/path")
	}
	switch left, err := hop.MaxForwards(req); {
	case err != nil:
		return false, s.answer(m.Conn, err, 400, "", "Max-Forwards is not a number")
	case !left && req.Method == http.MethodTrace:
		// An answer would repeat the request, and show to scripts the cookies that a browser hides from them.
		return false, s.answer(m.Conn, errors.New("a TRACE for the proxy itself"), 501, "", "this proxy repeats no requests")
	case !left:
		return false, s.answer(m.Conn, nil, 200, "", "this is a proxy")
	}
	conn, err := s.reach(l, m.Conn, req.Host, "80")
	if err != nil {
		return false, err
	}
	defer l.drop(conn)
	late, again, err := hop.Exchange(m, in, conn, req, s.IdleTimeout, &s.toTarget)
	switch {
	case err == nil && !again:
		relay.Linger(m.Conn)
	case err != nil && !late:
		return false, s.answer(m.Conn, err, 502, "", "the target doesn't speak HTTP, or ended too early")
	case err != nil:
		relay.Abort(m.Conn) // so that what was cut short doesn't look complete
	}
	return again, err
}
