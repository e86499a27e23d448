package hop

import (
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
