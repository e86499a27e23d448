package forward

import (
	"bufio"
	"bytes"
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

func TestDropHopByHop(t *testing.T) {
	h := http.Header{"Connection": {"close, X-A", "x-b ,, Keep-Alive"}, "X-A": {"1"}, "X-B": {"1"}, "X-C": {"1"}, "Keep-Alive": {"1"}, "Upgrade": {"h2c"}, "Te": {"trailers"}, "Host": {"x"}}
	dropHopByHop(h)
	if len(h) != 2 || h["X-C"] == nil || h["Host"] == nil {
		t.Errorf("left: %v", h)
	}
}

func TestAwait(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "G": "G", "\r\nG": "G", "\nG": "G", "\r\n\n\r\nG": "G", "\r": "\r", "\rG": "\rG", "\n\rG": "\rG", " \nG": " \nG",
		strings.Repeat("\r\n", maxEmptyLines) + "G": "G", strings.Repeat("\n", maxEmptyLines+1) + "G": "\nG", "\r\n": "",
	} {
		r := bufio.NewReader(strings.NewReader(in))
		err := Await(r)
		if rest, _ := io.ReadAll(r); string(rest) != want || (err != nil) != (want == "" || want == "\r") {
			t.Errorf("%q: %v, and %q is left, want %q", in, err, rest, want)
		}
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

func TestClientLimit(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	go a.Write(make([]byte, 10))
	m := &Client{Conn: b, Left: 7, Count: new(atomic.Uint64)}
	got, err := io.ReadAll(m)
	if len(got) != 7 || !errors.Is(err, ErrTooLong) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	m.Left = -1
	if n, err := m.Read(make([]byte, 10)); n != 3 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestClientStop holds that stop ends a read under way, and every later one until resume.
func TestClientStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		c := &Client{Conn: b, Left: -1, Count: new(atomic.Uint64)}
		done := make(chan error)
		go func() {
			_, err := c.Read(make([]byte, 1))
			done <- err
		}()
		synctest.Wait()
		c.stop()
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		c.SetReadDeadline(time.Time{})
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		c.resume()
		go a.Write([]byte{1})
		if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Error(n, err)
		}
		if c.lost != nil {
			t.Errorf("a client that was stopped is lost: %v", c.lost)
		}
	})
}

// TestWriteTimes holds that a write, to either side, has a minute at least, and that it isn't taken for idleness meanwhile.
func TestWriteTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		clock := idle.New(time.Second)
		idled := false
		w := clock.Watch(func() { idled = true })
		defer w.Stop()
		tg := &target{Conn: b, count: new(atomic.Uint64)}
		tg.clock.Store(clock)
		for _, c := range []net.Conn{&Client{Conn: b, Left: -1, clock: clock, Count: new(atomic.Uint64)}, tg} {
			began := time.Now()
			if _, err := c.Write(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Minute {
				t.Errorf("%T: %v after %v", c, err, time.Since(began))
			}
			if idled {
				t.Errorf("%T: a write is taken for idleness", c)
			}
		}
	})
}

// TestTargetUnsolicited holds that what comes without a request is not read.
func TestTargetUnsolicited(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	go a.Write([]byte("abc"))
	tg := &target{Conn: b, count: new(atomic.Uint64)}
	tg.clock.Store(idle.New(0))
	if n, err := tg.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("during a request: %d, %v", n, err)
	}
	tg.clock.Store(nil)
	if n, err := tg.Read(make([]byte, 1)); n != 0 || !errors.Is(err, errUnsolicited) {
		t.Errorf("after it: %d, %v", n, err)
	}
}

func TestMaySharePool(t *testing.T) {
	body := io.NopCloser(strings.NewReader("x"))
	for _, tt := range []struct {
		method string
		body   io.ReadCloser
		header http.Header
		want   bool
	}{
		{"GET", http.NoBody, nil, true}, {"HEAD", http.NoBody, nil, true}, {"OPTIONS", http.NoBody, nil, true}, {"TRACE", http.NoBody, nil, true},
		{"GET", body, nil, false}, {"POST", http.NoBody, nil, false}, {"DELETE", http.NoBody, nil, false}, {"get", http.NoBody, nil, false},
		{"GET", http.NoBody, http.Header{"Authorization": {"NTLM x"}}, false}, {"GET", http.NoBody, http.Header{"Authorization": {""}}, false},
	} {
		if got := maySharePool(&http.Request{Method: tt.method, Body: tt.body, Header: tt.header}); got != tt.want {
			t.Errorf("%s %v: %v", tt.method, tt.header, got)
		}
	}
}

func TestRefusal(t *testing.T) {
	r := bytes.NewReader(Refusal(407, "Proxy-Authenticate: Basic\r\n", "why"))
	b, _ := io.ReadAll(r)
	want := "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 4\r\nConnection: close\r\n\r\nwhy\n"
	if string(b) != want || strings.Count(want, "\n") != 7 {
		t.Errorf("got %q", b)
	}
}
