package proxy

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"throughline/proxy/internal/socks5"
)

func httpConnect(t testing.TB, c net.Conn, to string) {
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", to)
	want := "HTTP/1.1 200 Connection established\r\n\r\n"
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Errorf("the proxy says %q, %v", b, err)
	}
}

func TestConnect(t *testing.T) {
	target := echo(t)
	p := start(t, config(t, "[http]\nBindAddress=127.0.0.1:0"), Host{}, Host{})
	c := connectTo(t, "tcp", p.addr(0))
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\nearly", target) // sent before the answer
	expect(t, c, []byte("HTTP/1.1 200 Connection established\r\n\r\nearly")...)
	pingPong(t, c, "late")
	c.(*net.TCPConn).CloseWrite()
	expectEnd(t, c)
}

// seen is what the target of a plain request saw.
func seen(t *testing.T) (http.Handler, chan *http.Request) {
	got := make(chan *http.Request, 10)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(strings.NewReader(string(b)))
		got <- r
		w.Header().Set("X-End", "1")
		fmt.Fprintf(w, "%s %s", r.Method, b)
	}), got
}

func TestForward(t *testing.T) {
	handler, got := seen(t)
	srv := httptest.NewServer(handler)
	defer srv.Close()
	p := start(t, config(t, "[http]\nBindAddress=127.0.0.1:0"), Host{}, Host{})
	c := connectTo(t, "tcp", p.addr(0))
	r := bufio.NewReader(c)
	host := strings.TrimPrefix(srv.URL, "http://")
	for i, tt := range []struct{ request, want string }{
		{"GET %s/a?b=%%20c HTTP/1.1\r\nHost: other\r\nConnection: keep-alive, x-mine\r\nX-Mine: 1\r\nX-Keep: 1\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nTE: trailers\r\n\r\n", "GET "},
		{"POST %s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", "POST hello"},
		{"PUT %s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "PUT hello"},
		{"HEAD %s/ HTTP/1.1\r\nHost: x\r\n\r\n", ""},
		{"DELETE %s/ HTTP/1.0\r\n\r\n", "DELETE "},
	} {
		fmt.Fprintf(c, tt.request, srv.URL)
		method, _, _ := strings.Cut(tt.request, " ")
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || string(b) != tt.want || resp.StatusCode != 200 || resp.Header.Get("X-End") != "1" {
			t.Errorf("request %d: %q, %v, %v", i, b, err, resp)
		}
		req := <-got
		if req.Host != host || req.Header.Get("User-Agent") != "" || req.Header.Get("Via") != "" {
			t.Errorf("request %d: the target saw host %q, %v", i, req.Host, req.Header)
		}
		if i == 0 {
			for _, h := range []string{"X-Mine", "Proxy-Connection", "Proxy-Authorization", "Te"} {
				if req.Header.Get(h) != "" {
					t.Errorf("%s was sent on", h)
				}
			}
			if req.Header.Get("X-Keep") != "1" || req.RequestURI != "/a?b=%20c" {
				t.Errorf("the target saw %s, %v", req.RequestURI, req.Header)
			}
		}
		if last := i == 4; resp.Close != last {
			t.Errorf("request %d: the connection is to be closed: %v", i, resp.Close)
		}
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("after the last response: %v, want the end", err)
	}
}

// TestForwardStreams holds that pieces of bodies arrive before the next ones are sent, both ways.
func TestForwardStreams(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		rc.EnableFullDuplex()
		b := make([]byte, 5)
		for {
			n, err := io.ReadFull(r.Body, b)
			if n > 0 {
				w.Write(b[:n])
				rc.Flush()
			}
			if err != nil {
				return
			}
		}
	}))
	defer srv.Close()
	p := start(t, config(t, "[http]\nBindAddress=127.0.0.1:0"), Host{}, Host{})
	c := connectTo(t, "tcp", p.addr(0))
	fmt.Fprintf(c, "POST %s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", srv.URL)
	r := bufio.NewReader(c)
	var resp *http.Response
	for i := range 3 {
		fmt.Fprintf(c, "5\r\nping%d\r\n", i)
		if resp == nil {
			var err error
			if resp, err = http.ReadResponse(r, nil); err != nil {
				t.Fatal(err)
			}
		}
		b := make([]byte, 5)
		if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != fmt.Sprint("ping", i) {
			t.Fatalf("%q, %v", b, err)
		}
	}
	fmt.Fprint(c, "0\r\n\r\n")
	if b, err := io.ReadAll(resp.Body); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
}

// TestForwardOddTargets has targets that answer in their own way.
func TestForwardOddTargets(t *testing.T) {
	say := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, text)
		}
	}
	for name, tt := range map[string]struct {
		target func(net.Conn)
		want   string
		broken bool // the connection ends with a reset
	}{
		"interim":        {say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n", false},
		"hop by hop":     {say("HTTP/1.1 200 OK\r\nConnection: x-hop, Keep-Alive\r\nX-Hop: 1\r\nKeep-Alive: x\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nX-Keep: 1\r\n\r\n"), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nX-Keep: 1\r\n\r\n", false},
		"until the end":  {say("HTTP/1.0 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nbody"), "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nConnection: close\r\n\r\nbody", false},
		"cut short":      {say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nbody"), "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nbody", true},
		"nothing":        {say(""), "HTTP/1.1 502 Bad Gateway\r\n", false},
		"not HTTP":       {say("SSH-2.0-x\r\n"), "HTTP/1.1 502 Bad Gateway\r\n", false},
		"endless header": {say("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 300<<10)), "HTTP/1.1 502 Bad Gateway\r\n", false},
		"switches":       {say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), "HTTP/1.1 502 Bad Gateway\r\n", false},
		"interim only":   {say(strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 20)), strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 8) + "HTTP/1.1 502 Bad Gateway\r\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			target := serve(t, tt.target)
			p := start(t, config(t, "[http]\nBindAddress=127.0.0.1:0"), Host{}, Host{})
			c := connectTo(t, "tcp", p.addr(0))
			fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", target)
			b := make([]byte, len(tt.want))
			if _, err := io.ReadFull(c, b); err != nil || string(b) != tt.want {
				t.Fatalf("got %q, %v\nwant %q", b, err, tt.want)
			}
			c.(*net.TCPConn).CloseWrite()
			if _, err := io.ReadAll(c); (err != nil) != tt.broken {
				t.Errorf("it ends with %v", err)
			}
		})
	}
}

// TestForwardEarlyAnswer has a target answer without reading the body, which the client never finishes.
func TestForwardEarlyAnswer(t *testing.T) {
	target := serve(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
		io.Copy(io.Discard, c)
	})
	p := start(t, config(t, "[http]\nBindAddress=127.0.0.1:0"), Host{}, Host{})
	c := connectTo(t, "tcp", p.addr(0))
	fmt.Fprintf(c, "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nbegin", target)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 413 {
		t.Fatalf("%v, %v", resp, err)
	}
	expectEnd(t, c)
}

// forwarding serves one client in memory, and has each serve what the proxy connects to. All of it has ended when the
// test does.
func forwarding(t *testing.T, text string, each func(net.Conn)) (client wire) {
	t.Helper()
	l := &live{ctx: context.Background(), open: make(map[io.Closer]struct{})}
	tunnel := &fake{dial: func(_ context.Context, _, address string) (net.Conn, error) {
		conn, target := newWire()
		target.to = address
		l.wg.Go(func() {
			defer target.Close()
			each(target)
		})
		return conn, nil
	}}
	c, client := newWire()
	serveOne(New(config(t, text), tunnel, Host{}, nil).sections[0], l, c)
	t.Cleanup(func() {
		client.Close()
		l.wg.Wait()
	})
	return client
}

// TestForwardIdle has one direction of a request keep the other one open.
func TestForwardIdle(t *testing.T) {
	const text = "[http]\nBindAddress=127.0.0.1:1\nIdleTimeout=60"
	slowly := func(c net.Conn) {
		for range 10 {
			time.Sleep(50 * time.Second)
			io.WriteString(c, "x")
		}
	}
	t.Run("upload", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := forwarding(t, text, func(target net.Conn) {
				req, _ := http.ReadRequest(bufio.NewReader(target))
				n, _ := io.Copy(io.Discard, req.Body)
				fmt.Fprintf(target, "HTTP/1.1 200 OK\r\nX-Got: %d\r\nContent-Length: 0\r\n\r\n", n)
			})
			io.WriteString(c, "PUT http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
			slowly(c)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || resp.Header.Get("X-Got") != "10" {
				t.Errorf("%v, %v", resp, err)
			}
		})
	})
	t.Run("download", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := forwarding(t, text, func(target net.Conn) {
				req, _ := http.ReadRequest(bufio.NewReader(target))
				io.WriteString(target, "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n")
				slowly(target)
				b, _ := io.ReadAll(req.Body)
				target.Write(b)
			})
			io.WriteString(c, "PUT http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			io.ReadFull(resp.Body, make([]byte, 10))
			io.WriteString(c, "hello")
			if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "hello" {
				t.Errorf("%q, %v", b, err)
			}
		})
	})
	t.Run("silence", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := forwarding(t, text, func(target net.Conn) { io.Copy(io.Discard, target) })
			began := time.Now()
			io.WriteString(c, "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || resp.StatusCode != 502 || time.Since(began) != time.Minute {
				t.Errorf("%v, %v after %v", resp, err, time.Since(began))
			}
		})
	})
}

// TestForwardForms has targets in forms that are seldom seen.
func TestForwardForms(t *testing.T) {
	for _, tt := range []struct{ request, want string }{
		{"GET http://192.0.2.1:/a HTTP/1.1\r\nHost: x\r\n\r\n", "192.0.2.1:80 GET /a HTTP/1.1\r\nHost: 192.0.2.1\r\n"},
		{"GET http://[2001:db8::1]:/a HTTP/1.1\r\nHost: x\r\n\r\n", "[2001:db8::1]:80 GET /a HTTP/1.1\r\nHost: [2001:db8::1]\r\n"},
		{"GET http://192.0.2.1:8080 HTTP/1.1\r\nHost: x\r\n\r\n", "192.0.2.1:8080 GET / HTTP/1.1\r\nHost: 192.0.2.1:8080\r\n"},
		{"OPTIONS http://192.0.2.1 HTTP/1.1\r\nHost: x\r\n\r\n", "192.0.2.1:80 OPTIONS * HTTP/1.1\r\nHost: 192.0.2.1\r\n"},
		{"OPTIONS http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n\r\n", "192.0.2.1:80 OPTIONS / HTTP/1.1\r\n"},
		{"OPTIONS http://192.0.2.1? HTTP/1.1\r\nHost: x\r\n\r\n", "192.0.2.1:80 OPTIONS /? HTTP/1.1\r\n"},
		{"OPTIONS http://192.0.2.1?a HTTP/1.1\r\nHost: x\r\n\r\n", "192.0.2.1:80 OPTIONS /?a HTTP/1.1\r\n"},
		{"OPTIONS http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 10\r\n\r\n", "192.0.2.1:80 OPTIONS / HTTP/1.1\r\nHost: 192.0.2.1\r\nMax-Forwards: 9\r\n"},
	} {
		checkForwarded(t, tt.request, tt.want)
	}
}

// checkForwarded sends one request, and checks the target that it reaches, and how what that one receives begins.
func checkForwarded(t *testing.T, request, want string) {
	t.Helper()
	got := ""
	c := forwarding(t, "[http]\nBindAddress=127.0.0.1:1", func(target net.Conn) {
		b := make([]byte, 1000)
		n, _ := target.Read(b)
		got = target.(wire).to + " " + string(b[:n])
		io.WriteString(target, "HTTP/1.1 204 No Content\r\n\r\n")
	})
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, request)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 204 || !strings.HasPrefix(got, want) {
		t.Errorf("%q: %v, %v; the target saw %q", request, resp, err, got)
	}
}

// TestForwardEmptyLine has a client send an empty line after a body, as some do after that of a POST, and its next request later.
func TestForwardEmptyLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := forwarding(t, "[http]\nBindAddress=127.0.0.1:1", func(target net.Conn) {
			req, _ := http.ReadRequest(bufio.NewReader(target))
			io.ReadAll(req.Body)
			io.WriteString(target, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n")
		})
		for range 3 {
			io.WriteString(c, "POST http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx\r\n")
			expect(t, c, []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n")...)
			time.Sleep(keepAliveTimeout - time.Second)
		}
	})
}

// TestForwardClientGone has clients go away while the target is silent: it must be told, and their place be free again.
func TestForwardClientGone(t *testing.T) {
	reset := func(c *net.TCPConn) { c.SetLinger(0); c.Close() }
	for name, tt := range map[string]struct {
		request string
		leave   func(*net.TCPConn)
	}{
		"no body":                  {"GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", reset},
		"another request":          {"GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\nGET ", reset},
		"whole body":               {"PUT http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", reset},
		"half a body":              {"PUT http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nx", reset},
		"half a body, then an end": {"PUT http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nx", func(c *net.TCPConn) { c.Close() }},
	} {
		t.Run(name, func(t *testing.T) {
			asked, told := make(chan bool), make(chan error)
			target := serve(t, func(c net.Conn) {
				req, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					t.Error(err)
				} else {
					io.ReadFull(req.Body, make([]byte, min(req.ContentLength, 1)))
				}
				asked <- true
				_, err = io.Copy(io.Discard, c)
				told <- err
			})
			p := start(t, config(t, "[http]\nBindAddress=127.0.0.1:0\nMaxConnections=1"), Host{}, Host{})
			c := connectTo(t, "tcp", p.addr(0)).(*net.TCPConn)
			fmt.Fprintf(c, tt.request, target)
			<-asked
			tt.leave(c)
			if err := <-told; socks5.IsTimeout(err) {
				t.Error("the target isn't told")
			}
			for end := time.Now().Add(patience); p.sections[0].open.Load() > 0; runtime.Gosched() {
				if time.Now().After(end) {
					t.Fatal("the client keeps its place")
				}
			}
		})
	}
}

// TestForwardHalfClose has a client end its direction with its request: that doesn't mean that it is gone.
func TestForwardHalfClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := forwarding(t, "[http]\nBindAddress=127.0.0.1:1", func(target net.Conn) {
			http.ReadRequest(bufio.NewReader(target))
			time.Sleep(time.Minute)
			io.WriteString(target, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nhi")
		})
		io.WriteString(c, "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n\r\n")
		c.CloseWrite()
		expect(t, c, []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nhi")...)
		expectEnd(t, c)
	})
}

// TestForwardClosed has a client close its connection while the target is silent: it doesn't hold its place for hours.
func TestForwardClosed(t *testing.T) {
	for _, idle := range []string{"2h", "off", "30"} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			ended := make(chan time.Duration, 1)
			c := forwarding(t, "[http]\nBindAddress=127.0.0.1:1\nIdleTimeout="+idle, func(target net.Conn) {
				in := bufio.NewReader(target)
				http.ReadRequest(in)
				io.Copy(io.Discard, in)
				ended <- time.Since(began)
			})
			io.WriteString(c, "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n\r\n")
			time.Sleep(time.Second)
			c.CloseWrite()
			go io.Copy(io.Discard, c)
			want := 121 * time.Second
			if idle == "30" {
				want = 30 * time.Second
			}
			if got := <-ended; got != want {
				t.Errorf("IdleTimeout %s: the target was let go after %v, want %v", idle, got, want)
			}
		})
	}
}

// TestForwardPipelined has a client send on while it waits: piece by piece, and more than the proxy's buffer holds.
func TestForwardPipelined(t *testing.T) {
	for _, idle := range []string{"60", "off"} {
		synctest.Test(t, func(t *testing.T) {
			c := forwarding(t, "[http]\nBindAddress=127.0.0.1:1\nIdleTimeout="+idle, func(target net.Conn) {
				req, err := http.ReadRequest(bufio.NewReader(target))
				if err != nil {
					t.Error(err)
					return
				}
				b, _ := io.ReadAll(req.Body)
				time.Sleep(time.Second)
				fmt.Fprintf(target, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s%s", len(req.RequestURI)+len(b), req.RequestURI, b)
			})
			var all strings.Builder
			for i := range 50 {
				fmt.Fprintf(&all, "GET http://192.0.2.1/%d HTTP/1.1\r\nHost: x\r\nX: %0100d\r\n\r\n", i, i)
				fmt.Fprintf(&all, "PUT http://192.0.2.1/%d HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", i)
			}
			sent := make(chan error, 1)
			go func() {
				for b := []byte(all.String()); ; time.Sleep(100 * time.Millisecond) {
					n, err := c.Write(b[:min(len(b), 97)])
					if b = b[n:]; err != nil || len(b) == 0 {
						sent <- err
						return
					}
				}
			}()
			r := bufio.NewReader(c)
			for i := range 100 {
				want := fmt.Sprintf("/%d%s", i/2, []string{"", "hello"}[i%2])
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatalf("response %d: %v", i, err)
				}
				if b, err := io.ReadAll(resp.Body); err != nil || string(b) != want {
					t.Fatalf("response %d: %q, %v, want %q", i, b, err, want)
				}
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestHTTPRefusals(t *testing.T) {
	tunnel := &fake{dial: func(context.Context, string, string) (net.Conn, error) { return nil, context.DeadlineExceeded }}
	p := start(t, config(t, "[http]\nBindAddress=127.0.0.1:0\n[http]\nBindAddress=127.0.0.1:0\nUsername=user\nPassword=pa:ss\n[http]\nBindAddress=127.0.0.1:0\nResolveLocally=false"), tunnel, Host{})
	for _, tt := range []struct {
		section int
		request string
		want    int
	}{
		{0, "GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n", 504},
		{0, "GET / HTTP/1.1\r\nHost: \r\n\r\n", 400},
		{0, "GET / HTTP/1.1\r\nHost: x:99999\r\n\r\n", 400},
		{0, "GET https://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{0, "GET http://u:p@x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{0, "GET http://x:99999/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{0, "CONNECT /x HTTP/1.1\r\nHost: x:1\r\n\r\n", 400},
		{0, "CONNECT x:0 HTTP/1.1\r\nHost: x:1\r\n\r\n", 400},
		{0, "CONNECT x: HTTP/1.1\r\nHost: x:1\r\n\r\n", 400},
		{0, "GET http://:/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{0, "OPTIONS http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n", 200},
		{0, "OPTIONS http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: -1\r\n\r\n", 400},
		{0, "TRACE http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n", 501},
		{0, "TRACE http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 1\r\n\r\n", 504},
		{0, "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n", 504},
		{0, strings.Repeat("\r\n", 100) + "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{0, "nonsense\r\n\r\n", 400},
		{0, "GET http://x/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 501},
		{0, "GET http://x/ HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 70<<10), 431},
		{0, "CONNECT 192.0.2.1:1 HTTP/1.1\r\n\r\n", 504},
		{2, "CONNECT none.example:1 HTTP/1.1\r\n\r\n", 502},
		{1, "CONNECT 192.0.2.1:1 HTTP/1.1\r\n\r\n", 407},
		{1, "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic dXNlcjpwYQ==\r\n\r\n", 407}, // user:pa
		{1, "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Bearer dXNlcjpwYTpzcw==\r\n\r\n", 407},
		{1, "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic !\r\n\r\n", 407},
		{1, "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: basic dXNlcjpwYTpzcw==\r\n\r\n", 504}, // user:pa:ss
	} {
		c := connectTo(t, "tcp", p.addr(tt.section))
		io.WriteString(c, tt.request)
		r := bufio.NewReader(c)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != tt.want || !resp.Close {
			t.Errorf("%.60q: %v, %v; want %d", tt.request, resp, err, tt.want)
			continue
		}
		if auth := resp.Header.Get("Proxy-Authenticate"); (auth != "") != (tt.want == 407) {
			t.Errorf("%.60q: Proxy-Authenticate: %q", tt.request, auth)
		}
		io.ReadAll(resp.Body)
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("%.60q: then %v, want the end", tt.request, err)
		}
	}
}

// certificate writes one for 127.0.0.1.
func certificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{{127, 0, 0, 1}}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	kd, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(t.TempDir(), "cert"), filepath.Join(t.TempDir(), "key")
	cp := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := errors.Join(os.WriteFile(cert, cp, 0o600), os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kd}), 0o600)); err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(cp)
	return cert, key, pool
}

// TestHTTPS has the standard library's client use a proxy that speaks TLS, for plain requests and for CONNECT.
func TestHTTPS(t *testing.T) {
	cert, key, pool := certificate(t)
	handler, got := seen(t)
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer plain.Close()
	defer secure.Close()
	pool.AddCert(secure.Certificate())
	p := start(t, config(t, "[http]\nBindAddress=127.0.0.1:0\nUsername=u\nPassword=p\nCertFile="+cert+"\nKeyFile="+key), Host{}, Host{})
	tr := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "https", User: url.UserPassword("u", "p"), Host: p.addr(0)}), TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer tr.CloseIdleConnections()
	for _, u := range []string{plain.URL, secure.URL, plain.URL} {
		resp, err := (&http.Client{Transport: tr, Timeout: patience}).Post(u, "text/plain", strings.NewReader("hi"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(b) != "POST hi" {
			t.Errorf("%q, %v", b, err)
		}
		<-got
	}
	if n := p.sections[0].total.Load(); n != 2 {
		t.Errorf("%d connections, want 2: one for the plain requests, one for CONNECT", n)
	}
}

func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("curl is not installed")
		}
		t.Skip("curl is not installed")
	}
	handler, got := seen(t)
	srv := httptest.NewServer(handler)
	defer srv.Close()
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(srv.URL, "http://"))
	tunnel := &fake{names: map[string][]ipAddr{"web.example": {loopback}}}
	p := start(t, config(t, "[Interface]\nDNS=1.1.1.1\n[Socks5]\nBindAddress=127.0.0.1:0\nUsername=u\nPassword=p\n[http]\nBindAddress=127.0.0.1:0\nUsername=u\nPassword=p\n"), tunnel, Host{})
	url := "http://web.example:" + port + "/x"
	for _, args := range [][]string{
		{"-x", "socks5h://u:p@" + p.addr(0), url},
		{"-x", "socks5://u:p@" + p.addr(0), srv.URL},
		{"-x", "http://u:p@" + p.addr(1), url, url},
		{"-x", "http://u:p@" + p.addr(1), "--proxytunnel", url},
		{"-x", "http://u:p@" + p.addr(1), "-d", strings.Repeat("x", 100_000), "-H", "Expect: 100-continue", url},
	} {
		out, err := exec.Command(curl, append([]string{"-sS", "-f", "--noproxy", "", "-m", "15"}, args...)...).CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), "GET ") && !strings.HasPrefix(string(out), "POST xxx") {
			t.Errorf("curl %.100v: %v\n%.200s", args, err, out)
		}
	}
	for len(got) > 0 {
		<-got
	}
	if out, err := exec.Command(curl, "-sS", "-m", "15", "-o", "/dev/null", "-w", "%{http_code}", "-x", "http://u:x@"+p.addr(1), url).CombinedOutput(); err != nil || string(out) != "407" {
		t.Errorf("with a wrong password: %s, %v", out, err)
	}
}

// FuzzHTTP gives a client's bytes to the proxy, with a target that answers anything with the same response.
func FuzzHTTP(f *testing.F) {
	f.Add("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\nGET http://b/ HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
	f.Add("POST http://a:1/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: x\r\n\r\n1\r\na\r\n0\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")
	f.Add("\r\nOPTIONS http://a: HTTP/1.1\r\nHost: x\r\nMax-Forwards: 1\r\n\r\n\r\nTRACE http://a HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n")
	f.Add("CONNECT [::1]:443 HTTP/1.1\r\n\r\nearly", "HTTP/1.0 200 OK\r\n\r\nbody")
	f.Fuzz(func(t *testing.T, request, response string) {
		tunnel := &fake{dial: func(context.Context, string, string) (net.Conn, error) {
			return &script{in: strings.NewReader(response)}, nil
		}}
		cfg := &Config{Sections: []Section{{Kind: HTTP, ResolveLocally: true}}}
		p := New(cfg, tunnel, &fake{names: map[string][]ipAddr{"a": {loopback}}}, slog.New(slog.DiscardHandler))
		l := &live{ctx: context.Background(), open: make(map[io.Closer]struct{})}
		c := &script{in: strings.NewReader(request)}
		serveOne(p.sections[0], l, c)
		l.wg.Wait()
		if !c.closed || len(l.open) > 0 || p.sections[0].open.Load() != 0 {
			t.Fatal("something is left open")
		}
	})
}
