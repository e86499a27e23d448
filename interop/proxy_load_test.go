package interop

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

const thousands = 10_000

// bothProxies are the sections of the tests with many connections.
const bothProxies = "[Socks5]\nBindAddress = HOST:1080\nMaxConnections = 10000\n[http]\nBindAddress = HOST:8080\nMaxConnections = 10000\n"

// connect connects through the SOCKS5 or the HTTP proxy, in turn, from one of several addresses.
func (x *proxied) connect(i int, to string) (net.Conn, error) {
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+i%8))}, Timeout: 3 * waitLimit}
	if i%2 == 0 {
		return x.viaSOCKS(d, 1080, nil, to)
	}
	return x.viaCONNECT(d, 8080, "", to)
}

// TestProxyTenThousandOpen asks: are ten thousand connections served at the same time, in less than 1 GiB?
func TestProxyTenThousandOpen(t *testing.T) {
	for _, far := range []program{ours, theirs} {
		t.Run("far peer "+string(far), func(t *testing.T) {
			atOnce, most := 128, 40_000
			if far == theirs {
				atOnce, most = 8, 4_000 // its listener keeps only 10 connections that wait, and its stack is slow
			}
			needDescriptors(t, thousands+1000)
			x := startProxy(t, far, bothProxies)
			start := x.memory("VmRSS")
			conns := make([]net.Conn, thousands)
			t.Cleanup(func() {
				for _, c := range conns {
					if c != nil {
						c.Close()
					}
				}
			})

			begun := time.Now()
			if err := each(thousands, atOnce, func(i int) error {
				c, err := x.connect(i, inner(farEcho))
				if err != nil {
					return fmt.Errorf("connection %d: %w", i, err)
				}
				conns[i] = c
				return roundTrip(c, i, 100+i%4000)
			}); err != nil {
				t.Fatal(err)
			}
			opened := time.Since(begun)
			if open := x.metric("proxy_connections"); open != thousands {
				t.Errorf("%v connections are open", open)
			}
			open := x.memory("VmRSS")

			begun = time.Now()
			for _, n := range []int{1000, most} {
				if err := each(thousands, 64, func(i int) error { return roundTrip(conns[i], i+n, n-i%100) }); err != nil {
					t.Fatal(err)
				}
			}
			spoken := time.Since(begun)
			peak := x.memory("VmHWM")
			t.Logf("opened in %.1f s, then 1 kB and %d kB echoed on each in %.1f s; %.1f s of processor; resident: %.0f MiB before, %.0f MiB when all were open, %.0f MiB at most",
				opened.Seconds(), most/1000, spoken.Seconds(), x.cpu(), start, open, peak)
			if peak >= 1024 && !isRaceBuild() {
				t.Errorf("the proxy had %.0f MiB resident, want less than 1 GiB", peak)
			}
			for _, bad := range []string{"proxy_refused_total", "proxy_failed_total"} {
				if n := x.metric(bad); n != 0 {
					t.Errorf("%s: %v", bad, n)
				}
			}
			for i := range conns {
				conns[i].Close()
			}
			x.wantMetric("proxy_connections", 0)
			x.wantMetric("proxy_connections_total", thousands)
		})
	}
}

// TestProxyTenThousandShort asks: do ten thousand short connections, 64 at a time, leave anything? A third of them is closed by
// the client, a third half closed by it, and a third closed by the target, so that every stack has some in TIME-WAIT.
func TestProxyTenThousandShort(t *testing.T) {
	x := startProxy(t, theirs, bothProxies)
	if err := each(6, 1, func(i int) error { return x.short(i) }); err != nil {
		t.Fatal(err)
	}
	x.wantMetric("proxy_connections", 0)
	before := x.descriptors()

	begun := time.Now()
	if err := each(thousands, 64, x.short); err != nil {
		t.Error(err)
	}
	took := time.Since(begun)
	x.wantMetric("proxy_connections", 0)
	x.wantMetric("proxy_connections_total", thousands+6)
	if n := x.metric("proxy_failed_total") + x.metric("proxy_refused_total"); n != 0 {
		t.Errorf("%v connections failed", n)
	}
	if err := within(6*waitLimit, func() error {
		if n := x.descriptors(); n > before+2 { // those of the health server's connections
			return fmt.Errorf("%d descriptors are open, %d before", n, before)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	peak := x.memory("VmHWM")
	left := x.goroutines()
	t.Logf("%.1f s, %.0f a second; %.0f MiB resident at most; %d goroutines at the end", took.Seconds(), thousands/took.Seconds(), peak, len(left))
	for _, g := range left {
		if strings.Contains(g, "proxy/internal/relay") || strings.Contains(g, "(*section).handle") {
			t.Errorf("a goroutine is left: %s", g)
		}
	}
	if len(left) == 0 || len(left) > 60 {
		t.Errorf("%d goroutines are left:\n%s", len(left), strings.Join(left[:min(5, len(left))], "\n\n"))
	}
}

// short is one short connection.
func (x *proxied) short(i int) error {
	kind := i / 2 % 3
	c, err := x.connect(i, inner([]uint16{farEcho, farEnd, farOnce}[kind]))
	if err != nil {
		return fmt.Errorf("connection %d: %w", i, err)
	}
	defer c.Close()
	switch kind {
	case 0:
		return roundTrip(c, i, 10+i%2000)
	case 1:
		return halfClose(c, i)
	}
	if err := roundTrip(c, i, 100); err != nil {
		return err
	}
	c.SetDeadline(time.Now().Add(6 * waitLimit))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return fmt.Errorf("connection %d: %d bytes and %v after the target's end", i, n, err)
	}
	return nil
}
