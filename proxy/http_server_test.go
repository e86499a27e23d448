package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestHTTPLaw has requests that a server must answer with 400, and that no target may see.
func TestHTTPLaw(t *testing.T) {
	for _, request := range []string{
		"GET http://192.0.2.1/ HTTP/1.1\r\n\r\n",                                   // RFC 9112 §3.2
		"GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",             // the same
		"GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n",               // RFC 9112 §5.1
		"GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n X: y\r\n\r\n",               // RFC 9112 §2.2
		"GET  http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n\r\n",                       // RFC 9112 §3
		"GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",           // RFC 9110 §5.5
		"POST http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", // RFC 9112 §6.3
		"\x16\x03\x01\x00\r\n\r\n",
		"GET http://192.0.2.1/\r\n\r\n",
		"GET http://192.0.2.1/ HTTP/1.1 x\r\nHost: x\r\n\r\n",
		"G\"T http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n\r\n",              // RFC 9110 §9.1
		"GET http://192.0.2.1/\x00 HTTP/1.1\r\nHost: x\r\n\r\n",           // RFC 9112 §3.2
		"GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nX(Y: z\r\n\r\n",     // RFC 9110 §5.1
		"GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nX\x80: z\r\n\r\n",   // the same
		"GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n: z\r\n\r\n",        // the same
		"GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",   // RFC 9112 §5
		"GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nX: a\rY: b\r\n\r\n", // RFC 9110 §5.5
		"GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nX\t: y\r\n\r\n",     // RFC 9112 §5.1
		"GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nX: a\x7fb\r\n\r\n",  // RFC 9110 §5.5
		"CONNECT 192.0.2.1:1 HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n",        // and of tunnels
		"GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n",
		"GET http://192.0.2.1/ HTTP/1.1\r\nHost: a b\r\n\r\n", // RFC 9112 §3.2
		"GET / HTTP/1.0\r\n\r\n",                              // nothing says to which host
		"OPTIONS * HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
	} {
		c := forwarding(t, "[http]\nBindAddress=127.0.0.1:1", func(net.Conn) { t.Errorf("%q: a target is asked", request) })
		c.SetDeadline(time.Now().Add(patience))
		go io.WriteString(c, request)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 400 {
			t.Errorf("%q: %v, %v", request, resp, err)
		}
	}
}

// TestHTTPTimeout has a client never end its header: it is told.
func TestHTTPTimeout(t *testing.T) {
	for _, sent := range []string{"", "GET http://192.0.2.1/ HTTP/1.1\r\n"} {
		synctest.Test(t, func(t *testing.T) {
			c := forwarding(t, "[http]\nBindAddress=127.0.0.1:1", func(net.Conn) { t.Error("a target is asked") })
			io.WriteString(c, sent)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || resp.StatusCode != 408 || resp.Header.Get("Date") != "Sat, 01 Jan 2000 00:00:10 GMT" {
				t.Errorf("%v, %v", resp, err)
			}
		})
	}
}

// TestHTTPBareCR has a target put a bare CR, which some clients take for the line's end, into all that it says: it doesn't go on.
func TestHTTPBareCR(t *testing.T) {
	for _, response := range []string{
		"HTTP/1.1 200 fine\rSet-Cookie: x=y\r\nContent-Length: 2\r\n\r\nhi",
		"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: x=y\r\nContent-Length: 2\r\n\r\nhi",
		"HTTP/1.1 200 OK\r\nX\rSet-Cookie: x=y\r\nContent-Length: 2\r\n\r\nhi",
		"HTTP/1.1 103 hints\rSet-Cookie: x=y\r\nX: a\rSet-Cookie: x=y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\nhi\r\n0\r\nX: a\rSet-Cookie: x=y\r\n\r\n",
		"HTTP/1.1 101 up\rSet-Cookie: x=y\r\nConnection: Upgrade\r\nUpgrade: x\r\nX: a\rSet-Cookie: x=y\r\n\r\nhi",
	} {
		synctest.Test(t, func(t *testing.T) {
			c := forwarding(t, "[http]\nBindAddress=127.0.0.1:1", func(target net.Conn) {
				http.ReadRequest(bufio.NewReader(target))
				io.WriteString(target, response)
			})
			if strings.Contains(response, " 101 ") {
				io.WriteString(c, "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			} else {
				io.WriteString(c, "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			}
			b, _ := io.ReadAll(c)
			if strings.Contains(strings.ReplaceAll(string(b), "\r\n", ""), "\r") || !strings.HasPrefix(string(b), "HTTP/1.1 ") {
				t.Errorf("%q: the client sees %q", response, b)
			}
		})
	}
}

// TestHTTPDate holds that a response which is sent on says when it was received, if its origin doesn't say when it was made. RFC 9110
// §6.6.1.
func TestHTTPDate(t *testing.T) {
	for _, tt := range []struct{ said, want string }{
		{"", "Sat, 01 Jan 2000 00:00:00 GMT"},
		{"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n", "Thu, 01 Jan 1970 00:00:00 GMT"},
		{"Date: now\r\n", "now"},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := forwarding(t, "[http]\nBindAddress=127.0.0.1:1", func(target net.Conn) {
				http.ReadRequest(bufio.NewReader(target))
				io.WriteString(target, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n"+tt.said+"Content-Length: 2\r\n\r\nhi")
			})
			io.WriteString(c, "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n\r\n")
			expect(t, c, []byte("HTTP/1.1 103 Early Hints\r\n\r\n")...)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || len(resp.Header["Date"]) != 1 || resp.Header.Get("Date") != tt.want {
				t.Errorf("%v, %v, want %s", resp, err, tt.want)
			}
		})
	}
}

// TestHTTPRelative has requests whose target is a path, and whose host is in Host, as wireproxy serves them.
func TestHTTPRelative(t *testing.T) {
	for _, tt := range []struct{ request, want string }{
		{"GET /a?b HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n", "192.0.2.1:80 GET /a?b HTTP/1.1\r\nHost: 192.0.2.1\r\n"},
		{"GET / HTTP/1.0\r\nHost: 192.0.2.1:8080\r\n\r\n", "192.0.2.1:8080 GET / HTTP/1.1\r\nHost: 192.0.2.1:8080\r\n"},
		{"GET //a/b HTTP/1.1\r\nHost: [2001:db8::1]:\r\n\r\n", "[2001:db8::1]:80 GET //a/b HTTP/1.1\r\nHost: [2001:db8::1]\r\n"},
	} {
		checkForwarded(t, tt.request, tt.want)
	}
}

// TestHTTPLoop has requests lead to the proxy itself, by its address and by names: each ends there, and takes no more connections.
func TestHTTPLoop(t *testing.T) {
	tunnel := &fake{names: map[string][]netip.Addr{"me.example": {loopback}, "localhost": {loopback}}}
	p := start(t, config(t, "[Interface]\nDNS=1.1.1.1\n[http]\nBindAddress=127.0.0.1:0"), tunnel, Host{})
	_, port, _ := net.SplitHostPort(p.addr(0))
	for i, request := range []string{
		"GET / HTTP/1.1\r\nHost: 127.0.0.1:%s\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: localhost:%s\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: me.example:%s\r\n\r\n",
		"GET http://me.example:%s/ HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET http://127.0.0.1:%s/ HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: me.example:%s\r\nContent-Length: 0\r\n\r\n",
	} {
		before := p.sections[0].total.Load()
		c := connectTo(t, "tcp", p.addr(0))
		fmt.Fprintf(c, request, port)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if n := p.sections[0].total.Load() - before; err != nil || resp.StatusCode != 400 || n > 2 {
			t.Errorf("request %d: %v, %v, %d connections", i, resp, err, n)
		}
	}
}

// TestHTTPUpgrade has a connection become one of another protocol, as WebSocket does, and be idle at last.
func TestHTTPUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
		c := forwarding(t, "[http]\nBindAddress=127.0.0.1:1\nIdleTimeout=60", func(target net.Conn) {
			in := bufio.NewReader(target)
			req, err := http.ReadRequest(in)
			if err != nil || req.Header.Get("Upgrade") != "websocket" || req.Header.Get("Connection") != "Upgrade" {
				t.Errorf("the target saw %v, %v", req, err)
			}
			io.WriteString(target, answer+"hello")
			io.Copy(target, in)
		})
		io.WriteString(c, "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		expect(t, c, []byte(answer+"hello")...)
		for range 3 {
			time.Sleep(50 * time.Second)
			pingPong(t, c, "ping")
		}
		began := time.Now()
		if _, err := c.Read(make([]byte, 1)); err == nil || time.Since(began) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// TestHTTPInterim has a target send an interim response long before the final one, to clients that know such and one that
// doesn't.
func TestHTTPInterim(t *testing.T) {
	for version, want := range map[string]string{
		"1.1": "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
		"1.0": "",
	} {
		synctest.Test(t, func(t *testing.T) {
			c := forwarding(t, "[http]\nBindAddress=127.0.0.1:1", func(target net.Conn) {
				http.ReadRequest(bufio.NewReader(target))
				io.WriteString(target, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n")
				time.Sleep(time.Minute)
				io.WriteString(target, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nhi")
			})
			began := time.Now()
			fmt.Fprintf(c, "GET http://192.0.2.1/ HTTP/%s\r\nHost: x\r\n\r\n", version)
			expect(t, c, []byte(want)...)
			if time.Since(began) != 0 {
				t.Errorf("the interim response comes after %v", time.Since(began))
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || resp.StatusCode != 200 || len(resp.Header) != 2 {
				t.Errorf("%v, %v", resp, err)
			}
		})
	}
}

// TestHTTPContinue has a target refuse a body of which the client waits to be asked: it is not asked.
func TestHTTPContinue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := forwarding(t, "[http]\nBindAddress=127.0.0.1:1", func(target net.Conn) {
			http.ReadRequest(bufio.NewReader(target))
			io.WriteString(target, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n")
			io.Copy(io.Discard, target)
		})
		io.WriteString(c, "POST http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
		expect(t, c, []byte("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nConnection: close\r\n\r\n")...)
		expectEnd(t, c)
	})
}

// TestHTTPRestOfBody has a response come before the request's body, whose rest may look like a request: the connection ends.
func TestHTTPRestOfBody(t *testing.T) {
	for _, framing := range []string{"Content-Length: 1000\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n3e8\r\nx", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"} {
		var asked atomic.Int32
		c := forwarding(t, "[http]\nBindAddress=127.0.0.1:1", func(target net.Conn) {
			asked.Add(1)
			http.ReadRequest(bufio.NewReader(target))
			io.WriteString(target, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n")
			io.Copy(io.Discard, target)
		})
		c.SetDeadline(time.Now().Add(patience))
		io.WriteString(c, "POST http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n"+framing)
		expect(t, c, []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n")...)
		expectEnd(t, c)
		io.WriteString(c, "GET http://192.0.2.1/smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
		if n := asked.Load(); n != 1 {
			t.Errorf("targets were asked %d times", n)
		}
	}
}

// TestHTTPReset has clients reset their connections while the target is silent: each lets its place go at once.
func TestHTTPReset(t *testing.T) {
	target := serve(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	p := start(t, config(t, "[http]\nBindAddress=127.0.0.1:0"), Host{}, Host{})
	for _, behind := range []string{"", "GET ", strings.Repeat("x", 3000)} {
		c := connectTo(t, "tcp", p.addr(0)).(*net.TCPConn)
		fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n%s", target, behind)
		for p.sections[0].toTarget.Load() == 0 {
			runtime.Gosched()
		}
		c.SetLinger(0)
		c.Close()
		for began := time.Now(); p.sections[0].open.Load() > 0; runtime.Gosched() {
			if time.Since(began) > time.Second {
				t.Fatal("the client keeps its place")
			}
		}
	}
}

// TestHTTPClosedBehind has a client begin another request, and close its connection, while the target is silent: that it is
// gone shows behind what it sent.
func TestHTTPClosedBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan time.Duration, 1)
		began := time.Now()
		c := forwarding(t, "[http]\nBindAddress=127.0.0.1:1\nIdleTimeout=off", func(target net.Conn) {
			io.Copy(io.Discard, target)
			ended <- time.Since(began)
		})
		io.WriteString(c, "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n\r\n")
		io.WriteString(c, "G")
		c.CloseWrite()
		go io.Copy(io.Discard, c)
		if got := <-ended; got != 2*time.Minute {
			t.Errorf("the target was let go after %v", got)
		}
	})
}

// TestHTTPLetsGo holds that nothing of a connection that has ended is kept until Run ends: neither of one that served requests,
// nor of one that became a tunnel.
func TestHTTPLetsGo(t *testing.T) {
	for _, request := range []string{"GET http://192.0.2.1/ HTTP/1.0\r\n\r\n", "CONNECT 192.0.2.1:1 HTTP/1.1\r\n\r\n"} {
		before := runtime.NumGoroutine()
		l := &live{ctx: foreign{t.Context(), make(chan struct{})}, open: make(map[io.Closer]struct{})}
		tunnel := &fake{dial: func(context.Context, string, string) (net.Conn, error) {
			return &script{in: strings.NewReader("HTTP/1.1 204 No Content\r\n\r\n")}, nil
		}}
		s := New(config(t, "[http]\nBindAddress=127.0.0.1:1"), tunnel, Host{}, nil).sections[0]
		serveOne(s, l, &script{in: strings.NewReader(request)})
		l.wg.Wait()
		if len(l.open) > 0 {
			t.Errorf("%q: %d connections are left", request, len(l.open))
		}
		settle(t, before)
	}
}

// A foreign is a context that package context doesn't know: each that is derived from it has a goroutine until it is released.
type foreign struct {
	context.Context
	done chan struct{}
}

func (c foreign) Done() <-chan struct{} { return c.done }
func (c foreign) Value(any) any         { return nil }
