package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestTCPTunnels(t *testing.T) {
	target := echo(t)
	p := start(t, config(t, "[TCPClientTunnel]\nBindAddress=127.0.0.1:0\nTarget="+target+"\n[TCPServerTunnel]\nListenPort=1\nTarget="+target), &fake{local: true}, Host{})
	for i := range 2 {
		c := connectTo(t, "tcp", p.addr(i))
		pingPong(t, c, "hello")
		c.(*net.TCPConn).CloseWrite()
		expectEnd(t, c)
	}
	for i, s := range p.sections {
		for end := time.Now().Add(patience); s.open.Load() > 0 && time.Now().Before(end); runtime.Gosched() {
		}
		if s.total.Load() != 1 || s.toTarget.Load() != 5 || s.toClient.Load() != 5 || s.failed.Load() != 0 {
			t.Errorf("section %d: %d connections, %d and %d bytes, %d failed", i, s.total.Load(), s.toTarget.Load(), s.toClient.Load(), s.failed.Load())
		}
	}
}

// TestHalfClose has the client, and then the target, end its direction first; what comes the other way must arrive.
func TestHalfClose(t *testing.T) {
	const n = 1 << 20
	first := serve(t, func(c net.Conn) { // answers when the client has ended
		got, _ := io.Copy(io.Discard, c)
		fmt.Fprint(c, got)
	})
	counted := make(chan int64, 2)
	second := serve(t, func(c net.Conn) { // ends, and then counts
		fmt.Fprint(c, "over")
		c.(*net.TCPConn).CloseWrite()
		got, _ := io.Copy(io.Discard, c)
		counted <- got
	})
	for name, tunnel := range map[string]Network{"spliced": Host{}, "copied": &fake{dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := Host{}.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return struct{ tcp }{c.(*net.TCPConn)}, nil
	}}} {
		t.Run(name, func(t *testing.T) {
			p := start(t, config(t, "[TCPClientTunnel]\nBindAddress=127.0.0.1:0\nTarget="+first+"\n[TCPClientTunnel]\nBindAddress=127.0.0.1:0\nTarget="+second), tunnel, Host{})
			c := connectTo(t, "tcp", p.addr(0))
			send(t, c, make([]byte, n)...)
			c.(*net.TCPConn).CloseWrite()
			expect(t, c, fmt.Append(nil, n)...)
			expectEnd(t, c)
			c = connectTo(t, "tcp", p.addr(1))
			expect(t, c, []byte("over")...)
			expectEnd(t, c)
			send(t, c, make([]byte, n)...)
			c.Close()
			if got := <-counted; got != n {
				t.Errorf("the target got %d bytes after its own end, want %d", got, n)
			}
		})
	}
}

// A tcp is what a connection of a user-space stack can do.
type tcp interface {
	net.Conn
	CloseWrite() error
	SetLinger(int) error
}

func TestReset(t *testing.T) {
	gone := make(chan error, 1)
	target := serve(t, func(c net.Conn) {
		_, err := io.Copy(io.Discard, c)
		gone <- err
	})
	resets := serve(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, 1))
		c.(*net.TCPConn).SetLinger(0)
	})
	p := start(t, config(t, "[TCPClientTunnel]\nBindAddress=127.0.0.1:0\nTarget="+target+"\n[TCPClientTunnel]\nBindAddress=127.0.0.1:0\nTarget="+resets), Host{}, Host{})
	c := connectTo(t, "tcp", p.addr(0))
	send(t, c, 1)
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
	if err := <-gone; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the target of a client that was reset sees %v", err)
	}
	c = connectTo(t, "tcp", p.addr(1))
	send(t, c, 1)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client of a target that was reset sees %v", err)
	}
}

func TestTargetRefuses(t *testing.T) {
	// Nobody listens at port 1, and nobody is given it; the port of a listener that was closed may be another's by now.
	p := start(t, config(t, "[TCPClientTunnel]\nBindAddress=127.0.0.1:0\nTarget=127.0.0.1:1"), Host{}, Host{})
	c, err := net.Dial("tcp", p.addr(0))
	if errors.Is(err, syscall.ECONNRESET) {
		return // already
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Error("a client whose target refuses is served")
	}
}

// TestThousand holds 1,000 connections open at once, through three kinds of sections, and the next one is refused.
func TestThousand(t *testing.T) {
	target := echo(t)
	const each = 334
	p := start(t, config(t, fmt.Sprintf("[TCPClientTunnel]\nBindAddress=127.0.0.1:0\nTarget=%s\nMaxConnections=%d\n[Socks5]\nBindAddress=127.0.0.1:0\nMaxConnections=%[2]d\n[http]\nBindAddress=127.0.0.1:0\nMaxConnections=%[2]d\n", target, each)), Host{}, Host{})
	dst := netip.MustParseAddrPort(target)
	var wg sync.WaitGroup
	conns := make([]net.Conn, 3*each)
	for i := range conns {
		conns[i] = connectTo(t, "tcp", p.addr(i%3))
		wg.Go(func() {
			c := conns[i]
			switch i % 3 {
			case 1:
				socksConnect(t, c, dst)
			case 2:
				httpConnect(t, c, target)
			}
			if _, err := fmt.Fprintf(c, "hello from %4d", i); err != nil {
				t.Error(err)
			}
			b := make([]byte, 15)
			if _, err := io.ReadFull(c, b); err != nil || string(b) != fmt.Sprintf("hello from %4d", i) {
				t.Errorf("connection %d: %q, %v", i, b, err)
			}
		})
	}
	wg.Wait()
	for i, s := range p.sections {
		if s.open.Load() != each || s.refused.Load() != 0 {
			t.Fatalf("section %d has %d connections open, and refused %d", i, s.open.Load(), s.refused.Load())
		}
		c, err := net.Dial("tcp", p.addr(i))
		var b []byte
		if err == nil {
			c.SetDeadline(time.Now().Add(patience))
			b, err = io.ReadAll(c)
			c.Close()
		}
		switch want := []string{"", "\x05\xff", "HTTP/1.1 503 "}[i]; {
		case i == 0 && !errors.Is(err, syscall.ECONNRESET), i > 0 && err != nil, !strings.HasPrefix(string(b), want):
			t.Errorf("section %d says %q to the client that is too many, then %v", i, b, err)
		}
		if s.refused.Load() != 1 || s.total.Load() != each {
			t.Errorf("section %d refused %d of %d", i, s.refused.Load(), s.total.Load())
		}
	}
	for _, c := range conns {
		c.Close()
	}
	for i, s := range p.sections { // places become free again
		for end := time.Now().Add(patience); s.open.Load() > 0; runtime.Gosched() {
			if time.Now().After(end) {
				t.Fatalf("closed connections keep %d places of section %d", s.open.Load(), i)
			}
		}
	}
	c := connectTo(t, "tcp", p.addr(0))
	pingPong(t, c, "a place")
	c.Close()
}

func TestListenerInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	before := runtime.NumGoroutine()
	p := New(config(t, "[Socks5]\nBindAddress=127.0.0.1:0\n[http]\nBindAddress="+ln.Addr().String()), Host{}, Host{}, nil)
	err = p.Run(context.Background())
	want := fmt.Sprintf("proxy.conf:3:1: [http] can't listen on %q: ", ln.Addr())
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), "; choose another port, or end the program that uses it") {
		t.Errorf("got %v", err)
	}
	if _, err := p.sections[0].listener.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("another section is served though: %v", err)
	}
	settle(t, before)
	bad := config(t, "[http]\nBindAddress=127.0.0.1:0\nCertFile=/none\nKeyFile=/none")
	if err := Run(context.Background(), bad, Host{}, Host{}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a certificate that isn't there: %v", err)
	}
}

// TestCancel ends Run with connections in every state; start checks what is left.
func TestCancel(t *testing.T) {
	target := echo(t)
	hang := &fake{dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == "192.0.2.1:1" {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return Host{}.DialContext(ctx, network, address)
	}}
	p := start(t, config(t, "[Socks5]\nBindAddress=127.0.0.1:0\n[http]\nBindAddress=127.0.0.1:0\n[UDPClientTunnel]\nBindAddress=127.0.0.1:0\nTarget="+udpEcho(t)), hang, Host{})
	connectTo(t, "tcp", p.addr(0))                   // silent
	send(t, connectTo(t, "tcp", p.addr(0)), 5, 2)    // half a greeting
	send(t, connectTo(t, "tcp", p.addr(1)), "GE"[0]) // half a request
	c := connectTo(t, "tcp", p.addr(0))
	socksConnect(t, c, netip.MustParseAddrPort(target))
	pingPong(t, c, "x")
	c = connectTo(t, "tcp", p.addr(0)) // dialling
	send(t, c, 5, 1, 0)
	expect(t, c, 5, 0)
	send(t, c, 5, 1, 0, 1, 192, 0, 2, 1, 0, 1)
	newAssociation(t, p.addr(0))
	pingPong(t, connectTo(t, "udp", p.addr(2)), "x")
}

// failing is a listener whose Accept fails.
type failing struct {
	net.Listener
	errs chan error
}

func (f *failing) Accept() (net.Conn, error) {
	if err, ok := <-f.errs; ok {
		return nil, err
	}
	return f.Listener.Accept()
}

type failingNetwork struct {
	Host
	errs chan error
}

func (f *failingNetwork) Listen(network, address string) (net.Listener, error) {
	ln, err := f.Host.Listen(network, address)
	return &failing{ln, f.errs}, err
}

func TestAcceptFails(t *testing.T) {
	errs := make(chan error, 3)
	for range 3 {
		errs <- syscall.EMFILE
	}
	close(errs)
	p := start(t, config(t, "[TCPClientTunnel]\nBindAddress=127.0.0.1:0\nTarget="+echo(t)), Host{}, &failingNetwork{errs: errs})
	pingPong(t, connectTo(t, "tcp", p.addr(0)), "still there")

	errs = make(chan error, 1)
	errs <- net.ErrClosed // the tunnel is gone
	err := Run(context.Background(), config(t, "[Socks5]\nBindAddress=127.0.0.1:0"), Host{}, &failingNetwork{errs: errs}, nil)
	if !errors.Is(err, net.ErrClosed) || !strings.HasPrefix(err.Error(), "proxy.conf:1:1: [Socks5] can't accept connections: ") {
		t.Errorf("got %v", err)
	}
}

func TestSTDIO(t *testing.T) {
	target := serve(t, func(c net.Conn) {
		b, _ := io.ReadAll(c)
		c.Write(bytes.ToUpper(b))
	})
	var out bytes.Buffer
	cfg := config(t, "[STDIOTunnel]\nTarget="+target)
	cfg.Stdin, cfg.Stdout = strings.NewReader("hello"), &out
	if err := Run(context.Background(), cfg, Host{}, Host{}, nil); err != nil || out.String() != "HELLO" {
		t.Errorf("%q, %v", out.String(), err)
	}
	if err := Run(context.Background(), config(t, "[STDIOTunnel]\nTarget="+target), Host{}, Host{}, nil); err == nil || !strings.Contains(err.Error(), "no standard input") {
		t.Errorf("without standard input: %v", err)
	}
	cfg = config(t, "[STDIOTunnel]\nTarget=127.0.0.1:1") // where nobody listens
	cfg.Stdin, cfg.Stdout = strings.NewReader(""), &out
	if err := Run(context.Background(), cfg, Host{}, Host{}, nil); !errors.Is(err, syscall.ECONNREFUSED) || !strings.HasPrefix(err.Error(), `proxy.conf:1:1: [STDIOTunnel] Target "`) {
		t.Errorf("a target that refuses: %v", err)
	}
	// A reader that is closed when Run ends.
	silent := serve(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	cfg = config(t, "[STDIOTunnel]\nTarget="+silent)
	r, w := io.Pipe()
	defer w.Close()
	cfg.Stdin, cfg.Stdout = r, &out
	start(t, cfg, Host{}, Host{})
	w.Write([]byte("x")) // returns once it is read: the tunnel stands
}

// TestSTDIOUnread ends a proxy whose standard output nobody reads.
func TestSTDIOUnread(t *testing.T) {
	target := serve(t, func(c net.Conn) { c.Write([]byte("hello")); io.Copy(io.Discard, c) })
	cfg := config(t, "[STDIOTunnel]\nTarget="+target)
	in, w := io.Pipe()
	defer w.Close()
	r, out := io.Pipe()
	defer r.Close()
	cfg.Stdin, cfg.Stdout = in, out
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg, Host{}, Host{}, nil) }()
	r.Read(make([]byte, 1)) // the rest of it is being written
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(11 * time.Second):
		t.Error("it is still there")
	}
}

func TestHostDoesNotPing(t *testing.T) {
	if _, err := (Host{}).Ping(context.Background(), loopback); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}
