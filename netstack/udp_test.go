package netstack_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"throughline/netstack"
	"throughline/packet"
)

func TestUDP(t *testing.T) {
	for _, mk := range []func(testing.TB, int) (a, b *netstack.Stack){pair, tunnel} {
		a, b := mk(t, 1420)
		echo, err := b.ListenPacket("udp", ":7")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			buf := make([]byte, 64<<10)
			for {
				n, from, err := echo.ReadFrom(buf)
				if err != nil {
					if !errors.Is(err, net.ErrClosed) {
						t.Error(err)
					}
					return
				}
				if _, err := echo.WriteTo(buf[:n], from); err != nil {
					t.Error(err)
				}
			}
		}()
		for _, to := range []netip.Addr{b4, b6} {
			c, err := a.Dial("udp", on(to, 7))
			if err != nil {
				t.Fatal(err)
			}
			if c.RemoteAddr().String() != on(to, 7) {
				t.Errorf("connected to %v", c.RemoteAddr())
			}
			for _, size := range []int{0, 1, 100, 1372, 1373, 9000, 60000} { // from 1373 on in fragments
				want := bytes.Repeat([]byte{byte(size)}, size)
				if _, err := c.Write(want); err != nil {
					t.Fatal(size, err)
				}
				c.SetReadDeadline(time.Now().Add(patience))
				got := make([]byte, 64<<10)
				n, err := c.Read(got)
				if err != nil || !bytes.Equal(got[:n], want) {
					t.Errorf("%v: %d bytes came back as %d, error %v", to, size, n, err)
				}
			}
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a read without an answer: %v", err)
			}
			c.Close()
			if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("a write after Close: %v", err)
			}
		}
		echo.Close()
		<-done
	}
}

func TestUDPRefused(t *testing.T) {
	a, _ := pair(t, 1420)
	c, err := a.Dial("udp", on(b4, 9))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a read from a closed port: %v", err)
	}
}

func TestUDPAddresses(t *testing.T) {
	a, _ := pair(t, 1420)
	c, err := a.ListenPacket("udp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(b6, 7))); err == nil {
		t.Error("an IPv4 socket sent to an IPv6 address")
	}
	if _, err := c.WriteTo([]byte("x"), &net.TCPAddr{}); err == nil {
		t.Error("a UDP socket sent to a TCP address")
	}
	if c.LocalAddr().(*net.UDPAddr).Port == 0 {
		t.Error("no port was picked")
	}
}

func TestPing(t *testing.T) {
	a, b := pair(t, 1420)
	for _, to := range []netip.Addr{b4, b6, a4} {
		if rtt, err := a.Ping(within(t), to); err != nil || rtt <= 0 {
			t.Errorf("ping %v: %v, %v", to, rtt, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	var ne net.Error
	if _, err := a.Ping(ctx, netip.MustParseAddr("10.7.0.99")); !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("ping an address that no host has: %v", err)
	}
	ctx, cancel = context.WithCancel(context.Background())
	cancel()
	if _, err := a.Ping(ctx, netip.MustParseAddr("10.7.0.99")); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled ping: %v", err)
	}
	if _, err := a.Ping(within(t), netip.Addr{}); err == nil {
		t.Error("ping without an address succeeded")
	}
	b.Close()
	a.Close()
	if _, err := a.Ping(within(t), b4); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ping from a closed stack: %v", err)
	}
}

// TestUDPWaits checks that a write waits, until its deadline, when nobody reads what is sent.
func TestUDPWaits(t *testing.T) {
	s := newStack(t, netstack.Options{Addresses: []netip.Addr{a4}})
	c, err := s.Dial("udp", on(b4, 7))
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	for err == nil {
		if _, err = c.Write(make([]byte, 1000)); err == nil {
			sent++
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) || sent < 50 || sent > 1000 {
		t.Errorf("after %d datagrams: %v", sent, err)
	}
	b := packet.New()
	got := 0
	for more := true; more; {
		b.Reset()
		if more, err = s.Queues()[0].Read(b); err != nil {
			t.Fatal(err)
		}
		got += len(b.Packets)
	}
	c.SetWriteDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("x")); err != nil || got != sent {
		t.Errorf("of %d datagrams sent %d came out; then: %v", sent, got, err)
	}
}
