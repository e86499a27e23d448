package netstack_test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"throughline"
	"throughline/netstack"
	"throughline/packet"
	"throughline/tun"
)

// Addresses of the two ends that most tests join.
var (
	a4 = netip.MustParseAddr("10.7.0.1")
	b4 = netip.MustParseAddr("10.7.0.2")
	a6 = netip.MustParseAddr("fd07::1")
	b6 = netip.MustParseAddr("fd07::2")
)

// patience bounds waits that only end by it when something is wrong.
const patience = 30 * time.Second

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func newStack(t testing.TB, o netstack.Options) *netstack.Stack {
	t.Helper()
	s, err := netstack.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// A wire carries batches between two stacks, as a tunnel would without encryption.
type wire struct {
	wg    sync.WaitGroup
	alter func(b *packet.Batch, to tun.Queue) // is called with each batch in flight; may mark packets as dropped
}

// join carries everything between a and b until both are closed.
func (w *wire) join(t testing.TB, a, b *netstack.Stack) {
	carry := func(from, to tun.Queue) {
		batch := packet.New()
		for {
			batch.Reset()
			if _, err := from.Read(batch); err != nil {
				if !errors.Is(err, os.ErrClosed) {
					t.Error("read:", err)
				}
				return
			}
			if w.alter != nil {
				w.alter(batch, to)
			}
			if err := to.Write(batch); err != nil && !errors.Is(err, os.ErrClosed) {
				t.Error("write:", err)
				return
			}
		}
	}
	w.wg.Go(func() { carry(a.Queues()[0], b.Queues()[0]) })
	w.wg.Go(func() { carry(b.Queues()[0], a.Queues()[0]) })
	t.Cleanup(func() {
		a.Close()
		b.Close()
		w.wg.Wait()
	})
}

// pair returns two stacks that are joined.
func pair(t testing.TB, mtu int) (a, b *netstack.Stack) {
	return altered(t, mtu, nil)
}

// altered returns two joined stacks; alter is called with each batch between them.
func altered(t testing.TB, mtu int, alter func(b *packet.Batch, to tun.Queue)) (a, b *netstack.Stack) {
	t.Helper()
	a = newStack(t, netstack.Options{Addresses: []netip.Addr{a4, a6}, DNS: []netip.Addr{b4}, MTU: mtu})
	b = newStack(t, netstack.Options{Addresses: []netip.Addr{b4, b6}, MTU: mtu})
	(&wire{alter: alter}).join(t, a, b)
	return a, b
}

// tunnel returns two stacks that are the inner sides of two whole devices, over UDP on the loopback interface.
func tunnel(t testing.TB, mtu int) (a, b *netstack.Stack) {
	t.Helper()
	a = newStack(t, netstack.Options{Addresses: []netip.Addr{a4, a6}, MTU: mtu})
	b = newStack(t, netstack.Options{Addresses: []netip.Addr{b4, b6}, MTU: mtu})
	keyA, keyB := throughline.NewPrivateKey(), throughline.NewPrivateKey()
	device := func(s *netstack.Stack, key throughline.PrivateKey) *throughline.Device {
		d, err := throughline.New(throughline.Options{TUN: s})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		if err := d.Configure(throughline.Config{PrivateKey: &key}); err != nil {
			t.Fatal(err)
		}
		if err := d.Up(); err != nil {
			t.Fatal(err)
		}
		return d
	}
	da, db := device(a, keyA), device(b, keyB)
	peer := func(d *throughline.Device, key throughline.PrivateKey, to *netip.AddrPort, v4, v6 netip.Addr) {
		if err := d.Configure(throughline.Config{Peers: []throughline.PeerConfig{{
			PublicKey: key.Public(), Endpoint: to,
			AllowedIPs: []netip.Prefix{netip.PrefixFrom(v4, 32), netip.PrefixFrom(v6, 128)},
		}}}); err != nil {
			t.Fatal(err)
		}
	}
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), db.Status().ListenPort)
	peer(da, keyB, &to, b4, b6)
	peer(db, keyA, nil, a4, a6)
	return a, b
}

// bulk sends size bytes on each of n connections from a to a sink on b, and returns when all has arrived.
func bulk(t testing.TB, a, b *netstack.Stack, to string, n int, size int64) {
	t.Helper()
	l, err := b.Listen("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			c, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if got, err := io.Copy(io.Discard, struct{ io.Reader }{c}); err != nil || got != size {
				t.Errorf("received %d bytes of %d, error %v", got, size, err)
			}
		})
		wg.Go(func() {
			c, err := a.DialContext(within(t), "tcp", l.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			buf := make([]byte, 64<<10)
			for left := size; left > 0; {
				k, err := c.Write(buf[:min(left, int64(len(buf)))])
				if err != nil {
					t.Error(err)
					return
				}
				left -= int64(k)
			}
		})
	}
	wg.Wait()
}

func benchmarkTCP(b *testing.B, streams int) {
	x, y := tunnel(b, 1420)
	bulk(b, x, y, b4.String()+":0", streams, 64<<10) // session and buffers are there
	const block = 1 << 20
	b.SetBytes(block)
	b.ReportAllocs()
	b.ResetTimer()
	bulk(b, x, y, b4.String()+":0", streams, int64((b.N+streams-1)/streams)*block)
}

func BenchmarkTCP1(b *testing.B)   { benchmarkTCP(b, 1) }
func BenchmarkTCP100(b *testing.B) { benchmarkTCP(b, 100) }

// BenchmarkPipe1 leaves out the tunnel: the stacks alone.
func BenchmarkPipe1(b *testing.B) {
	x, y := pair(b, 1420)
	const block = 1 << 20
	b.SetBytes(block)
	b.ReportAllocs()
	bulk(b, x, y, b4.String()+":0", 1, int64(b.N)*block)
}

// BenchmarkConnections10000 opens ten thousand connections at the same time, sends a little on each, and closes them.
func BenchmarkConnections10000(b *testing.B) {
	x, y := pair(b, 1420)
	const n = 10_000
	for b.Loop() {
		l, err := y.Listen("tcp", ":80")
		if err != nil {
			b.Fatal(err)
		}
		var wg, open sync.WaitGroup
		open.Add(n)
		for range n {
			wg.Go(func() {
				d, err := l.Accept()
				if err != nil {
					b.Error(err)
					return
				}
				io.Copy(d, struct{ io.Reader }{d})
				d.Close()
			})
			wg.Go(func() {
				c, err := x.Dial("tcp", on(b4, 80))
				open.Done()
				if err != nil {
					b.Error(err)
					return
				}
				defer c.Close()
				open.Wait()
				c.SetDeadline(time.Now().Add(2 * patience))
				if _, err := c.Write(make([]byte, 100)); err != nil {
					b.Error(err)
				} else if _, err := io.ReadFull(c, make([]byte, 100)); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		l.Close()
	}
}
