package interop

import (
	"fmt"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Ports of the far peer for connections that nobody reads.
const (
	farFlood = 19 // TCP: sends without end
	farHole  = 20 // TCP: reads nothing
)

// narrow is a dialer whose connections have a small receive buffer and a small send buffer in the kernel, so that bytes that
// nobody reads are in the proxy and not there.
var narrow = &net.Dialer{Timeout: 3 * waitLimit, Control: func(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10)
		syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, 4<<10)
	})
}}

// TestProxyUnread asks: do 1,024 connections that nobody reads, in either direction, leave the proxy below 256 MiB, and does
// it have no more than 32 MiB more than before 10 s after they have ended?
func TestProxyUnread(t *testing.T) {
	const count = 1024
	needDescriptors(t, 2*count+1000)
	for _, to := range []struct {
		name string
		port uint16
	}{{"the far peer sends", farFlood}, {"the far peer doesn't read", farHole}} {
		t.Run(to.name, func(t *testing.T) {
			x := startProxy(t, ours, bothProxies)
			held := make(chan struct{})
			letGo := sync.OnceFunc(func() { close(held) })
			t.Cleanup(letGo)
			ln, err := x.far.listen(farFlood)
			serveTCP(t, ln, err, func(c net.Conn) {
				b := make([]byte, 64<<10)
				for err := error(nil); err == nil; {
					_, err = c.Write(b)
				}
			})
			ln, err = x.far.listen(farHole)
			serveTCP(t, ln, err, func(net.Conn) { <-held })
			c, err := x.viaSOCKS(narrow, 1080, nil, inner(farEcho))
			if err != nil {
				t.Fatal(err)
			}
			if err := roundTrip(c, 0, 1000); err != nil {
				t.Fatal(err)
			}
			c.Close()
			start := x.memory("VmRSS")

			conns := make([]net.Conn, count)
			t.Cleanup(func() {
				for _, c := range conns {
					if c != nil {
						c.Close()
					}
				}
			})
			if err := each(count, 16, func(i int) (err error) {
				conns[i], err = x.viaSOCKS(narrow, 1080, nil, inner(to.port))
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if to.port == farHole {
				for _, c := range conns {
					go func() {
						b := make([]byte, 64<<10)
						for err := error(nil); err == nil; {
							_, err = c.Write(b)
						}
					}()
				}
			}
			// Until it holds no more than two seconds before.
			for last, since := 0.0, time.Now(); time.Since(since) < 2*time.Second; time.Sleep(100 * time.Millisecond) {
				if now := x.memory("VmRSS"); now > last+1 {
					last, since = now, time.Now()
				}
			}
			reserved := x.metric("netstack_receive_reserved_bytes")
			shortened := x.metric("netstack_receive_shortened_total")
			peak := x.memory("VmHWM")
			letGo()
			for _, c := range conns {
				c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
			x.wantMetric("proxy_connections", 0)
			var after float64
			began := time.Now()
			back := within(waitLimit, func() error {
				if after = x.memory("VmRSS"); after > start+32 {
					return fmt.Errorf("%.0f MiB are resident", after)
				}
				return nil
			})
			t.Logf("resident: %.0f MiB before, %.0f MiB at most with %d connections, %.0f MiB after %.1f s; reserved %.0f MiB, shortened %.0f",
				start, peak, count, after, time.Since(began).Seconds(), reserved/(1<<20), shortened)
			if isRaceBuild() {
				return
			}
			if peak > 256 {
				t.Errorf("%.0f MiB were resident, want 256 MiB at most", peak)
			}
			if back != nil {
				t.Errorf("%v after %v; it began with %.0f", back, waitLimit, start)
			}
		})
	}
}
