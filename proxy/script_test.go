package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

type ipAddr = netip.Addr

// A script is a connection whose other end has said all it has to say, and reads whatever comes. Reading fails once its
// deadline is set into the past.
type script struct {
	mu     sync.Mutex
	in     io.Reader
	closed bool
}

func (s *script) Read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	return s.in.Read(b)
}

func (s *script) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	return len(b), nil
}

func (s *script) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

func (s *script) CloseWrite() error                { return nil }
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		dead := map[string]bool{"192.0.2.2": true}
		tunnel := &fake{ping: func(a netip.Addr) error {
			mu.Lock()
			defer mu.Unlock()
			if dead[a.String()] {
				return os.ErrDeadlineExceeded
			}
			return nil
		}}
		set := func(v bool) { mu.Lock(); dead["192.0.2.2"] = v; mu.Unlock() }
		p := New(config(t, "[Interface]\nCheckAlive=192.0.2.1,192.0.2.2\nCheckAliveInterval=3"), tunnel, &fake{}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		get := func(path string) (int, string) {
			w := httptest.NewRecorder()
			p.Health(func(w io.Writer) error { fmt.Fprint(w, "peer 1"); return nil }).ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			return w.Code, w.Body.String()
		}
		began := time.Now().Unix()
		ready := func(code int, first, second int64) {
			t.Helper()
			synctest.Wait()
			want := fmt.Sprintf("{\"192.0.2.1\":%d,\"192.0.2.2\":%d}\n", first, second)
			for _, path := range []string{"/readyz", "/readyz/"} {
				if c, b := get(path); c != code || b != want {
					t.Errorf("%s: %d %s, want %d %s", path, c, b, code, want)
				}
			}
		}
		ready(503, began, 0)
		set(false)
		time.Sleep(4 * time.Second)
		ready(200, began+3, began+3)
		set(true)
		time.Sleep(4 * time.Second) // at 8; the pong of 3 is 5 s old
		ready(200, began+6, began+3)
		time.Sleep(time.Second)
		ready(503, began+9, began+3)
		if _, b := get("/metrics"); !strings.HasPrefix(b, "peer 1\n") || !strings.HasSuffix(b, fmt.Sprintf("throughline_proxy_pong_timestamp_seconds{address=\"192.0.2.2\"} %d\n", began+3)) {
			t.Errorf("metrics:\n%s", b)
		}
		if c, _ := get("/"); c != http.StatusNotFound {
			t.Errorf("/ answers %d", c)
		}
		if c, _ := get("/readyz/x"); c != http.StatusNotFound {
			t.Errorf("/readyz/x answers %d", c)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestMetrics(t *testing.T) {
	p := New(&Config{Sections: []Section{{Kind: Socks5, Name: "Socks5", BindAddress: "127.0.0.1:1"}, {Kind: HTTP, Name: "a\"b\\c\n", BindAddress: ":2"}}}, &fake{}, &fake{}, nil)
	p.sections[0].open.Store(1)
	p.sections[1].toTarget.Store(7)
	w := httptest.NewRecorder()
	p.Health(nil).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		"# HELP throughline_proxy_connections Connections and UDP sessions that are open.\n# TYPE throughline_proxy_connections gauge\n" +
			"throughline_proxy_connections{section=\"Socks5\",index=\"0\",address=\"127.0.0.1:1\"} 1\n" +
			`throughline_proxy_connections{section="a\"b\\c\n",index="1",address=":2"} 0` + "\n",
		`throughline_proxy_sent_bytes_total{section="a\"b\\c\n",index="1",address=":2"} 7` + "\n",
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %q in\n%s", want, w.Body)
		}
	}
	w = httptest.NewRecorder()
	p.Health(func(io.Writer) error { return io.ErrClosedPipe }).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 500 {
		t.Errorf("a status that fails: %d", w.Code)
	}
	w = httptest.NewRecorder()
	p.Health(nil).ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
	if w.Code != 200 || w.Body.String() != "{}\n" {
		t.Errorf("nothing to check: %d %s", w.Code, w.Body)
	}
}

// TestMetricsText holds the whole text, to the byte.
func TestMetricsText(t *testing.T) {
	p := New(&Config{
		CheckAlive: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		Sections:   []Section{{Kind: Socks5, Name: "Socks5", BindAddress: "127.0.0.1:1"}, {Kind: HTTP, Name: "a\"b\\c\n", BindAddress: ":2"}},
	}, &fake{}, &fake{}, nil)
	p.sections[0].open.Store(1)
	p.sections[1].toTarget.Store(1 << 63)
	p.pongs[1].at.Store(1700000000_999999999)
	want, err := os.ReadFile("testdata/metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	p.Health(nil).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Body.String() != string(want) || w.Header().Get("Content-Type") != "text/plain; version=0.0.4; charset=utf-8" {
		t.Errorf("%v, got\n%s\nwant\n%s", w.Header(), w.Body, want)
	}
	w = httptest.NewRecorder()
	New(&Config{}, &fake{}, &fake{}, nil).Health(nil).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Body.Len() != 0 {
		t.Errorf("nothing to serve: %s", w.Body)
	}
}
