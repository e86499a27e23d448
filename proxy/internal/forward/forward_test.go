package forward

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"throughline/proxy/internal/idle"
)

func TestHopByHop(t *testing.T) {
	h := http.Header{"Connection": {"close, X-A", "x-b ,, Keep-Alive"}, "X-A": {"1"}, "X-B": {"1"}, "X-C": {"1"}, "Keep-Alive": {"1"}, "Upgrade": {"h2c"}, "Host": {"x"}}
	hopByHop(h)
	if len(h) != 2 || h["X-C"] == nil || h["Host"] == nil {
		t.Errorf("left: %v", h)
	}
}

func TestMaxForwards(t *testing.T) {
	for _, tt := range []struct {
		method string
		in     []string
		want   string
		left   bool
	}{
		{"TRACE", nil, "", true},
		{"TRACE", []string{"0"}, "0", false},
		{"OPTIONS", []string{"00"}, "00", false},
		{"OPTIONS", []string{"1"}, "0", true},
		{"TRACE", []string{"0010"}, "9", true},
		{"TRACE", []string{"99999999999999999999999"}, "2147483646", true},
		{"GET", []string{"0"}, "0", true},
		{"GET", []string{"x"}, "x", true},
	} {
		req := &http.Request{Method: tt.method, Header: http.Header{"Max-Forwards": tt.in}}
		left, err := MaxForwards(req)
		if got := req.Header.Get("Max-Forwards"); left != tt.left || got != tt.want || err != nil {
			t.Errorf("%s, %q: %v, %q, %v", tt.method, tt.in, left, got, err)
		}
	}
	for _, in := range [][]string{{""}, {"x"}, {"-1"}, {"+1"}, {"1.0"}, {"1, 2"}, {"1", "1"}} {
		if left, err := MaxForwards(&http.Request{Method: "TRACE", Header: http.Header{"Max-Forwards": in}}); left || err == nil {
			t.Errorf("%q is obeyed", in)
		}
	}
}

// TestWriteTimes holds that a write to a client has a minute at least, and that it isn't taken for idleness meanwhile.
func TestWriteTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		clock, idled := idle.New(time.Second), false
		x := &exchange{clock: clock, watch: clock.Watch(func() { idled = true }), count: new(atomic.Uint64)}
		defer x.watch.Stop()
		c := NewConn(b, time.Second, nil)
		c.begin(x)
		began := time.Now()
		if _, err := c.Write(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if idled {
			t.Error("a write is taken for idleness")
		}
	})
}

// TestReadAhead holds that the one byte that net/http reads behind a request has further ones read, which come later, in
// order, and that the client's end behind them is noted.
func TestReadAhead(t *testing.T) {
	a, b := net.Pipe()
	c := NewConn(b, time.Minute, nil)
	Bind(t.Context(), c)
	c.Note(http.StateActive)
	go func() {
		io.WriteString(a, "G")
		io.WriteString(a, strings.Repeat("x", 100))
		a.Close()
	}()
	one := make([]byte, 1)
	if n, err := c.Read(one); n != 1 || err != nil || one[0] != 'G' || !c.ended.Load() {
		t.Errorf("%q, %v, ended %v", one[:n], err, c.ended.Load())
	}
	if rest, err := io.ReadAll(c); len(rest) != 100 || err != nil {
		t.Errorf("then %d bytes, %v", len(rest), err)
	}
}

func TestMaySharePool(t *testing.T) {
	for _, tt := range []struct {
		method string
		length int64
		header http.Header
		want   bool
	}{
		{"GET", 0, nil, true}, {"HEAD", 0, nil, true}, {"OPTIONS", 0, nil, true}, {"TRACE", 0, nil, true},
		{"GET", 1, nil, false}, {"GET", -1, nil, false}, {"POST", 0, nil, false}, {"DELETE", 0, nil, false}, {"get", 0, nil, false},
		{"GET", 0, http.Header{"Authorization": {"NTLM x"}}, false}, {"GET", 0, http.Header{"Authorization": {""}}, false},
	} {
		if got := maySharePool(&http.Request{Method: tt.method, ContentLength: tt.length, Header: tt.header}); got != tt.want {
			t.Errorf("%s %d %v: %v", tt.method, tt.length, tt.header, got)
		}
	}
}

func TestRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := "HTTP/1.1 503 Service Unavailable\r\nDate: Sat, 01 Jan 2000 00:00:00 GMT\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 4\r\nConnection: close\r\n\r\nwhy\n"
		if got := Refusal(503, "why"); string(got) != want {
			t.Errorf("got %q", got)
		}
	})
}
