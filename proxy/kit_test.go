package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds what can only hang when something is wrong.
const patience = 20 * time.Second

// A fake is the host's network with some of it replaced.
type fake struct {
	Host
	names map[string][]netip.Addr
	dial  func(ctx context.Context, network, address string) (net.Conn, error)
	ping  func(netip.Addr) error
	local bool // listen at any port of the loopback, whatever is asked for
}

func (f *fake) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if f.dial != nil {
		return f.dial(ctx, network, address)
	}
	return f.Host.DialContext(ctx, network, address)
}

func (f *fake) Listen(network, address string) (net.Listener, error) {
	if f.local {
		address = "127.0.0.1:0"
	}
	return f.Host.Listen(network, address)
}

func (f *fake) ListenPacket(network, address string) (net.PacketConn, error) {
	if f.local {
		address = "127.0.0.1:0"
	}
	return f.Host.ListenPacket(network, address)
}

func (f *fake) LookupHost(_ context.Context, name string) ([]netip.Addr, error) {
	if a := f.names[name]; a != nil {
		return a, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (f *fake) Ping(_ context.Context, a netip.Addr) (time.Duration, error) {
	if f.ping == nil {
		return 0, errors.New("no pings here")
	}
	return time.Millisecond, f.ping(a)
}

var loopback = netip.MustParseAddr("127.0.0.1")

// config makes a configuration of a text in the form of wireproxy's files, which package wireproxy reads in earnest: it
// stands above this one, so that these tests can't use it.
func config(t testing.TB, text string) *Config {
	t.Helper()
	c := &Config{PreferIPv4: true}
	locally := true
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if name, ok := strings.CutPrefix(line, "["); ok {
			name = strings.TrimSuffix(name, "]")
			if name == "Interface" {
				continue
			}
			s := Section{Kind: -1, Name: name, At: fmt.Sprintf("proxy.conf:%d:1", i+1), ResolveLocally: locally, IdleTimeout: DefaultIdleTCP}
			for k := range Kind(len(kindNames)) {
				if strings.EqualFold(k.String(), name) {
					s.Kind = k
				}
			}
			if s.Kind.udp() {
				s.IdleTimeout = DefaultIdleUDP
			}
			c.Sections = append(c.Sections, s)
			continue
		}
		key, value, _ := strings.Cut(line, "=")
		var s *Section
		if len(c.Sections) > 0 {
			s = &c.Sections[len(c.Sections)-1]
		}
		n, nerr := strconv.Atoi(value)
		var err error
		switch key {
		case "DNS":
			locally = false
		case "CheckAlive":
			for a := range strings.SplitSeq(value, ",") {
				c.CheckAlive = append(c.CheckAlive, netip.MustParseAddr(a))
			}
		case "CheckAliveInterval":
			c.CheckAliveInterval, err = time.Duration(n)*time.Second, nerr
		case "BindAddress":
			s.BindAddress = value
		case "ListenPort":
			s.BindAddress = ":" + value
		case "Target":
			s.Target = value
		case "Username":
			s.Username = Secret(value)
		case "Password":
			s.Password = Secret(value)
		case "CertFile":
			s.CertFile = value
		case "KeyFile":
			s.KeyFile = value
		case "ResolveLocally":
			s.ResolveLocally, err = strconv.ParseBool(value)
		case "MaxConnections":
			s.MaxConnections, err = n, nerr
		case "IdleTimeout":
			switch {
			case value == "off":
				s.IdleTimeout = 0
			case nerr == nil:
				s.IdleTimeout = time.Duration(n) * time.Second
			default:
				s.IdleTimeout, err = time.ParseDuration(value)
			}
		default:
			t.Fatalf("line %d: there is no such key", i+1)
		}
		if err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
	}
	return c
}

// start runs a proxy until the test ends, and checks then that nothing is left of it.
func start(t testing.TB, cfg *Config, tunnel, host Network) *Proxy {
	t.Helper()
	before := runtime.NumGoroutine()
	p := New(cfg, tunnel, host, slog.New(slog.DiscardHandler))
	opened, done := make(chan struct{}), make(chan error, 1)
	p.opened = func() { close(opened) }
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Fatal("Run doesn't end")
		}
		for _, s := range p.sections {
			if n := s.open.Load(); n != 0 {
				t.Errorf("%s: %d connections are left", s.Name, n)
			}
			if n, m := s.places.Taken(), s.greeting.Load(); n != 0 || m != 0 {
				t.Errorf("%s: %d and %d clients are left that asked for nothing", s.Name, n, m)
			}
		}
		settle(t, before)
	})
	select {
	case <-opened:
	case err := <-done:
		done <- err
		t.Fatalf("Run: %v", err)
	}
	return p
}

// settle waits until there are no more goroutines than before. Those of the test may end a little later than Run.
func settle(t testing.TB, before int) {
	t.Helper()
	for end := time.Now().Add(patience); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			b := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, b[:runtime.Stack(b, true)])
		}
	}
}

func (p *Proxy) addr(i int) string {
	if s := p.sections[i]; s.listener != nil {
		return s.listener.Addr().String()
	}
	return p.sections[i].packets.LocalAddr().String()
}

// connectTo connects to a section, or to anything.
func connectTo(t testing.TB, network, address string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return c
}

// serve accepts connections until the test ends, and has each served by a goroutine that the test waits for.
func serve(t testing.TB, each func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				each(c)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().String()
}

// echo sends back what it gets, and the end too.
func echo(t testing.TB) string {
	return serve(t, func(c net.Conn) {
		io.Copy(c, c)
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c)
	})
}

// udpEcho sends back each datagram.
func udpEcho(t testing.TB) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 64<<10)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			pc.WriteTo(b[:n], from)
		}
	})
	t.Cleanup(func() { pc.Close(); wg.Wait() })
	return pc.LocalAddr().String()
}

func send(t testing.TB, c net.Conn, b ...byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

// expect reads exactly these bytes.
func expect(t testing.TB, c net.Conn, want ...byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got % x (%v), want % x", got[:n], err, want)
	}
}

// expectEnd reads the end of the connection.
func expectEnd(t testing.TB, c net.Conn) {
	t.Helper()
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Fatalf("got %q and %v, want the end", b, err)
	}
}

// pingPong has a message echoed.
func pingPong(t testing.TB, c net.Conn, msg string) {
	t.Helper()
	send(t, c, []byte(msg)...)
	expect(t, c, []byte(msg)...)
}

// A wire is one end of a connection in memory, whose directions end one by one.
type wire struct {
	net.Conn // what is read
	out      net.Conn
	to       string // the address that was dialled
}

func newWire() (a, b wire) {
	ar, bw := net.Pipe()
	br, aw := net.Pipe()
	return wire{Conn: ar, out: aw}, wire{Conn: br, out: bw}
}

func (w wire) Write(b []byte) (int, error) { return w.out.Write(b) }
func (w wire) CloseWrite() error           { return w.out.Close() }
func (w wire) Close() error                { return errors.Join(w.Conn.Close(), w.out.Close()) }
func (w wire) SetDeadline(t time.Time) error {
	return errors.Join(w.Conn.SetDeadline(t), w.out.SetDeadline(t))
}
func (w wire) SetWriteDeadline(t time.Time) error { return w.out.SetWriteDeadline(t) }

// An only is a listener with a single connection.
type only struct{ conn chan net.Conn }

func (o only) Accept() (net.Conn, error) {
	select {
	case c := <-o.conn:
		return c, nil
	default:
		return nil, net.ErrClosed
	}
}

func (o only) Close() error   { return nil }
func (o only) Addr() net.Addr { return &net.TCPAddr{} }

// serveOne has a section serve one client, in goroutines for which l waits.
func serveOne(s *section, l *live, c net.Conn) {
	o := only{make(chan net.Conn, 1)}
	o.conn <- c
	s.listener = o
	s.serve(l) // and fail, as there is no other connection
}
