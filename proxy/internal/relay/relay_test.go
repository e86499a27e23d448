package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"throughline/proxy/internal/idle"
)

// join relays between two pipes, and returns their far ends.
func join(limit time.Duration) (client, target net.Conn, done chan error, up, down *atomic.Uint64) {
	client, c := net.Pipe()
	target, s := net.Pipe()
	done, up, down = make(chan error, 1), new(atomic.Uint64), new(atomic.Uint64)
	go func() { done <- Join(c, s, limit, up, down) }()
	return client, target, done, up, down
}

func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, target, done, up, down := join(time.Minute)
		b := make([]byte, 1)
		began := time.Now()
		for range 10 { // one direction alone keeps it open
			time.Sleep(50 * time.Second)
			if _, err := client.Write(b); err != nil {
				t.Fatal(err)
			}
			target.Read(b)
		}
		for range 10 {
			time.Sleep(50 * time.Second)
			if _, err := target.Write(b); err != nil {
				t.Fatal(err)
			}
			client.Read(b)
		}
		if err := <-done; !errors.Is(err, idle.ErrIdle) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began) - 1000*time.Second; took < time.Minute || took > 90*time.Second {
			t.Errorf("closed %v after the last byte", took)
		}
		if up.Load() != 10 || down.Load() != 10 {
			t.Errorf("%d and %d bytes", up.Load(), down.Load())
		}
		if _, err := client.Read(b); err != io.EOF {
			t.Errorf("the client sees %v", err)
		}
	})
}

func TestNeverIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, target, done, _, _ := join(0)
		time.Sleep(1000 * time.Hour)
		go client.Write([]byte{1})
		if _, err := target.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		client.Close()
		target.Close()
		if err := <-done; err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("got %v", err)
		}
	})
}

// TestStuckReceiver has the target take nothing: the client's bytes must not be held for ever.
func TestStuckReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, _, done, _, _ := join(time.Minute)
		go client.Write(make([]byte, 1))
		began := time.Now()
		if err := <-done; err == nil {
			t.Error("no error")
		}
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

// TestLargeBuffers holds that a direction has a large buffer only while it moves much, whatever its idle time-out.
func TestLargeBuffers(t *testing.T) {
	for _, idle := range []time.Duration{0, 10 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			client, target, done, up, _ := join(idle)
			wantLent := func(want int64) {
				t.Helper()
				synctest.Wait()
				if n := lent.Load(); n != want {
					t.Errorf("idle %v: %d large buffers are lent, want %d", idle, n, want)
				}
			}
			move := func(n int) {
				t.Helper()
				sent := bytes.Repeat([]byte{byte(n), 1, 2}, n/3+1)[:n]
				go client.Write(sent)
				got := make([]byte, n)
				if _, err := io.ReadFull(target, got); err != nil || !bytes.Equal(got, sent) {
					t.Errorf("idle %v: %d bytes: %v", idle, n, err)
				}
			}
			wantLent(0)
			for range 3 { // small messages, and then none
				move(smallSize - 1)
				wantLent(0)
			}
			for range 2 {
				move(5 * largeSize)
				wantLent(1)
				move(10) // it may go on
				time.Sleep(keepLarge + 1)
				wantLent(0)
				move(10)
				wantLent(0)
			}
			if up.Load() != 3*(smallSize-1)+2*(5*largeSize+20) {
				t.Errorf("idle %v: %d bytes are counted", idle, up.Load())
			}
			if idle == 0 {
				time.Sleep(1000 * time.Hour)
				move(10)
				move(2 * largeSize)
				client.Close()
			}
			<-done
			wantLent(0)
			target.Close()
		})
	}
}

// TestLargeBuffersRunOut holds that there is a bound to them, and that bytes move without one too.
func TestLargeBuffersRunOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lent.Store(maxLarge - 1)
		defer lent.Store(0)
		for range 3 {
			client, target, done, _, down := join(0)
			defer func() {
				client.Close()
				target.Close()
				<-done
			}()
			const n = 3*largeSize + 1
			go target.Write(make([]byte, n))
			if _, err := io.ReadFull(client, make([]byte, n)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if lent.Load() != maxLarge || down.Load() != n {
				t.Errorf("%d large buffers are lent, %d bytes counted", lent.Load(), down.Load())
			}
		}
	})
}

// pair returns the two ends of a TCP connection.
func pair(t testing.TB) (net.Conn, net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// hidden is a TCP connection that the kernel doesn't splice.
type hidden struct{ net.Conn }

func (h hidden) CloseWrite() error { return h.Conn.(*net.TCPConn).CloseWrite() }

// TestIdleSockets does in real time what TestIdle does, with a short idle time-out, both ways of moving bytes.
func TestIdleSockets(t *testing.T) {
	for _, splice := range []bool{true, false} {
		client, c := pair(t)
		target, s := pair(t)
		if !splice {
			s = hidden{s}
		}
		var up, down atomic.Uint64
		done := make(chan error, 1)
		client.Write([]byte{1}) // before the time-out begins: the machine may be busy
		began := time.Now()
		go func() { done <- Join(c, s, 40*time.Millisecond, &up, &down) }()
		target.Read(make([]byte, 1))
		if err := <-done; !errors.Is(err, idle.ErrIdle) || time.Since(began) < 40*time.Millisecond || up.Load() != 1 {
			t.Errorf("splice %v: %v after %v, %d bytes", splice, err, time.Since(began), up.Load())
		}
	}
}

func BenchmarkJoin(b *testing.B) {
	for name, wrap := range map[string]func(net.Conn) net.Conn{"splice": func(c net.Conn) net.Conn { return c }, "copy": func(c net.Conn) net.Conn { return hidden{c} }} {
		b.Run(name, func(b *testing.B) {
			client, c := pair(b)
			target, s := pair(b)
			var up, down atomic.Uint64
			done := make(chan error, 1)
			go func() { done <- Join(c, wrap(s), time.Hour, &up, &down) }()
			got := make(chan int64, 1)
			go func() { n, _ := io.Copy(io.Discard, target); target.Close(); got <- n }()
			buf := make([]byte, 64<<10)
			b.SetBytes(int64(len(buf)))
			b.ReportAllocs()
			for b.Loop() {
				client.Write(buf)
			}
			client.(*net.TCPConn).CloseWrite()
			<-got
			<-done
		})
	}
}

// TestPool holds that buffers for others are of the same number as those of connections.
func TestPool(t *testing.T) {
	lent.Store(maxLarge - 1)
	defer lent.Store(0)
	var p Pool
	a, b := p.Get(), p.Get()
	if len(a) != largeSize || len(b) != smallSize || lent.Load() != maxLarge {
		t.Errorf("%d and %d bytes, %d are lent", len(a), len(b), lent.Load())
	}
	p.Put(b)
	p.Put(a)
	if lent.Load() != maxLarge-1 {
		t.Errorf("%d are lent", lent.Load())
	}
}
