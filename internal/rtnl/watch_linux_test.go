package rtnl

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// TestListen tells of single changes, bursts and storms, at the moments that the pauses allow.
func TestListen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &Watch{changed: make(chan struct{}, 1), closed: make(chan struct{})}
		heard := make(chan struct{}, 1000) // the socket's buffer
		say := func(n int) {
			for range n {
				heard <- struct{}{}
			}
		}
		go w.listen(func() error {
			select {
			case <-heard:
				return nil
			case <-w.closed:
				return os.ErrClosed
			}
		}, func() {
			for len(heard) > 0 {
				<-heard
			}
		})
		began := time.Now()
		want := func(at time.Duration) {
			t.Helper()
			if _, open := <-w.changed; !open || time.Since(began) != at {
				t.Fatalf("told (%t) after %v, want %v", open, time.Since(began), at)
			}
		}
		silent := func(d time.Duration) {
			t.Helper()
			select {
			case <-w.changed:
				t.Fatalf("told after %v of what wasn't", time.Since(began))
			case <-time.After(d):
			}
		}
		const ms = time.Millisecond
		say(100) // a burst
		want(100 * ms)
		silent(900 * ms)
		silent(time.Minute)

		began = time.Now()
		say(1)
		time.Sleep(99 * ms)
		say(1) // the same change
		want(100 * ms)
		say(1) // the next, at once: a second later
		want(1100 * ms)
		silent(time.Minute)

		// A storm, and nobody receives: the last change is told when somebody does.
		for range 1000 {
			say(1)
			time.Sleep(10 * ms)
		}
		time.Sleep(2 * time.Second)
		began = time.Now()
		want(0)
		silent(time.Minute)

		// A storm, and somebody does: once a second.
		var told atomic.Int32
		say(1)
		go func() {
			for range w.changed {
				told.Add(1)
			}
		}()
		for range 1000 {
			time.Sleep(10 * ms)
			say(1)
		}
		time.Sleep(2 * time.Second)
		if n := told.Load(); n < 10 || n > 12 {
			t.Errorf("told %d times of ten seconds of changes", n)
		}
		close(w.closed)
		synctest.Wait()
		if _, open := <-w.changed; open {
			t.Error("told after the end")
		}
	})
}

// TestListenEnds closes it in each of its pauses.
func TestListenEnds(t *testing.T) {
	for _, after := range []time.Duration{0, settle / 2, settle + spacing/2} {
		synctest.Test(t, func(t *testing.T) {
			w := &Watch{changed: make(chan struct{}, 1), closed: make(chan struct{})}
			heard := make(chan error, 2)
			if after > 0 {
				heard <- nil
			}
			go w.listen(func() error { return <-heard }, func() {})
			time.Sleep(after)
			close(w.closed)
			heard <- os.ErrClosed
			synctest.Wait()
			if after > settle {
				<-w.changed
			}
			select {
			case _, open := <-w.changed:
				if open {
					t.Errorf("closed after %v, and still notified", after)
				}
			default:
				t.Errorf("closed after %v, and it goes on", after)
			}
		})
	}
}

// TestEvents hears, drains and closes. A pair of sockets stands in for the kernel.
func TestEvents(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	e, err := newEvents(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	say := func(text string) {
		t.Helper()
		if _, err := unix.Write(fds[1], []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 4)
	want := func(text string) {
		t.Helper()
		if n, lost, err := e.Next(buf); err != nil || lost || string(buf[:n]) != text {
			t.Fatalf("heard %q, %t, %v; want %q", buf[:n], lost, err, text)
		}
	}
	say("one")
	say("twofold")
	want("one")
	want("twof")
	say("three")
	say("four")
	e.Drain()
	e.Drain()
	say("five")
	want("five")
	ended := make(chan error)
	go func() {
		_, _, err := e.Next(buf)
		ended <- err
	}()
	e.Close()
	e.Close()
	if err := <-ended; err == nil {
		t.Error("it hears after Close")
	}
	e.Drain()
}

// TestOverrun lets the kernel tell more than fits in the buffer: what is lost is told once, as such.
func TestOverrun(t *testing.T) {
	var c *Conn
	var e *Events
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			c, err = Dial()
		}
		if err == nil {
			e, err = Listen(routing)
		}
		ready <- err
	}()
	if err := <-ready; err != nil {
		t.Skipf("no network namespace: %v", err)
	}
	defer c.Close()
	defer e.Close()
	e.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 0) }) // as little as there is
	flip := func(up uint32) {
		t.Helper()
		info := make([]byte, unix.SizeofIfInfomsg)
		binary.NativeEndian.PutUint32(info[4:], 1) // lo
		binary.NativeEndian.PutUint32(info[8:], up)
		binary.NativeEndian.PutUint32(info[12:], unix.IFF_UP)
		if _, err := c.Exchange(NewMessage(unix.RTM_NEWLINK, unix.NLM_F_REQUEST|unix.NLM_F_ACK, info), unix.NLMSG_ERROR); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		flip(unix.IFF_UP)
		flip(0)
	}
	var buf [1]byte
	for lost := false; !lost; { // the test's time-out says if nothing is
		var err error
		if _, lost, err = e.Next(buf[:]); err != nil {
			t.Fatal(err)
		}
	}
	e.Drain()
	flip(unix.IFF_UP)
	if n, lost, err := e.Next(buf[:]); n != 1 && !lost || err != nil {
		t.Errorf("the next change: %d, %t, %v", n, lost, err)
	}
}

// TestWatch opens and closes a real one; the netns tests of package udp let things happen to one.
func TestWatch(t *testing.T) {
	w, err := NewWatch()
	if err != nil {
		t.Skipf("no rtnetlink here: %v", err)
	}
	w.Close()
	w.Close()
	for range w.Changed() { // something may have happened
	}
	if _, err := w.Route(new(Flow)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
