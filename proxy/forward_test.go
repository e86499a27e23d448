package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A keeper is a target that serves any number of requests over each connection, and keeps what it saw.
type keeper struct {
	mu    sync.Mutex
	conns int
	seen  []string // method, the connection's number, and the target that stands in the request
	raw   []*http.Request
}

func (k *keeper) serve(c net.Conn) {
	k.mu.Lock()
	k.conns++
	n := k.conns
	k.mu.Unlock()
	in := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		b, _ := io.ReadAll(req.Body)
		k.mu.Lock()
		k.seen = append(k.seen, fmt.Sprint(req.Method, " ", n, " ", req.RequestURI, string(b)))
		k.raw = append(k.raw, req)
		k.mu.Unlock()
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
		if req.Close {
			return
		}
	}
}

// ask sends a request, and reads a response whose body is hi.
func ask(t *testing.T, c net.Conn, r *bufio.Reader, request string) {
	t.Helper()
	io.WriteString(c, request)
	resp, err := http.ReadResponse(r, nil)
	if err == nil && resp.StatusCode == 100 { // the proxy's own, when the target doesn't ask for the body
		resp, err = http.ReadResponse(r, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "hi" || resp.StatusCode != 200 {
		t.Fatalf("%d %q, %v", resp.StatusCode, b, err)
	}
}

// TestForwardKeepsTargets has requests share a connection to their target, also those of different clients, but for those
// that can't be sent twice, and those with a login that some targets take for the connection's.
func TestForwardKeepsTargets(t *testing.T) {
	k := new(keeper)
	target := serve(t, k.serve)
	p := start(t, config(t, "[http]\nBindAddress=127.0.0.1:0"), Host{}, Host{})
	for range 2 {
		c := connectTo(t, "tcp", p.addr(0))
		r := bufio.NewReader(c)
		for _, request := range []string{
			"GET http://%s/1 HTTP/1.1\r\nHost: x\r\n\r\n",
			"POST http://%s/2 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
			"GET http://%s/3 HTTP/1.1\r\nHost: x\r\nAuthorization: NTLM x\r\n\r\n",
			"DELETE http://%s/4 HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET http://%s/5 HTTP/1.1\r\nHost: x\r\n\r\n",
		} {
			ask(t, c, r, fmt.Sprintf(request, target))
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	const want = "GET 1 /1, POST 2 /2x, GET 3 /3, DELETE 4 /4, GET 1 /5, GET 1 /1, POST 5 /2x, GET 6 /3, DELETE 7 /4, GET 1 /5"
	if got := strings.Join(k.seen, ", "); got != want {
		t.Errorf("the target saw %s\nwant %s", got, want)
	}
	for _, req := range k.raw {
		if shared := strings.HasPrefix(req.RequestURI, "/1") || strings.HasPrefix(req.RequestURI, "/5"); req.Close == shared {
			t.Errorf("%s %s: closed %v", req.Method, req.RequestURI, req.Close)
		}
	}
}

// TestForwardStaleTarget has a target end a connection that was kept: a request that finds out is sent again, on another.
func TestForwardStaleTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var conns atomic.Int32
		c := forwarding(t, "[http]\nBindAddress=127.0.0.1:1", func(target net.Conn) {
			conns.Add(1)
			in := bufio.NewReader(target)
			for range 2 {
				http.ReadRequest(in)
				io.WriteString(target, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
			}
			http.ReadRequest(in) // and ends without an answer
		})
		r := bufio.NewReader(c)
		for range 4 {
			ask(t, c, r, "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n\r\n")
		}
		if n := conns.Load(); n != 2 {
			t.Errorf("%d connections, want 2", n)
		}
		time.Sleep(2 * time.Minute) // those that are kept have ended, or the bubble doesn't
	})
}

// TestForwardTrailers has trailers come through, both ways.
func TestForwardTrailers(t *testing.T) {
	got := make(chan http.Header, 1)
	target := serve(t, func(c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			t.Error(err)
			return
		}
		io.Copy(io.Discard, req.Body)
		got <- req.Trailer
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 2\r\n\r\n")
	})
	p := start(t, config(t, "[http]\nBindAddress=127.0.0.1:0"), Host{}, Host{})
	c := connectTo(t, "tcp", p.addr(0))
	fmt.Fprintf(c, "PUT http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Mine\r\n\r\n1\r\nx\r\n0\r\nX-Mine: 1\r\n\r\n", target)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "hi" || resp.Trailer.Get("X-Sum") != "2" {
		t.Errorf("%q, %v, trailer %v", b, err, resp.Trailer)
	}
	if h := <-got; h.Get("X-Mine") != "1" {
		t.Errorf("the target saw the trailer %v", h)
	}
}

// TestForwardAddsNothing holds what a target sees, to the byte: nothing that the client didn't say, and nothing that it said
// to the proxy.
func TestForwardAddsNothing(t *testing.T) {
	for _, tt := range []struct{ request, want string }{
		{"GET http://192.0.2.1/?a;b&%zz HTTP/1.1\r\nHost: other\r\n\r\n", "GET /?a;b&%zz HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n"},
		{"GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: me\r\nForwarded: for=me\r\nAccept-Encoding: br\r\nUser-Agent: mine\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: 192.0.2.1\r\nUser-Agent: mine\r\nAccept-Encoding: br\r\nForwarded: for=me\r\nX-Forwarded-For: me\r\n\r\n"},
		{"GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nProxy-Authorization: x\r\nProxy-Connection: close\r\nTE: trailers\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: 192.0.2.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
		// A length besides chunks is how requests are smuggled: only the chunks count, and only they go on. RFC 9112 §6.3.
		{"GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: 192.0.2.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\nx\r\n0\r\n\r\n"},
		{"POST http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi",
			"POST / HTTP/1.1\r\nHost: 192.0.2.1\r\nContent-Length: 2\r\nConnection: close\r\nExpect: 100-continue\r\n\r\nhi"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var got strings.Builder
			c := forwarding(t, "[http]\nBindAddress=127.0.0.1:1", func(target net.Conn) {
				target.SetReadDeadline(time.Now().Add(2 * time.Second)) // a body is awaited for one
				io.Copy(&got, target)
				io.WriteString(target, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
			})
			ask(t, c, bufio.NewReader(c), tt.request)
			// Connection is where net/http likes to have it.
			norm := func(s string) string { return strings.Replace(s, "Connection: close\r\n", "", 1) }
			if norm(got.String()) != norm(tt.want) || strings.Contains(got.String(), "Connection: ") != strings.Contains(tt.want, "Connection: ") {
				t.Errorf("the target saw %q\nwant %q", got.String(), tt.want)
			}
		})
	}
}

// TestForwardTwoLengths holds that a request with two lengths goes nowhere.
func TestForwardTwoLengths(t *testing.T) {
	c := forwarding(t, "[http]\nBindAddress=127.0.0.1:1", func(net.Conn) { t.Error("a target is asked") })
	c.SetDeadline(time.Now().Add(patience))
	go io.WriteString(c, "POST http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 400 {
		t.Errorf("%v, %v", resp, err)
	}
}

// TestForwardGoneWhileConnecting has a client go away while its target is being reached: nobody waits for that any more.
func TestForwardGoneWhileConnecting(t *testing.T) {
	dialling, ended := make(chan bool), make(chan error, 1)
	tunnel := &fake{dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		close(dialling)
		select {
		case <-ctx.Done():
			ended <- nil
		case <-time.After(patience):
			ended <- context.DeadlineExceeded
		}
		return nil, context.DeadlineExceeded
	}}
	p := start(t, config(t, "[http]\nBindAddress=127.0.0.1:0"), tunnel, Host{})
	c := connectTo(t, "tcp", p.addr(0)).(*net.TCPConn)
	io.WriteString(c, "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n\r\n")
	<-dialling
	c.SetLinger(0)
	c.Close()
	if err := <-ended; err != nil {
		t.Error("connecting goes on")
	}
}

// TestForwardSlowConnect holds that the time to reach a target isn't idleness.
func TestForwardSlowConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &live{ctx: t.Context(), open: make(map[io.Closer]struct{})}
		tunnel := &fake{dial: func(context.Context, string, string) (net.Conn, error) {
			time.Sleep(20 * time.Second)
			conn, target := newWire()
			l.wg.Go(func() { defer target.Close(); new(keeper).serve(target) })
			return conn, nil
		}}
		c, client := newWire()
		serveOne(New(config(t, "[http]\nBindAddress=127.0.0.1:1\nIdleTimeout=5"), tunnel, Host{}, nil).sections[0], l, c)
		ask(t, client, bufio.NewReader(client), "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n\r\n")
		client.Close()
		l.end() // the connection to the target is kept until then
		l.wg.Wait()
	})
}

// TestForwardCounts holds what is counted of a plain request: all that was written to either side.
func TestForwardCounts(t *testing.T) {
	k := new(keeper)
	target := serve(t, k.serve)
	p := start(t, config(t, "[http]\nBindAddress=127.0.0.1:0"), Host{}, Host{})
	c := connectTo(t, "tcp", p.addr(0))
	r := bufio.NewReader(c)
	for range 2 {
		ask(t, c, r, "GET http://"+target+"/ HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	up := uint64(2 * len("GET / HTTP/1.1\r\nHost: "+target+"\r\n\r\n"))
	down := uint64(2 * len("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nhi"))
	s := p.sections[0]
	for end := time.Now().Add(patience); s.toClient.Load() < down && time.Now().Before(end); runtime.Gosched() {
	}
	if s.toTarget.Load() != up || s.toClient.Load() != down || s.total.Load() != 1 {
		t.Errorf("%d and %d bytes of %d connections, want %d and %d of 1", s.toTarget.Load(), s.toClient.Load(), s.total.Load(), up, down)
	}
}
