package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// flood has clients at these addresses, 127.0.x.y, connect in turn, each say something, and wait: so many before it returns, and
// then 500 a second until the test ends, while those that are closed aren't missed.
func flood(t *testing.T, to, say string, first int, from ...netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var conns []net.Conn
	begun := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			if i == first {
				close(begun)
			}
			if i >= first {
				time.Sleep(2 * time.Millisecond)
			}
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from[i%len(from)].AsSlice()}}
			c, err := d.DialContext(ctx, "tcp", to)
			if err != nil {
				continue
			}
			io.WriteString(c, say)
			if conns = append(conns, c); len(conns) > 1500 {
				conns[0].Close()
				conns = conns[1:]
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		for _, c := range conns {
			c.Close()
		}
	})
	<-begun
}

// many are as many addresses as there may be places.
func many() (all []netip.Addr) {
	for i := range 1000 {
		all = append(all, netip.AddrFrom4([4]byte{127, 0, byte(1 + i/250), byte(1 + i%250)}))
	}
	return all
}

// TestStrangersDontShutOut has clients that never log in, or never ask for anything, come faster than they are closed: from one
// address, from a thousand, and from the honest client's own. It must be served within a second.
func TestStrangersDontShutOut(t *testing.T) {
	cert, key, pool := certificate(t)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hi") }))
	defer web.Close()
	target := netip.MustParseAddrPort(echo(t))
	socks := func(login bool) func(*testing.T, string) {
		return func(t *testing.T, to string) {
			c := connectTo(t, "tcp", to)
			c.SetDeadline(time.Now().Add(time.Second))
			if login {
				send(t, c, 5, 1, 2)
				expect(t, c, 5, 2)
				send(t, c, []byte("\x01\x01u\x01p")...)
				expect(t, c, 1, 0)
			} else {
				send(t, c, 5, 1, 0)
				expect(t, c, 5, 0)
			}
			send(t, c, binary.BigEndian.AppendUint16([]byte{5, 1, 0, 1, 127, 0, 0, 1}, target.Port())...)
			expect(t, c, 5, 0, 0, 1, 127, 0, 0, 1)
			io.ReadFull(c, make([]byte, 2))
			pingPong(t, c, "hello")
		}
	}
	get := func(scheme, login string) func(*testing.T, string) {
		return func(t *testing.T, to string) {
			proxy, err := url.Parse(scheme + "://" + login + to)
			if err != nil {
				t.Fatal(err)
			}
			tr := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}
			resp, err := (&http.Client{Transport: tr, Timeout: time.Second}).Get(web.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "hi" {
				t.Errorf("%q, %v", b, err)
			}
		}
	}
	const login = "Username=u\nPassword=p\n"
	tlsKeys := "CertFile=" + cert + "\nKeyFile=" + key + "\n"
	for name, tt := range map[string]struct {
		section, say string
		honest       func(*testing.T, string)
	}{
		"socks":             {"[Socks5]\n", "", socks(false)},
		"socks, half":       {"[Socks5]\n", "\x05\x01\x00\x05\x01", socks(false)},
		"socks, login":      {"[Socks5]\n" + login, "\x05\x01\x02\x01\x04us", socks(true)},
		"http":              {"[http]\n", "", get("http", "")},
		"http, half":        {"[http]\n", "GET http://x/ HT", get("http", "")},
		"http, login":       {"[http]\n" + login, "GET http://x/ HTTP/1.1\r\nX: y\r\n", get("http", "u:p@")},
		"http, wrong login": {"[http]\n" + login, "GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", get("http", "u:p@")},
		"tls":               {"[http]\n" + tlsKeys, "", get("https", "")},
		"tls, half, login":  {"[http]\n" + tlsKeys + login, "\x16\x03\x01\x02\x00\x01", get("https", "u:p@")},
	} {
		for from, addrs := range map[string][]netip.Addr{"one": {netip.MustParseAddr("127.0.0.66")}, "many": many(), "own": {loopback}} {
			t.Run(name+"/"+from, func(t *testing.T) {
				p := start(t, config(t, tt.section+"BindAddress=127.0.0.1:0\nMaxConnections=300"), Host{}, Host{})
				flood(t, p.addr(0), tt.say, 600, addrs...)
				var longest time.Duration
				for range 5 {
					began := time.Now()
					tt.honest(t, p.addr(0))
					longest = max(longest, time.Since(began))
				}
				s := p.sections[0]
				t.Logf("served in %v at most; %d gave way", longest, s.displaced.Load())
				if s.displaced.Load() == 0 {
					t.Error("those that gave way aren't counted")
				}
			})
		}
	}
}

// TestFullBehindHandshake has two clients begin where there is one place: the later to ask is told in its own protocol.
func TestFullBehindHandshake(t *testing.T) {
	target := echo(t)
	to := netip.MustParseAddrPort(target)
	cert, key, pool := certificate(t)
	p := start(t, config(t, "[Socks5]\nBindAddress=127.0.0.1:0\nMaxConnections=1\n[http]\nBindAddress=127.0.0.1:0\nMaxConnections=1\nCertFile="+cert+"\nKeyFile="+key), Host{}, Host{})
	a, b := connectTo(t, "tcp", p.addr(0)), connectTo(t, "tcp", p.addr(0))
	for _, c := range []net.Conn{a, b} {
		send(t, c, 5, 1, 0)
		expect(t, c, 5, 0)
	}
	request := binary.BigEndian.AppendUint16([]byte{5, 1, 0, 1, 127, 0, 0, 1}, to.Port())
	send(t, a, request...)
	expect(t, a, 5, 0, 0, 1, 127, 0, 0, 1)
	send(t, b, request...)
	expect(t, b, 5, 1, 0, 1, 0, 0, 0, 0, 0, 0)
	expectEnd(t, b)

	a = tls.Client(connectTo(t, "tcp", p.addr(1)), &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
	b = tls.Client(connectTo(t, "tcp", p.addr(1)), &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
	for _, c := range []net.Conn{a, b} {
		if err := c.(*tls.Conn).Handshake(); err != nil {
			t.Fatal(err)
		}
	}
	httpConnect(t, a, target)
	io.WriteString(b, "CONNECT "+target+" HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(b), nil)
	if err != nil || resp.StatusCode != 503 {
		t.Errorf("%v, %v", resp, err)
	}
	for i, s := range p.sections {
		if s.open.Load() != 1 || s.refused.Load() != 1 || s.total.Load() != 1 {
			t.Errorf("section %d: %d open, %d refused of %d", i, s.open.Load(), s.refused.Load(), s.total.Load())
		}
	}
}

// datagramFlood has sources at these addresses, each with a port of its own, send one datagram to a tunnel: so many before it
// returns, and then 500 a second until the test ends.
func datagramFlood(t *testing.T, to, say string, first int, from ...netip.Addr) {
	t.Helper()
	target, err := net.ResolveUDPAddr("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	var kept []*net.UDPConn // so that each has another port
	one := func(i int) {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: from[i%len(from)].AsSlice()})
		if err != nil {
			t.Error(err)
			return
		}
		c.WriteToUDP([]byte(say), target)
		if kept = append(kept, c); len(kept) > 500 {
			kept[0].Close()
			kept = kept[1:]
		}
	}
	for i := range first {
		one(i)
		if i%5 == 0 {
			time.Sleep(time.Millisecond) // 5,000 a second
		}
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := first; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
				one(i)
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
		for _, c := range kept {
			c.Close()
		}
	})
}

// askUDP has a message echoed within a second, and sends it again every 300 ms, as clients do: a flood fills the socket's buffer.
func askUDP(t *testing.T, c net.Conn, msg string) {
	t.Helper()
	var err error
	b := make([]byte, 100)
	for range 3 {
		send(t, c, []byte(msg)...)
		c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		for err = nil; err == nil; {
			var n int
			if n, err = c.Read(b); string(b[:n]) == msg {
				return
			}
		}
	}
	t.Fatalf("no answer within a second: %v", err)
}

// TestSpoofedDatagramsDontShutOut has datagrams come from ever new sources, to which the target says nothing, or from one that
// it answers: an honest client must be served within a second, and stay so while it isn't silent.
func TestSpoofedDatagramsDontShutOut(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 100); ; {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			if b[0] == 'h' {
				pc.WriteTo(b[:n], from)
			}
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	one := []netip.Addr{netip.MustParseAddr("127.0.0.66")}
	for name, tt := range map[string]struct {
		say  string
		from []netip.Addr
	}{"one": {"x", one}, "many": {"x", many()}, "own": {"x", []netip.Addr{loopback}}, "answered": {"h", one}} {
		t.Run(name, func(t *testing.T) {
			p := start(t, config(t, "[UDPClientTunnel]\nBindAddress=127.0.0.1:0\nMaxConnections=100\nIdleTimeout=off\nTarget="+pc.LocalAddr().String()), Host{}, Host{})
			old := connectTo(t, "udp", p.addr(0))
			pingPong(t, old, "hello")
			datagramFlood(t, p.addr(0), tt.say, 300, tt.from...)
			var longest time.Duration
			for i := range 10 {
				c := connectTo(t, "udp", p.addr(0))
				began := time.Now()
				askUDP(t, c, "hello")
				longest = max(longest, time.Since(began))
				askUDP(t, c, "hello again")
				askUDP(t, old, "hello, still")
				if i < 5 {
					time.Sleep(200 * time.Millisecond)
				}
			}
			s := p.sections[0]
			t.Logf("answered in %v at most; %d gave way", longest, s.displaced.Load())
			if n := s.open.Load(); n > 200 || s.displaced.Load()+s.refused.Load() == 0 {
				t.Errorf("%d sessions are open; %d gave way", n, s.displaced.Load())
			}
		})
	}
}

// TestUDPSessionsAreCheap holds what sources cost that are never answered: a socket, and no buffer.
func TestUDPSessionsAreCheap(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	p := start(t, config(t, "[UDPClientTunnel]\nBindAddress=127.0.0.1:0\nTarget="+silent.LocalAddr().String()), Host{}, Host{})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const n = 500
	for i := range n {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IP{127, 0, 3, byte(1 + i%200)}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		to, _ := net.ResolveUDPAddr("udp", p.addr(0))
		c.WriteToUDP([]byte("x"), to)
		silent.ReadFrom(make([]byte, 1))
	}
	if open := p.sections[0].open.Load(); open != n {
		t.Fatalf("%d sessions", open)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (int64(after.HeapAlloc+after.StackInuse) - int64(before.HeapAlloc+before.StackInuse)) / n
	t.Logf("%d bytes for each", each)
	if each > 16<<10 {
		t.Errorf("a session that was never answered holds %d bytes", each)
	}
}

// TestLogPace holds that what strangers cause fills no log: a line of each kind in ten seconds.
func TestLogPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text strings.Builder
		p := New(config(t, "[Socks5]\nBindAddress=127.0.0.1:1\nMaxConnections=1"), &fake{}, &fake{}, slog.New(slog.NewTextHandler(&text, nil)))
		s := p.sections[0]
		l := &live{ctx: t.Context(), open: make(map[io.Closer]struct{})}
		health := p.Health(func(io.Writer) error { return io.ErrUnexpectedEOF })
		for range 2 {
			for range 2 * maxHandshakes {
				_, c := net.Pipe()
				s.admit(l, c) // those behind the first 512 have others give way, and the last are refused, as none of these ends
			}
			for range 100 {
				s.full()
				health.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil))
				s.listener = &failing{errs: make(chan error, 1), Listener: only{make(chan net.Conn, 1)}}
				f := s.listener.(*failing)
				f.errs <- io.ErrUnexpectedEOF
				close(f.errs)
				s.next(l) // fails once, and then for good
			}
			time.Sleep(10 * time.Second)
		}
		lines := strings.Split(strings.TrimSpace(text.String()), "\n")
		count := map[string]int{}
		for _, line := range lines {
			_, msg, _ := strings.Cut(line, " msg=")
			count[msg[:min(len(msg), 40)]]++
		}
		if len(count) != 4 {
			t.Errorf("%d kinds of lines, want 4: %v", len(count), count)
		}
		for msg, n := range count {
			if n > 3 {
				t.Errorf("%d lines %s", n, msg)
			}
		}
	})
}
