package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// TestUnreadConnections has many clients ask for much and read nothing, and holds what each costs the proxy itself: the kernel's,
// or the user-space stack's, buffers are besides.
func TestUnreadConnections(t *testing.T) {
	const n = 100
	endless := serve(t, func(c net.Conn) {
		b := make([]byte, 64<<10)
		c.Read(b)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	})
	copied := &fake{dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := Host{}.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return struct{ tcp }{c.(*net.TCPConn)}, nil
	}}
	for name, tt := range map[string]struct {
		section string
		ask     func(net.Conn)
		most    int64
	}{
		"relayed": {"[Socks5]\n", func(c net.Conn) {
			socksConnect(t, c, netip.MustParseAddrPort(endless))
			io.WriteString(c, "x")
		}, 56 << 10},
		"http": {"[http]\n", func(c net.Conn) { fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", endless) }, 112 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, config(t, tt.section+"BindAddress=127.0.0.1:0"), copied, Host{})
			use := func() int64 {
				var m runtime.MemStats
				runtime.GC()
				runtime.GC()
				runtime.ReadMemStats(&m)
				return int64(m.HeapAlloc + m.StackInuse)
			}
			before := use()
			for range n {
				tt.ask(connectTo(t, "tcp", p.addr(0)))
			}
			for last := uint64(1); last != p.sections[0].toClient.Load(); time.Sleep(200 * time.Millisecond) {
				last = p.sections[0].toClient.Load()
			}
			each := (use() - before) / n
			t.Logf("%d bytes for each; the target's goroutine and its 64 KiB are among them", each)
			if each -= 64 << 10; each > tt.most {
				t.Errorf("a connection that nobody reads holds %d bytes, want at most %d", each, tt.most)
			}
		})
	}
}
