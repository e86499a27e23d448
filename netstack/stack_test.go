package netstack_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"throughline/netstack"
	"throughline/packet"
	"throughline/tun"
)

func TestOptions(t *testing.T) {
	for _, o := range []netstack.Options{
		{},
		{Addresses: []netip.Addr{{}}},
		{Addresses: []netip.Addr{netip.IPv4Unspecified()}},
		{Addresses: []netip.Addr{netip.MustParseAddr("224.0.0.1")}},
		{Addresses: []netip.Addr{netip.MustParseAddr("::ffff:10.0.0.1")}},
		{Addresses: []netip.Addr{a4, a4}},
		{Addresses: []netip.Addr{a4}, MTU: 575},
		{Addresses: []netip.Addr{a6}, MTU: 1279},
		{Addresses: []netip.Addr{a4}, MTU: 65536},
		{Addresses: []netip.Addr{a4}, Buffer: -1},
		{Addresses: []netip.Addr{a4}, DNS: []netip.Addr{{}}},
	} {
		if s, err := netstack.New(o); err == nil {
			t.Errorf("%+v is accepted", o)
			s.Close()
		}
	}
}

func TestDevice(t *testing.T) {
	s := newStack(t, netstack.Options{Addresses: []netip.Addr{a4}})
	if mtu, err := s.MTU(); mtu != netstack.DefaultMTU || err != nil {
		t.Errorf("MTU %d, %v", mtu, err)
	}
	if name, err := s.Name(); name == "" || err != nil {
		t.Errorf("name %q, %v", name, err)
	}
	if ev := <-s.Events(); ev != tun.Up {
		t.Errorf("event %v", ev)
	}
	ended := make(chan error)
	go func() { _, err := s.Queues()[0].Read(packet.New()); ended <- err }()
	s.Close()
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("read after Close: %v", err)
	}
	if _, ok := <-s.Events(); ok {
		t.Error("an event after Close")
	}
	b := packet.New()
	b.Append([]byte{0x45})
	if err := s.Queues()[0].Write(b); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write after Close: %v", err)
	}
	if _, err := s.MTU(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("MTU after Close: %v", err)
	}
	if s.Close() != nil {
		t.Error("the second Close failed")
	}
}

// TestGarbage gives the stack malformed packets, as a hostile peer could. It may only drop them.
func TestGarbage(t *testing.T) {
	a, b := pair(t, 1420)
	connect(t, a, b, "tcp", on(b4, 0))
	g := packet.New()
	for _, p := range [][]byte{
		{0}, {0x45}, {0x60}, make([]byte, 40), append([]byte{0x46, 0, 0, 20}, make([]byte, 16)...),
		append([]byte{0x60, 0, 0, 0, 0xff, 0xff, 0}, make([]byte, 33)...),
	} {
		g.Append(p)
	}
	s := newStack(t, netstack.Options{Addresses: []netip.Addr{b4, b6}})
	if err := s.Queues()[0].Write(g); err != nil {
		t.Error(err)
	}
	if g.Packets[0].Drop != packet.DropTUN {
		t.Error("a packet of no known version isn't marked as dropped")
	}
}

// TestCloseDuringTraffic closes stacks under load. Every connection must fail, and no goroutine be left.
func TestCloseDuringTraffic(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 3 {
		t.Run("", func(t *testing.T) {
			a, b := pair(t, 1420)
			l, err := b.Listen("tcp", ":80")
			if err != nil {
				t.Fatal(err)
			}
			u, err := b.ListenPacket("udp", ":80")
			if err != nil {
				t.Fatal(err)
			}
			var wg, flowing sync.WaitGroup
			closed := func(what string, err error) {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("%s: %v", what, err)
				}
			}
			const n = 20
			flowing.Add(n)
			for range n {
				wg.Go(func() { // b is closed second, so its ends are closed and not reset
					d, err := l.Accept()
					if err != nil {
						closed("accept", err)
						return
					}
					defer d.Close()
					buf := make([]byte, 64<<10)
					if _, err = io.ReadFull(d, buf); err != nil {
						t.Error(err)
					}
					flowing.Done()
					for err == nil {
						_, err = d.Read(buf)
					}
					closed("read", err)
				})
				wg.Go(func() {
					c, err := a.DialContext(within(t), "tcp", on(b4, 80))
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					buf := make([]byte, 64<<10)
					for err == nil {
						_, err = c.Write(buf)
					}
					closed("write", err)
				})
			}
			wg.Go(func() {
				var err error
				for err == nil {
					_, _, err = u.ReadFrom(make([]byte, 1))
				}
				closed("read UDP", err)
			})
			flowing.Wait()
			wg.Go(func() {
				_, err := l.Accept()
				closed("accept", err)
			})
			a.Close()
			b.Close()
			wg.Wait()
		})
	}
	// Goroutines that have been waited for may take a moment to be gone from the list.
	for ctx := within(t); ctx.Err() == nil; {
		if runtime.NumGoroutine() <= before {
			return
		}
		runtime.Gosched()
	}
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	t.Errorf("%d goroutines before, %d after, some of gVisor's: %v\n%s",
		before, runtime.NumGoroutine(), strings.Contains(string(buf), "gvisor"), buf)
}
