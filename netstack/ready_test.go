package netstack_test

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestWaitRead holds that waiting ends with a datagram, which the next Read returns whole, an error, a deadline, or Close.
func TestWaitRead(t *testing.T) {
	a, b := pair(t, 1420)
	echo, err := b.ListenPacket("udp", ":7")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	c, err := a.Dial("udp", on(b4, 7))
	if err != nil {
		t.Fatal(err)
	}
	w := c.(interface{ WaitRead() error })
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	if err := w.WaitRead(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	c.SetReadDeadline(time.Now().Add(patience))
	for _, msg := range []string{"hello", "", "again"} {
		go func() {
			b := make([]byte, 100)
			n, from, err := echo.ReadFrom(b)
			if err == nil {
				_, err = echo.WriteTo(b[:n], from)
			}
			if err != nil {
				t.Error(err)
			}
		}()
		c.Write([]byte(msg))
		for range 2 {
			if err := w.WaitRead(); err != nil {
				t.Fatal(err)
			}
		}
		b := make([]byte, 100)
		if n, err := c.Read(b); err != nil || string(b[:n]) != msg {
			t.Errorf("%q, %v", b[:n], err)
		}
	}
	time.AfterFunc(10*time.Millisecond, func() { c.Close() })
	if err := w.WaitRead(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	refused, err := a.Dial("udp", on(b4, 9))
	if err != nil {
		t.Fatal(err)
	}
	defer refused.Close()
	refused.SetReadDeadline(time.Now().Add(patience))
	refused.Write([]byte("x"))
	err = refused.(interface{ WaitRead() error }).WaitRead()
	if err == nil {
		_, err = refused.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("where nobody listens: %v", err)
	}
}
