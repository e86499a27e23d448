package proxy

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"throughline/proxy/internal/socks5"
)

// socksConnect has a SOCKS5 proxy connect to an address.
func socksConnect(t testing.TB, c net.Conn, to netip.AddrPort) {
	a := to.Addr().As4()
	c.Write([]byte{5, 1, 0})
	c.Write(binary.BigEndian.AppendUint16([]byte{5, 1, 0, 1, a[0], a[1], a[2], a[3]}, to.Port()))
	b := make([]byte, 2+10)
	if _, err := io.ReadFull(c, b); err != nil || b[1] != 0 || b[3] != 0 {
		t.Errorf("the proxy says % x, %v", b, err)
	}
}

// named is a request to connect to a name.
func named(name string, port uint16) []byte {
	return binary.BigEndian.AppendUint16(append([]byte{5, 1, 0, 3, byte(len(name))}, name...), port)
}

func TestSocksLogin(t *testing.T) {
	target := netip.MustParseAddrPort(echo(t))
	p := start(t, config(t, "[Socks5]\nBindAddress=127.0.0.1:0\nUsername=user\nPassword=secret"), Host{}, Host{})
	c := connectTo(t, "tcp", p.addr(0))
	send(t, c, 5, 2, 0, 2)
	expect(t, c, 5, 2)
	send(t, c, []byte("\x01\x04user\x06secret")...)
	expect(t, c, 1, 0)
	send(t, c, binary.BigEndian.AppendUint16([]byte{5, 1, 0, 1, 127, 0, 0, 1}, target.Port())...)
	expect(t, c, 5, 0, 0, 1, 127, 0, 0, 1)
	io.ReadFull(c, make([]byte, 2))
	pingPong(t, c, "hello")

	for _, bad := range []string{"\x01\x04user\x06Secret", "\x01\x04User\x06secret", "\x01\x00\x00", "\x01\x04user\x07secret!"} {
		c := connectTo(t, "tcp", p.addr(0))
		send(t, c, 5, 1, 2)
		expect(t, c, 5, 2)
		send(t, c, []byte(bad)...)
		expect(t, c, 1, 1)
		expectEnd(t, c)
	}
	c = connectTo(t, "tcp", p.addr(0)) // without a login
	send(t, c, 5, 1, 0)
	expect(t, c, 5, 0xff)
	expectEnd(t, c)
}

func TestSocksNames(t *testing.T) {
	target := netip.MustParseAddrPort(echo(t))
	tunnel := &fake{names: map[string][]netip.Addr{"in.example": {netip.MustParseAddr("::1"), loopback}}}
	host := &fake{names: map[string][]netip.Addr{"out.example": {loopback}}}
	p := start(t, config(t, "[Socks5]\nBindAddress=127.0.0.1:0\nResolveLocally=false\n[Socks5]\nBindAddress=127.0.0.1:0\nResolveLocally=true"), tunnel, host)
	for i, names := range [][2]string{{"in.example", "out.example"}, {"out.example", "in.example"}} {
		c := connectTo(t, "tcp", p.addr(i))
		send(t, c, 5, 1, 0)
		expect(t, c, 5, 0)
		send(t, c, named(names[0], target.Port())...)
		expect(t, c, 5, 0, 0, 1, 127, 0, 0, 1)
		io.ReadFull(c, make([]byte, 2))
		pingPong(t, c, "hello")
		c = connectTo(t, "tcp", p.addr(i))
		send(t, c, 5, 1, 0)
		expect(t, c, 5, 0)
		send(t, c, named(names[1], target.Port())...)
		expect(t, c, 5, 4, 0, 1, 0, 0, 0, 0, 0, 0)
		expectEnd(t, c)
	}
}

func TestSocksRefusals(t *testing.T) {
	results := make(chan error, 1)
	tunnel := &fake{dial: func(context.Context, string, string) (net.Conn, error) { return nil, <-results }}
	p := start(t, config(t, "[Socks5]\nBindAddress=127.0.0.1:0\nResolveLocally=true"), tunnel, Host{})
	failure := func(code byte) []byte { return []byte{5, code, 0, 1, 0, 0, 0, 0, 0, 0} }
	v4 := []byte{5, 1, 0, 1, 192, 0, 2, 1, 0, 80}
	for _, tt := range []struct {
		what    string
		err     error
		request []byte
		want    []byte
	}{
		{"refused", syscall.ECONNREFUSED, v4, failure(5)},
		{"refused, in words", &net.OpError{Op: "connect", Err: errText("connection was refused")}, v4, failure(5)},
		{"no route", syscall.EHOSTUNREACH, v4, failure(4)},
		{"no route, in words", errText("no route to host"), v4, failure(4)},
		{"no network", syscall.ENETUNREACH, v4, failure(3)},
		{"too late", context.DeadlineExceeded, v4, failure(6)},
		{"anything", errText("broken"), v4, failure(1)},
		{"BIND", nil, []byte{5, 2, 0, 1, 192, 0, 2, 1, 0, 80}, failure(7)},
		{"a type nobody knows", nil, []byte{5, 1, 0, 2, 1}, failure(8)},
		{"an empty name", nil, named("", 80), failure(4)},
		{"a name with an end of line", nil, named("a\r\nb", 80), failure(4)},
		{"not version 5", nil, []byte{4, 1, 0, 80, 1}, nil},
	} {
		if tt.err != nil {
			results <- tt.err
		}
		c := connectTo(t, "tcp", p.addr(0))
		send(t, c, 5, 1, 0)
		expect(t, c, 5, 0)
		send(t, c, tt.request...)
		b, err := io.ReadAll(c)
		if string(b) != string(tt.want) || err != nil {
			t.Errorf("%s: % x, %v; want % x", tt.what, b, err, tt.want)
		}
	}
	c := connectTo(t, "tcp", p.addr(0))
	send(t, c, []byte("GET / HTTP/1.1\r\n\r\n")...)
	expectEnd(t, c)
}

type errText string

func (e errText) Error() string { return string(e) }

// TestSocks4 holds that a client of SOCKS4 is told no, in its own protocol, and whatever it asks for.
func TestSocks4(t *testing.T) {
	p := start(t, config(t, "[Socks5]\nBindAddress=127.0.0.1:0\n[Socks5]\nBindAddress=127.0.0.1:0\nUsername=u\nPassword=p"), Host{}, Host{})
	for i, request := range []string{"\x04\x01\x00\x50\xc0\x00\x02\x01user\x00", "\x04\x01\x00\x50\x00\x00\x00\x01\x00a.example\x00", "\x04\x02\x00\x50\xc0\x00\x02\x01\x00"} {
		c := connectTo(t, "tcp", p.addr(i%2))
		send(t, c, []byte(request)...)
		expect(t, c, 0, 0x5b, 0, 0, 0, 0, 0, 0)
		expectEnd(t, c)
	}
}

// TestSlowHandshakes has clients send a byte a second, or nothing, for as long as they are let.
func TestSlowHandshakes(t *testing.T) {
	for name, tt := range map[string]struct{ section, text string }{
		"socks, silent":  {"[Socks5]\nUsername=u\n", ""},
		"socks, slow":    {"[Socks5]\nUsername=u\n", "\x05\xff" + strings.Repeat("\x02", 255)},
		"socks, login":   {"[Socks5]\nUsername=u\n", "\x05\x01\x02\x01\xff" + strings.Repeat("x", 255)},
		"socks, request": {"[Socks5]\n", "\x05\x01\x00\x05\x01\x00\x03\xff" + strings.Repeat("x", 255)},
		"http, silent":   {"[http]\n", ""},
		"http, slow":     {"[http]\n", "GET http://a/ HTTP/1.1\r\n" + strings.Repeat("x", 1000)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := New(config(t, tt.section+"BindAddress=127.0.0.1:0"), &fake{}, &fake{}, nil)
				l := &live{ctx: t.Context(), open: make(map[io.Closer]struct{})}
				client, server := net.Pipe()
				began := time.Now()
				serveOne(p.sections[0], l, server)
				go io.Copy(io.Discard, client)
				sent := 0
				for sent < len(tt.text) {
					time.Sleep(time.Second) // the bubble's time, not the wall's
					if _, err := client.Write([]byte(tt.text[sent : sent+1])); err != nil {
						break
					}
					sent++
				}
				l.wg.Wait()
				if took := time.Since(began); took < handshakeTimeout || took > handshakeTimeout+2*time.Second {
					t.Errorf("served for %v, %d bytes", took, sent)
				}
				client.Close()
			})
		})
	}
}

func TestReplyNeverPanics(t *testing.T) {
	for _, ap := range []netip.AddrPort{{}, netip.MustParseAddrPort("1.2.3.4:5"), netip.MustParseAddrPort("[::ffff:1.2.3.4]:5"), netip.MustParseAddrPort("[2001:db8::1]:5")} {
		b := socks5.AppendReply(nil, 0, ap)
		if n := len(b); n != 10 && n != 22 {
			t.Errorf("%v: % x", ap, b)
		}
	}
}
