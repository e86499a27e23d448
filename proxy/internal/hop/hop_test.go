package hop

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

func TestMeterLimit(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	go a.Write(make([]byte, 10))
	m := &Meter{Conn: b, Left: 7, Count: new(atomic.Uint64)}
	got, err := io.ReadAll(m)
	if len(got) != 7 || !errors.Is(err, ErrTooLong) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	m.Left = -1
	if n, err := m.Read(make([]byte, 10)); n != 3 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestMeterTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		m := &Meter{Conn: b, Left: -1, idle: newIdle(time.Second), Count: new(atomic.Uint64)}
		began := time.Now()
		if _, err := m.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("reading: %v after %v", err, time.Since(began))
		}
		began = time.Now()
		if _, err := m.Write(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("writing: %v after %v", err, time.Since(began))
		}
		// stop ends a read under way, and every later one.
		m.idle = newIdle(time.Hour)
		done := make(chan error)
		go func() {
			_, err := m.Read(make([]byte, 1))
			done <- err
		}()
		synctest.Wait()
		m.stop()
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		if _, err := m.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	})
}

// TestMeterShared holds that what one connection moves, either way, keeps a read of the other one waiting, and that stop
// ends it though.
func TestMeterShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		c, d := net.Pipe()
		defer a.Close()
		defer c.Close()
		idle := newIdle(time.Minute)
		quiet := &Meter{Conn: b, Left: -1, idle: idle, Count: new(atomic.Uint64)}
		busy := &Meter{Conn: d, Left: -1, idle: idle, Count: new(atomic.Uint64)}
		read := func() time.Duration {
			began := time.Now()
			if _, err := quiet.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
			return time.Since(began)
		}
		done := make(chan time.Duration)
		go func() { done <- read() }()
		for range 5 {
			time.Sleep(40 * time.Second)
			go c.Write([]byte{1})
			busy.Read(make([]byte, 1))
			time.Sleep(40 * time.Second)
			go c.Read(make([]byte, 1))
			busy.Write([]byte{1})
		}
		if took := <-done; took != 460*time.Second {
			t.Errorf("reading ended after %v, want a minute after the last byte", took)
		}
		if took := read(); took != time.Minute {
			t.Errorf("the next read ended after %v, want its own minute", took)
		}
		go func() { done <- read() }()
		time.Sleep(time.Second)
		idle.moved()
		quiet.stop()
		if took := <-done; took != time.Second {
			t.Errorf("a read that was stopped ended after %v", took)
		}
	})
}

func TestError(t *testing.T) {
	r := bytes.NewReader(Error(407, "Proxy-Authenticate: Basic\r\n", "why"))
	b, _ := io.ReadAll(r)
	want := "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 4\r\nConnection: close\r\n\r\nwhy\n"
	if string(b) != want || strings.Count(want, "\n") != 7 {
		t.Errorf("got %q", b)
	}
}
