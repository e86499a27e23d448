package datagram

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestWait holds that waiting ends with a datagram, before or after it began, an error, a deadline, or Close.
func TestWait(t *testing.T) {
	far, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	c, err := net.Dial("udp", far.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	if err := Wait(c); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	for _, after := range []time.Duration{0, 10 * time.Millisecond} {
		for _, msg := range []string{"hello", ""} {
			time.AfterFunc(after, func() { far.WriteTo([]byte(msg), c.LocalAddr()) })
			if after == 0 {
				time.Sleep(10 * time.Millisecond)
			}
			for range 2 {
				if err := Wait(c); err != nil {
					t.Fatal(err)
				}
			}
			b := make([]byte, 100)
			if n, err := c.Read(b); err != nil || string(b[:n]) != msg {
				t.Errorf("%q, %v", b[:n], err)
			}
		}
	}
	time.AfterFunc(10*time.Millisecond, func() { c.Close() })
	if err := Wait(c); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	refused, err := net.Dial("udp", "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer refused.Close()
	refused.Write([]byte("x"))
	if err := Wait(refused); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("where nobody listens: %v", err)
	}
}
