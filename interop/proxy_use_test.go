package interop

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	socks "golang.org/x/net/proxy"
)

// allSections has a section of each kind. The test replaces the targets of the server tunnels.
const allSections = `[Socks5]
BindAddress = HOST:1080
[Socks5]
BindAddress = HOST:1081
Username = user
Password = pass word
[http]
BindAddress = HOST:8080
[http]
BindAddress = HOST:8081
Username = user
Password = pass word
[TCPClientTunnel]
BindAddress = HOST:7
Target = echo.test:7
[UDPClientTunnel]
BindAddress = HOST:7
Target = echo.test:7
[TCPServerTunnel]
ListenPort = 1007
Target = TCP
[UDPServerTunnel]
ListenPort = 1007
Target = UDP
`

// hostEchoes starts echo servers on this host, as the targets of server tunnels.
func hostEchoes(t *testing.T) (tcp, udp string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	serveTCP(t, ln, err, echoTCP)
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	serveUDP(t, pc, err, echoUDP)
	return ln.Addr().String(), pc.LocalAddr().String()
}

// halfClose sends something, half closes, and then receives the answer of a target that waits for that.
func halfClose(c net.Conn, i int) error {
	c.SetDeadline(time.Now().Add(6 * waitLimit))
	sent := payload(i, 10+i%2000)
	if _, err := c.Write(sent); err != nil {
		return err
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	if err != nil || string(got) != string(sent)+" and the end" {
		return fmt.Errorf("connection %d: %d bytes after the end, %v", i, len(got), err)
	}
	return nil
}

// exchange sends datagrams of several sizes and receives them back. One that is lost, as UDP allows, is sent again.
func exchange(c net.Conn, sizes ...int) error {
	b := make([]byte, 64<<10)
	for i, n := range sizes {
		want := payload(i, n)
		if err := eventually(func() error {
			if _, err := c.Write(want); err != nil {
				return err
			}
			for {
				c.SetReadDeadline(time.Now().Add(time.Second))
				n, err := c.Read(b)
				if err != nil {
					return fmt.Errorf("a datagram of %d bytes: %w", len(want), err)
				}
				if bytes.Equal(b[:n], want) {
					return nil
				}
			}
		}); err != nil {
			return err
		}
	}
	return nil
}

// TestProxyPeers asks: does every kind of section work with either far peer, also with names that the tunnel's DNS resolves?
func TestProxyPeers(t *testing.T) {
	for _, far := range []program{theirs, ours} {
		t.Run("far peer "+string(far), func(t *testing.T) {
			t.Parallel()
			tcp, udp := hostEchoes(t)
			x := startProxy(t, far, strings.NewReplacer("TCP\n", tcp+"\n", "UDP\n", udp+"\n").Replace(allSections))
			want := func(what string, c net.Conn, err error, f func(net.Conn) error) {
				t.Helper()
				if err == nil {
					defer c.Close()
					err = f(c)
				}
				if err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
			bulk := func(c net.Conn) error { return errors.Join(roundTrip(c, 1, 100), roundTrip(c, 2, 3<<20)) }
			const named = farName + ":7"
			user := &socks.Auth{User: "user", Password: "pass word"}
			basic := "Proxy-Authorization: Basic dXNlcjpwYXNzIHdvcmQ=\r\n"
			d := new(net.Dialer)

			for _, to := range []string{inner(farEcho), named} {
				c, err := x.viaSOCKS(d, 1080, nil, to)
				want("SOCKS5 to "+to, c, err, bulk)
				c, err = x.viaSOCKS(d, 1081, user, to)
				want("SOCKS5 with a password to "+to, c, err, bulk)
				c, err = x.viaCONNECT(d, 8080, "", to)
				want("CONNECT to "+to, c, err, bulk)
				c, err = x.viaCONNECT(d, 8081, basic, to)
				want("CONNECT with a password to "+to, c, err, bulk)
			}
			half := func(c net.Conn) error { return halfClose(c, 5) }
			c, err := x.viaSOCKS(d, 1080, nil, inner(farEnd))
			want("SOCKS5, half closed", c, err, half)
			c, err = x.viaCONNECT(d, 8080, "", inner(farEnd))
			want("CONNECT, half closed", c, err, half)
			for _, bad := range []func() (net.Conn, error){
				func() (net.Conn, error) {
					return x.viaSOCKS(d, 1081, &socks.Auth{User: "user", Password: "password"}, inner(farEcho))
				},
				func() (net.Conn, error) { return x.viaSOCKS(d, 1081, nil, inner(farEcho)) },
				func() (net.Conn, error) { return x.viaSOCKS(d, 1080, nil, "nobody.test:7") },
				func() (net.Conn, error) { return x.viaSOCKS(d, 1080, nil, inner(1)) }, // refused there
				func() (net.Conn, error) { return x.viaCONNECT(d, 8081, "", inner(farEcho)) },
				func() (net.Conn, error) { return x.viaCONNECT(d, 8080, "", inner(1)) },
				func() (net.Conn, error) { return x.viaCONNECT(d, 8080, "", "nobody.test:7") },
			} {
				if c, err := bad(); err == nil {
					c.Close()
					t.Error("connected where it should be refused")
				}
			}

			c, err = net.Dial("tcp", x.at(7))
			want("a TCP client tunnel", c, err, bulk)
			datagrams := func(c net.Conn) error { return exchange(c, 100, 1, 0, 1392, 1393, 5000, 30000) }
			c, err = net.Dial("udp", x.at(7))
			want("a UDP client tunnel", c, err, datagrams)
			ctx, cancel := context.WithTimeout(t.Context(), 3*waitLimit)
			defer cancel()
			to := netip.AddrPortFrom(nearAddr, 1007)
			c, err = x.far.dial(ctx, "tcp", to)
			want("a TCP server tunnel", c, err, bulk)
			c, err = x.far.dial(ctx, "udp", to)
			want("a UDP server tunnel", c, err, datagrams)

			// Plain HTTP, by the standard library's client.
			for port, login := range map[int]*url.Userinfo{8080: nil, 8081: url.UserPassword("user", "pass word")} {
				tr := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", User: login, Host: x.at(port)})}
				client := &http.Client{Transport: tr, Timeout: 6 * waitLimit}
				for range 3 {
					body := strings.Repeat("body ", 40_000)
					resp, err := client.Post("http://"+farName+"/p?q=1", "text/plain", strings.NewReader(body))
					if err != nil {
						t.Errorf("HTTP by port %d: %v", port, err)
						break
					}
					got, err := io.ReadAll(resp.Body)
					resp.Body.Close()
					if want := fmt.Sprintf("POST http://%s/p?q=1 %d bytes <nil>\n%s", farName, len(body), body); string(got) != want || err != nil {
						t.Errorf("HTTP by port %d: %d bytes that begin with %.60q, %v", port, len(got), got, err)
					}
				}
				tr.CloseIdleConnections()
			}
		})
	}
}

// An association is the client's side of SOCKS5's UDP ASSOCIATE. RFC 1928 §7.
type association struct {
	control, udp net.Conn
}

// associate requests an association from the proxy.
func (x *proxied) associate(port int) (*association, error) {
	c, err := net.Dial("tcp", x.at(port))
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(6 * waitLimit))
	fail := func(err error) (*association, error) { c.Close(); return nil, err }
	if _, err := c.Write([]byte{5, 1, 0}); err != nil {
		return fail(err)
	}
	var b [2 + 10]byte
	if _, err := io.ReadFull(c, b[:2]); err != nil {
		return fail(err)
	}
	if _, err := c.Write([]byte{5, 3, 0, 1, 0, 0, 0, 0, 0, 0}); err != nil {
		return fail(err)
	}
	if _, err := io.ReadFull(c, b[2:]); err != nil {
		return fail(err)
	}
	if string(b[:6]) != "\x05\x00\x05\x00\x00\x01" {
		return fail(fmt.Errorf("UDP ASSOCIATE is answered by % x", b))
	}
	u, err := net.Dial("udp", netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[6:10])), binary.BigEndian.Uint16(b[10:])).String())
	if err != nil {
		return fail(err)
	}
	return &association{control: c, udp: u}, nil
}

func (a *association) close() {
	a.control.Close()
	a.udp.Close()
}

// header returns the header of a datagram to an address.
func header(host string, port uint16) []byte {
	h := []byte{0, 0, 0}
	if ip, err := netip.ParseAddr(host); err == nil {
		h = append(append(h, 1), ip.AsSlice()...)
	} else {
		h = append(append(h, 3, byte(len(host))), host...)
	}
	return binary.BigEndian.AppendUint16(h, port)
}

// ask sends a datagram until a right answer comes from the port that it was sent to.
func (a *association) ask(host string, port uint16, data []byte, right func([]byte) bool) error {
	b := make([]byte, 64<<10)
	from := header(farAddr.String(), port)
	return eventually(func() error {
		if _, err := a.udp.Write(append(header(host, port), data...)); err != nil {
			return err
		}
		for {
			a.udp.SetReadDeadline(time.Now().Add(time.Second))
			n, err := a.udp.Read(b)
			if err != nil {
				return fmt.Errorf("%d bytes to %s:%d: %w", len(data), host, port, err)
			}
			if answer, ok := bytes.CutPrefix(b[:n], from); ok && right(answer) {
				return nil
			}
		}
	})
}

// TestProxyDatagrams asks: do datagrams pass through UDP ASSOCIATE, DNS queries above all?
func TestProxyDatagrams(t *testing.T) {
	for _, far := range []program{theirs, ours} {
		t.Run("far peer "+string(far), func(t *testing.T) {
			t.Parallel()
			x := startProxy(t, far, "[Socks5]\nBindAddress = HOST:1080\n")
			err := each(50, 10, func(i int) error { // each with a socket of its own
				a, err := x.associate(1080)
				if err != nil {
					return err
				}
				defer a.close()
				for _, name := range []string{farName, "nobody.test"} {
					name := dnsmessage.MustNewName(name + ".")
					id := uint16(rand.Uint32())
					q := dnsmessage.Message{
						Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
						Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
					}
					packed, err := q.Pack()
					if err != nil {
						return err
					}
					if err := a.ask(farAddr.String(), farDNS, packed, func(b []byte) bool {
						var m dnsmessage.Message
						if m.Unpack(b) != nil || m.ID != id || !m.Response || len(m.Questions) != 1 || m.Questions[0].Name != name {
							return false
						}
						if name.String() != farName+"." {
							return m.RCode == dnsmessage.RCodeNameError && len(m.Answers) == 0
						}
						address, ok := m.Answers[0].Body.(*dnsmessage.AResource)
						return m.RCode == dnsmessage.RCodeSuccess && ok && address.A == farAddr.As4()
					}); err != nil {
						return fmt.Errorf("association %d: %w", i, err)
					}
				}
				for _, n := range []int{0, 1, 1300, 1393, 9000} { // an echo, by address and by name
					want := payload(i, n)
					host := []string{farAddr.String(), farName}[n%2]
					if err := a.ask(host, farEcho, want, func(b []byte) bool { return bytes.Equal(b, want) }); err != nil {
						return fmt.Errorf("association %d: %w", i, err)
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			x.wantMetric("proxy_connections", 0)
		})
	}
}

// TestProxyCurl asks: does curl work with the proxies, with all of its options for them?
func TestProxyCurl(t *testing.T) {
	t.Parallel()
	curl, err := exec.LookPath("curl")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	tcp, udp := hostEchoes(t)
	x := startProxy(t, theirs, strings.NewReplacer("TCP\n", tcp+"\n", "UDP\n", udp+"\n").Replace(allSections))
	const size = 300_000
	upload := filepath.Join(t.TempDir(), "upload")
	if err := os.WriteFile(upload, bytes.Repeat([]byte("0123456789"), size/10), 0o600); err != nil {
		t.Fatal(err)
	}
	name, address := "http://"+farName+"/x", "http://"+farAddr.String()+"/x"
	const user = "user:pass word"
	for _, c := range []struct {
		url  string
		args []string
		fail string // part of curl's error message; empty: it succeeds
	}{
		{address, []string{"--socks5", x.at(1080)}, ""},
		{name, []string{"--socks5-hostname", x.at(1080)}, ""},
		{address, []string{"--socks5", x.at(1081), "--proxy-user", user}, ""},
		{name, []string{"--socks5-hostname", x.at(1081), "--proxy-user", user}, ""},
		{name, []string{"--proxy", "socks5h://user:pass%20word@" + x.at(1081)}, ""},
		{name, []string{"--proxy", "http://" + x.at(8080)}, ""},
		{name, []string{"--proxy", "http://" + x.at(8081), "--proxy-user", user}, ""},
		{name, []string{"--proxy", "http://" + x.at(8081), "--proxy-user", user, "--proxy-anyauth"}, ""},
		{name, []string{"--proxy", "http://" + x.at(8080), "--proxytunnel"}, ""},
		{name, []string{"--proxy", "http://" + x.at(8081), "--proxytunnel", "--proxy-user", user}, ""},
		{name, []string{"--proxy", "http://" + x.at(8080), "--http1.0"}, ""},
		{name, []string{"--proxy", "http://" + x.at(8080), "-H", "Expect: 100-continue"}, ""},

		{address, []string{"--socks5", x.at(1081), "--proxy-user", "user:wrong"}, "User was rejected by the SOCKS5 server"},
		{name, []string{"--proxy", "http://" + x.at(8081)}, "407"},
		{name, []string{"--proxy", "http://" + x.at(8081), "--proxytunnel"}, "407"},
		{"http://nobody.test/", []string{"--proxy", "http://" + x.at(8080)}, "error: 502"},
		{"http://nobody.test/", []string{"--socks5-hostname", x.at(1080)}, "SOCKS5"},
	} {
		for _, up := range []bool{false, true} {
			args := append([]string{"-sS", "-f", "--noproxy", "", "--max-time", "60"}, c.args...)
			want := "GET " + c.url + " 0 bytes <nil>\n"
			if up {
				args = append(args, "--data-binary", "@"+upload)
				want = fmt.Sprintf("POST %s %d bytes <nil>\n%s", c.url, size, strings.Repeat("0123456789", size/10))
			}
			var stderr bytes.Buffer
			cmd := exec.Command(curl, append(args, c.url)...)
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if c.fail == "" && (err != nil || string(out) != want) {
				t.Errorf("curl %q: %v, %s, %d bytes that begin with %.80q", c.args, err, &stderr, len(out), out)
			}
			if c.fail != "" && (err == nil || !strings.Contains(stderr.String(), c.fail)) {
				t.Errorf("curl %q: %v, %q, want %q", c.args, err, &stderr, c.fail)
			}
		}
	}
	x.wantMetric("proxy_connections", 0)
}

// TestProxyLongLived asks: does a connection with few and small messages stay open as long as it should, and no longer? With
// THROUGHLINE_LONG=1 it goes on until after the tunnel has a new session.
func TestProxyLongLived(t *testing.T) {
	t.Parallel()
	const idle = 6 * time.Second // for a machine that is busy elsewhere
	x := startProxy(t, theirs, fmt.Sprintf("[Socks5]\nBindAddress = HOST:1080\nIdleTimeout = %v\n[http]\nBindAddress = HOST:8080\nIdleTimeout = %[1]v\n"+
		"[Socks5]\nBindAddress = HOST:1081\nIdleTimeout = off\n[Socks5]\nBindAddress = HOST:1082\n", idle))
	d := new(net.Dialer)
	open := func(c net.Conn, err error) net.Conn {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	busy := []net.Conn{ // those on which messages are sent
		open(x.viaSOCKS(d, 1080, nil, farName+":7")),
		open(x.viaCONNECT(d, 8080, "", farName+":7")),
	}
	quiet := []net.Conn{ // and those without an idle timeout
		open(x.viaSOCKS(d, 1081, nil, inner(farEcho))),
		open(x.viaSOCKS(d, 1082, nil, inner(farEcho))),
	}
	ends := []net.Conn{open(x.viaSOCKS(d, 1081, nil, inner(farEnd))), open(x.viaSOCKS(d, 1082, nil, inner(farEnd)))}

	handshake := x.metric("peer_last_handshake_timestamp_seconds")
	until := time.Now().Add(2 * idle)
	if os.Getenv(envLong) == "1" {
		until = time.Now().Add(130 * time.Second)
	}
	keys := 0
	for tick := time.NewTicker(idle / 4); time.Now().Before(until); keys++ { // as somebody types
		<-tick.C
		for _, c := range busy {
			if err := roundTrip(c, keys, 4+keys%60); err != nil {
				t.Fatalf("after %d messages: %v", keys, err)
			}
		}
	}
	silent := time.Now()
	if os.Getenv(envLong) == "1" && x.metric("peer_last_handshake_timestamp_seconds") == handshake {
		t.Error("the tunnel has no new session after 130 s")
	}
	for _, c := range quiet {
		if err := roundTrip(c, keys, 40); err != nil {
			t.Errorf("after a silence: %v", err)
		}
	}
	for i, c := range ends {
		if err := halfClose(c, i); err != nil {
			t.Errorf("after a silence: %v", err)
		}
	}
	for _, c := range busy { // now no messages are sent on these either
		c.SetDeadline(time.Now().Add(idle + waitLimit))
		n, err := c.Read(make([]byte, 1))
		if took := time.Since(silent); n != 0 || err != io.EOF && !errors.Is(err, syscall.ECONNRESET) || took < idle*9/10 {
			t.Errorf("%v after the last message: %d bytes, %v; it should have ended at %v", took, n, err, idle)
		}
	}
	for _, c := range quiet {
		if err := roundTrip(c, keys, 40); err != nil {
			t.Errorf("after the others' end: %v", err)
		}
	}
}
