package proxy

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestUDPTunnels(t *testing.T) {
	target := udpEcho(t)
	p := start(t, config(t, "[UDPClientTunnel]\nBindAddress=127.0.0.1:0\nMaxConnections=2\nTarget="+target+"\n[UDPServerTunnel]\nListenPort=1\nTarget="+target), &fake{local: true}, Host{})
	for i := range 2 {
		a, b := connectTo(t, "udp", p.addr(i)), connectTo(t, "udp", p.addr(i))
		for n := range 20 {
			pingPong(t, a, fmt.Sprint("a", n))
			pingPong(t, b, fmt.Sprint("b", n))
		}
		pingPong(t, a, strings.Repeat("x", 60000))
	}
	connectTo(t, "udp", p.addr(0)).Write([]byte("one too many"))
	pingPong(t, connectTo(t, "udp", p.addr(1)), "and more")
	for end := time.Now().Add(patience); p.sections[0].refused.Load() == 0; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("a session above the limit isn't refused")
		}
	}
	if n := p.sections[0].open.Load(); n != 2 {
		t.Errorf("%d sessions, want 2", n)
	}
}

// A pipe is a datagram socket in memory, whose deadlines know the bubble's time.
type pipe struct {
	in     chan []byte
	out    chan []byte
	from   net.Addr
	closed chan struct{}
	once   sync.Once
	mu     sync.Mutex
	when   time.Time
}

func newPipe() *pipe {
	return &pipe{in: make(chan []byte, 16), out: make(chan []byte, 16), closed: make(chan struct{}), from: &net.UDPAddr{IP: net.IP{192, 0, 2, 1}, Port: 1}}
}

func (p *pipe) Read(b []byte) (int, error) {
	var late <-chan time.Time
	p.mu.Lock()
	if !p.when.IsZero() {
		late = time.After(time.Until(p.when))
	}
	p.mu.Unlock()
	select {
	case d := <-p.in:
		return copy(b, d), nil
	case <-late:
		return 0, os.ErrDeadlineExceeded
	case <-p.closed:
		return 0, net.ErrClosed
	}
}

func (p *pipe) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := p.Read(b)
	return n, p.from, err
}

func (p *pipe) Write(b []byte) (int, error) {
	p.out <- append([]byte(nil), b...)
	return len(b), nil
}

func (p *pipe) WriteTo(b []byte, _ net.Addr) (int, error) { return p.Write(b) }
func (p *pipe) Close() error                              { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipe) LocalAddr() net.Addr                       { return p.from }
func (p *pipe) RemoteAddr() net.Addr                      { return p.from }
func (p *pipe) SetDeadline(t time.Time) error             { return p.SetReadDeadline(t) }
func (p *pipe) SetWriteDeadline(time.Time) error          { return nil }

func (p *pipe) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	p.when = t
	p.mu.Unlock()
	return nil
}

// pipes is a network of them.
type pipes struct {
	fake
	listener *pipe
	mu       sync.Mutex
	dialled  []*pipe
	delay    time.Duration
}

// reached returns the n-th socket to a target.
func (p *pipes) reached(n int) *pipe {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dialled[n]
}

func (p *pipes) ListenPacket(string, string) (net.PacketConn, error) { return p.listener, nil }

func (p *pipes) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	time.Sleep(p.delay)
	c := newPipe()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialled = append(p.dialled, c)
	return c, nil
}

// What waits for a target is bounded in bytes, too; the first datagram waits whatever its size.
func TestUDPPendingBytes(t *testing.T) {
	for _, c := range []struct{ sizes, want []int }{
		{[]int{40000, 1}, []int{40000}},
		{[]int{10000, 10000, 6000, 2}, []int{10000, 6000, 2}},
	} {
		synctest.Test(t, func(t *testing.T) {
			host, tunnel := &pipes{listener: newPipe()}, &pipes{delay: time.Second}
			p := New(config(t, "[UDPClientTunnel]\nBindAddress=127.0.0.1:1\nTarget=192.0.2.9:9\nIdleTimeout=30"), tunnel, host, nil)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- p.Run(ctx) }()
			for _, n := range c.sizes {
				host.listener.in <- make([]byte, n)
			}
			time.Sleep(2 * time.Second)
			for _, n := range c.want {
				if b := <-tunnel.reached(0).out; len(b) != n {
					t.Errorf("a datagram of %d bytes, want %d", len(b), n)
				}
			}
			if n := len(tunnel.reached(0).out); n != 0 {
				t.Errorf("%d more datagrams than may wait", n)
			}
			if n := p.sections[0].dropped.Load(); n != uint64(len(c.sizes)-len(c.want)) {
				t.Errorf("%d datagrams are counted as dropped, of %d", n, len(c.sizes))
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestUDPSessionExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, tunnel := &pipes{listener: newPipe()}, &pipes{delay: time.Second}
		p := New(config(t, "[UDPClientTunnel]\nBindAddress=127.0.0.1:1\nTarget=192.0.2.9:9\nIdleTimeout=30"), tunnel, host, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		open := func(want int64) {
			t.Helper()
			synctest.Wait()
			if n := p.sections[0].open.Load(); n != want {
				t.Errorf("%d sessions are open, want %d", n, want)
			}
		}
		for i := range 12 { // while the target is being reached
			host.listener.in <- []byte{byte(i)}
		}
		open(1)
		time.Sleep(2 * time.Second)
		for i := range maxPending {
			if b := <-tunnel.reached(0).out; len(b) != 1 || b[0] != byte(i) {
				t.Errorf("datagram %d is % x", i, b)
			}
		}
		if n := len(tunnel.reached(0).out); n != 0 {
			t.Errorf("%d more datagrams than may wait", n)
		}
		for range 3 { // the client alone keeps it alive
			time.Sleep(20 * time.Second)
			host.listener.in <- []byte("up")
			open(1)
			<-tunnel.reached(0).out
		}
		for range 3 { // and the target alone
			time.Sleep(20 * time.Second)
			tunnel.reached(0).in <- []byte("down")
			open(1)
			<-host.listener.out
		}
		time.Sleep(29 * time.Second)
		open(1)
		time.Sleep(2 * time.Second)
		open(0)
		host.listener.in <- []byte("again")
		open(1)
		time.Sleep(2 * time.Second)
		if string(<-tunnel.reached(1).out) != "again" {
			t.Error("after its session ended, a client has no new one")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		open(0)
	})
}

// A datagramClient is the client of a UDP association.
type datagramClient struct {
	control net.Conn
	udp     net.Conn
}

func newAssociation(t testing.TB, proxy string) *datagramClient {
	t.Helper()
	c := connectTo(t, "tcp", proxy)
	send(t, c, 5, 1, 0)
	expect(t, c, 5, 0)
	send(t, c, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0)
	expect(t, c, 5, 0, 0, 1, 127, 0, 0, 1)
	port := make([]byte, 2)
	if _, err := io.ReadFull(c, port); err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(loopback, binary.BigEndian.Uint16(port))
	return &datagramClient{control: c, udp: connectTo(t, "udp", to.String())}
}

func datagramTo(to netip.AddrPort, data string) []byte {
	a := to.Addr().As4()
	return append(binary.BigEndian.AppendUint16([]byte{0, 0, 0, 1, a[0], a[1], a[2], a[3]}, to.Port()), data...)
}

func (d *datagramClient) ask(t testing.TB, to netip.AddrPort, data string) {
	t.Helper()
	want := datagramTo(to, data)
	send(t, d.udp, want...)
	b := make([]byte, 1<<16)
	if n, err := d.udp.Read(b); err != nil || string(b[:n]) != string(want) {
		t.Fatalf("% x, %v; want % x", b[:min(n, 40)], err, want[:min(len(want), 40)])
	}
}

func TestAssociate(t *testing.T) {
	one, two := netip.MustParseAddrPort(udpEcho(t)), netip.MustParseAddrPort(udpEcho(t))
	tunnel := &fake{names: map[string][]netip.Addr{"echo.example": {loopback}}}
	p := start(t, config(t, "[Interface]\nDNS=1.1.1.1\n[Socks5]\nBindAddress=127.0.0.1:0"), tunnel, Host{})
	d := newAssociation(t, p.addr(0))
	d.ask(t, one, "hello")
	d.ask(t, two, "")
	d.ask(t, one, strings.Repeat("x", 60000))
	// Those are dropped: a fragment, half a header, a name that isn't, port 0, and one from another source.
	send(t, d.udp, append([]byte{0, 0, 1}, datagramTo(one, "fragment")[3:]...)...)
	send(t, d.udp, 0, 0, 0, 1, 127)
	send(t, d.udp, []byte("\x00\x00\x00\x03\x04none\x00\x50data")...)
	send(t, d.udp, datagramTo(netip.AddrPortFrom(loopback, 0), "x")...)
	other := connectTo(t, "udp", d.udp.RemoteAddr().String())
	send(t, other, datagramTo(one, "stolen")...)
	d.ask(t, one, "still there")
	for end := time.Now().Add(patience); p.sections[0].dropped.Load() != 5; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d datagrams were dropped, want 5", p.sections[0].dropped.Load())
		}
	}
	// By name; the answer has the address.
	send(t, d.udp, append(binary.BigEndian.AppendUint16([]byte("\x00\x00\x00\x03\x0cecho.example"), one.Port()), "named"...)...)
	b := make([]byte, 100)
	if n, err := d.udp.Read(b); err != nil || string(b[:n]) != string(datagramTo(one, "named")) {
		t.Errorf("% x, %v", b[:n], err)
	}
	// The end of the connection is that of the association.
	d.control.Close()
	for end := time.Now().Add(patience); p.sections[0].open.Load() > 0; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("the association goes on without its connection")
		}
	}
	send(t, connectTo(t, "tcp", p.addr(0)), 5, 1, 0)
	chatty := newAssociation(t, p.addr(0))
	send(t, chatty.control, 1)
	if _, err := chatty.control.Read(b); err == nil {
		t.Error("what isn't asked for is answered")
	}
}

// TestAssociateFirst has an association, with a login and without, be one of a client that never says where its datagrams come
// from, or does so late: whoever sends from its address later must not get it.
func TestAssociateFirst(t *testing.T) {
	one := netip.MustParseAddrPort("192.0.2.9:9")
	for name, tt := range map[string]struct {
		login, announced string
		after            time.Duration // of the first datagram
		served           bool
	}{
		"in time":              {"Username=u\n", "0.0.0.0:0", 9 * time.Second, true},
		"too late":             {"Username=u\n", "0.0.0.0:0", 11 * time.Second, false},
		"without a login":      {"", "0.0.0.0:0", time.Minute, true},
		"announced":            {"Username=u\n", "192.0.2.1:1", time.Minute, true},
		"port announced":       {"Username=u\n", "0.0.0.0:1", time.Minute, true},
		"other port announced": {"Username=u\n", "0.0.0.0:2", time.Second, false},
		"behind a NAT":         {"Username=u\n", "10.0.0.1:2", 9 * time.Second, true},
		"late behind a NAT":    {"Username=u\n", "10.0.0.1:1", 11 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				host, tunnel := &pipes{listener: newPipe()}, &pipes{listener: newPipe()}
				s := New(config(t, "[Socks5]\nBindAddress=127.0.0.1:1\n"+tt.login), tunnel, host, nil).sections[0]
				l := &live{ctx: t.Context(), open: make(map[io.Closer]struct{})}
				c, done := control{newPipe()}, make(chan error, 1)
				go func() { done <- s.associate(l, c, tt.announced) }()
				time.Sleep(tt.after)
				host.listener.in <- datagramTo(one, "hello")
				synctest.Wait()
				if served := len(tunnel.listener.out) == 1; served != tt.served {
					t.Errorf("it is served: %v", served)
				}
				if !tt.served && tt.announced != "0.0.0.0:2" {
					if err := <-done; err == nil || c.isOpen() {
						t.Errorf("it goes on, %v", err)
					}
					return
				}
				if want := map[bool]uint64{true: 0, false: 1}[tt.served]; s.dropped.Load() != want {
					t.Errorf("%d datagrams are counted, want %d", s.dropped.Load(), want)
				}
				time.Sleep(time.Minute)
				if len(done) > 0 {
					t.Error("it has ended")
				}
				c.Close()
				<-done
			})
		})
	}
}

// isOpen reports whether a pipe isn't closed.
func (p *pipe) isOpen() bool {
	select {
	case <-p.closed:
		return false
	default:
		return true
	}
}

// A slowNames is the network of targets, with a resolver that is slow, and fails as often as it is told to.
type slowNames struct {
	pipes
	failures int
	asked    int
}

func (s *slowNames) LookupHost(ctx context.Context, _ string) ([]netip.Addr, error) {
	s.asked++
	if s.failures--; s.failures >= 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	select {
	case <-time.After(12 * time.Second): // as after datagrams lost, or with servers that are dead
		return []netip.Addr{loopback}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A control is the connection of an association: silent, from the address that a pipe's datagrams come from.
type control struct{ *pipe }

func (c control) Write(b []byte) (int, error) { return len(b), nil }
func (c control) Close() error                { return c.pipe.Close() }

// TestAssociateSlowNames has an association send to a name that resolves late, or only when it is asked again.
func TestAssociateSlowNames(t *testing.T) {
	byName := func(data string) []byte { return []byte("\x00\x00\x00\x03\x04name\x00\x50" + data) }
	for _, failures := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			host := &pipes{listener: newPipe()}
			tunnel := &slowNames{pipes: pipes{listener: newPipe()}, failures: failures}
			p := New(config(t, "[Interface]\nDNS=1.1.1.1\n[Socks5]\nBindAddress=127.0.0.1:1"), tunnel, host, nil)
			l := &live{ctx: t.Context(), open: make(map[io.Closer]struct{})}
			c, done := control{newPipe()}, make(chan error, 1)
			go func() { done <- p.sections[0].associate(l, c, "") }()
			began := time.Now()
			host.listener.in <- byName("one")
			host.listener.in <- byName("two")
			host.listener.in <- datagramTo(netip.AddrPortFrom(loopback, 80), "elsewhere")
			want := func(data string, after time.Duration) {
				t.Helper()
				if got := string(<-tunnel.listener.out); got != data || time.Since(began) != after {
					t.Fatalf("%q after %v, want %q after %v", got, time.Since(began), data, after)
				}
			}
			want("elsewhere", 0)
			resolved := 12 * time.Second
			if failures > 0 {
				time.Sleep(30 * time.Second) // the failure, and then some
				host.listener.in <- byName("one")
				host.listener.in <- byName("two")
				resolved += 30 * time.Second
			}
			want("one", resolved)
			want("two", resolved)
			host.listener.in <- byName("three")
			want("three", resolved)
			if tunnel.asked != failures+1 {
				t.Errorf("asked %d times", tunnel.asked)
			}
			host.listener.in <- []byte("\x00\x00\x00\x03\x05other\x00\x50data") // its look-up ends with the association
			synctest.Wait()
			c.Close()
			if err := <-done; err == nil {
				t.Error("no error when the connection breaks")
			}
		})
	}
}
