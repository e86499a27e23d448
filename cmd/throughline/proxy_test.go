package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"throughline"
	"throughline/endpoint"
	"throughline/proxy/wireproxy"
	"throughline/udp"
)

// freePort returns a free port. It is below those that systems pick for port 0, so that it is still free when the test uses
// it.
func freePort(t *testing.T, network string) string {
	t.Helper()
	var err error
	for range 1000 {
		port := strconv.Itoa(15000 + rand.IntN(17000))
		var c io.Closer
		if network == "udp" {
			c, err = net.ListenPacket("udp", ":"+port)
		} else {
			c, err = net.Listen("tcp", "127.0.0.1:"+port)
		}
		if err == nil {
			c.Close()
			return port
		}
	}
	t.Fatal(err)
	return ""
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// tcpEcho returns the address of a server on the host that sends back what it receives.
func tcpEcho(t *testing.T) string {
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
				io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().String()
}

// dnsServer returns the address of a server on the host that answers questions about echo.test with addr.
func dnsServer(t *testing.T, addr netip.Addr) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			const head, name = 12, "\x04echo\x04test\x00"
			end := head + len(name) + 4
			if n < end || string(b[head:head+len(name)]) != name {
				continue
			}
			q := bytes.Clone(b[:end])
			q[2], q[3] = 0x81, 0x80
			clear(q[6:12]) // the question alone, without the EDNS record that may have followed
			if binary.BigEndian.Uint16(q[end-4:]) == 1 {
				q[7] = 1
				q = append(q, 0xc0, head, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4)
				q = append(q, addr.AsSlice()...)
			}
			pc.WriteTo(q, from)
		}
	})
	t.Cleanup(func() { pc.Close(); wg.Wait() })
	return pc.LocalAddr().String()
}

// A tunnel is the files of its two ends, and the addresses at which the client's sections listen.
type tunnel struct {
	server, client   string // files
	forward, socks   string // host:port
	serverKey        throughline.PrivateKey
	clientPublic     throughline.PublicKey
	serverPort, echo string
}

func newTunnel(t *testing.T, endpointHost string) *tunnel {
	t.Helper()
	u := &tunnel{serverKey: throughline.NewPrivateKey(), serverPort: freePort(t, "udp"), echo: tcpEcho(t)}
	clientKey := throughline.NewPrivateKey()
	u.clientPublic = clientKey.Public()
	u.forward, u.socks = "127.0.0.1:"+freePort(t, "tcp"), "127.0.0.1:"+freePort(t, "tcp")
	u.server = writeFile(t, "server.conf", fmt.Sprintf(`[Interface]
PrivateKey = %s
Address = 10.77.0.2/32
ListenPort = %s

[Peer]
PublicKey = %s
AllowedIPs = 10.77.0.1/32

[TCPServerTunnel]
ListenPort = 7
Target = %s

[UDPServerTunnel]
ListenPort = 53
Target = %s
`, u.serverKey.Base64(), u.serverPort, u.clientPublic, u.echo, dnsServer(t, netip.MustParseAddr("10.77.0.2"))))
	u.client = writeFile(t, "client.conf", fmt.Sprintf(`[Interface]
PrivateKey = %s
Address = 10.77.0.1/32
DNS = 10.77.0.2
CheckAlive = 10.77.0.2
CheckAliveInterval = 1

[Peer]
PublicKey = %s
Endpoint = %s:%s

[TCPClientTunnel]
BindAddress = %s
Target = 10.77.0.2:7

[Socks5]
BindAddress = %s
`, clientKey.Base64(), u.serverKey.Public(), endpointHost, u.serverPort, u.forward, u.socks))
	return u
}

// A listenerLog is a log that notices when the first listener is open.
type listenerLog struct {
	once sync.Once
	open chan struct{}
}

func (e *listenerLog) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("proxy: listening")) {
		e.once.Do(func() { close(e.open) })
	}
	return len(line), nil
}

// startProxy runs a file in this process until the test ends. It returns when its tunnel is up.
func startProxy(t *testing.T, path, health string, names endpoint.Resolver) {
	t.Helper()
	f, cfg, err := wireproxy.Load(path, os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	if err := complete(f); err != nil {
		t.Fatal(err)
	}
	heard := &listenerLog{open: make(chan struct{})}
	p := &proxyCall{file: f, cfg: cfg, health: health, names: names, log: slog.New(slog.NewTextHandler(heard, nil))}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", path, err)
		}
	})
	select {
	case <-heard.open:
	case err := <-done:
		done <- err
		t.FailNow()
	}
}

// dial connects to an address; if nothing listens there yet, it tries again.
func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.SetDeadline(time.Now().Add(patience))
			t.Cleanup(func() { c.Close() })
			return c
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func roundTrip(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("%q came back, %v; want %q", got, err, text)
	}
}

// socks connects through a SOCKS5 proxy to a name. RFC 1928 §3, §4.
func socks(t *testing.T, c net.Conn, name string, port uint16) {
	t.Helper()
	c.Write([]byte{5, 1, 0})
	r := bufio.NewReaderSize(c, 16)
	var b [10]byte
	if _, err := io.ReadFull(r, b[:2]); err != nil || b[1] != 0 {
		t.Fatalf("method % x, %v", b[:2], err)
	}
	c.Write(binary.BigEndian.AppendUint16(append([]byte{5, 1, 0, 3, byte(len(name))}, name...), port))
	if _, err := io.ReadFull(r, b[:10]); err != nil || b[1] != 0 {
		t.Fatalf("reply % x, %v", b[:10], err)
	}
}

// TestProxyThroughATunnel runs both ends in this process: a forwarded port, SOCKS5 with a name that only the tunnel's
// DNS server knows, the endpoint's name resolved by the host, and the health of it all.
func TestProxyThroughATunnel(t *testing.T) {
	u := newTunnel(t, "server.test")
	asked := new(atomic.Int64)
	names := endpoint.ResolverFunc(func(_ context.Context, name string) ([]netip.Addr, error) {
		if name != "server.test" || asked.Add(1) == 1 {
			return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	})
	startProxy(t, u.server, "", endpoint.System)
	health := "127.0.0.1:" + freePort(t, "tcp")
	startProxy(t, u.client, health, names)

	c := dial(t, u.forward) // the name doesn't resolve at first
	roundTrip(t, c, "through a forwarded port")
	c = dial(t, u.socks)
	socks(t, c, "echo.test", 7)
	roundTrip(t, c, "through SOCKS5, by a name")
	if asked.Load() != 2 {
		t.Errorf("the endpoint's name was asked for %d times", asked.Load())
	}

	dial(t, health)
	for end := time.Now().Add(patience); ; {
		resp := get(t, "http://"+health+"/metrics", 200)
		if strings.Contains(resp, `throughline_proxy_pong_timestamp_seconds{address="10.77.0.2"} 1`) || strings.Contains(resp, `"10.77.0.2"} 2`) {
			for _, want := range []string{"throughline_peers 1\n", "throughline_peer_received_bytes_total{public_key=\"" + u.serverKey.Public().String() + "\"} ", "throughline_proxy_connections_total{"} {
				if !strings.Contains(resp, want) {
					t.Errorf("no %q in\n%s", want, resp)
				}
			}
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no pong in\n%s", resp)
		}
	}
	for end := time.Now().Add(patience); ; { // on a busy machine a pong may be too old by now
		resp, err := http.Get("http://" + health + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.Contains(string(body), `"10.77.0.2":`) {
			t.Fatalf("readyz: %s, %v", body, err)
		}
		if resp.StatusCode == http.StatusOK {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("readyz: %s: %s", resp.Status, body)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestProxyProgram runs the client as a program: it carries stdin and stdout through the tunnel, and ends by a signal.
func TestProxyProgram(t *testing.T) {
	u := newTunnel(t, "127.0.0.1")
	startProxy(t, u.server, "", endpoint.System)
	text, err := os.ReadFile(u.client)
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(text), "[TCPClientTunnel]")
	conf := writeFile(t, "stdio.conf", head+"[STDIOTunnel]\nTarget = 10.77.0.2:7\n")

	var stderr bytes.Buffer
	cmd := program(t, "proxy", conf)
	cmd.Stdin, cmd.Stderr = strings.NewReader("standard input"), &stderr
	out, err := cmd.Output()
	if err != nil || string(out) != "standard input" || stderr.Len() != 0 {
		t.Errorf("%q and %q, %v", out, &stderr, err)
	}

	cmd = program(t, "proxy", u.client)
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	roundTrip(t, dial(t, u.forward), "to a program")
	cmd.Process.Signal(os.Interrupt)
	err = cmd.Wait()
	// So soon after the first program's handshake the peer refuses another, so pings may wait.
	said := slices.DeleteFunc(strings.SplitAfter(stderr.String(), "\n"), func(line string) bool {
		return line == "" || strings.Contains(line, "doesn't answer pings")
	})
	if err != nil || len(said) > 0 {
		t.Errorf("interrupted: %v, %q", err, said)
	}
}

// TestProxyOutlivesItsReader checks that the program goes on when nobody reads its output any more.
func TestProxyOutlivesItsReader(t *testing.T) {
	u := newTunnel(t, "127.0.0.1")
	startProxy(t, u.server, "", endpoint.System)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := program(t, "proxy", u.client)
	cmd.Env = append(cmd.Env, "LOG_LEVEL=verbose")
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	r.Close()
	roundTrip(t, dial(t, u.forward), "to a program that talks to nobody")
	cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil {
		t.Errorf("interrupted: %v", err)
	}
}

// program returns a command that runs the test's binary as the program. It ends with the test.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), "THROUGHLINE_BE_THE_PROGRAM=1", "LOG_LEVEL=", "GO_TEST_KEY="+throughline.NewPrivateKey().Base64())
	return cmd
}

// TestProxyChecksFiles checks what -n reports, and that the proxy reports the same without it.
func TestProxyChecksFiles(t *testing.T) {
	key, peer := throughline.NewPrivateKey(), throughline.NewPrivateKey()
	good := fmt.Sprintf("[Interface]\nPrivateKey = %s\nAddress = 10.0.0.2/32, fd00::2/128\n[Peer]\nPublicKey = %v\nAllowedIPs = 0.0.0.0/0\nEndpoint = vpn.example:51820\n", key.Base64(), peer.Public())
	for _, c := range []struct {
		name, text string
		want       []string // a piece of each line; none: the file is right
	}{
		{"good", good + "[Socks5]\nBindAddress = 127.0.0.1:1080\n", nil},
		{"a key from the environment", strings.Replace(good, key.Base64(), "$GO_TEST_KEY", 1) + "[Socks5]\nBindAddress = 127.0.0.1:1080\n", nil},
		{"empty", "", []string{"there is no [Interface]"}},
		{"much is missing", "[Interface]\nMTU = 1420\n", []string{":1:1: [Interface] has no PrivateKey", ":1:1: [Interface] has no Address", "there is no [Peer]"}},
		{"two mistakes", strings.Replace(good, "Address = 10.0.0.2/32", "Address = 10.0.0.300/32\nListenPort = x\nAddress = 10.0.0.2/32", 1), []string{":3:", ":4:"}},
		{"a small MTU", strings.Replace(good, "[Peer]", "MTU = 600\n[Peer]", 1), []string{"no tunnel can be made of [Interface]"}},
		{"mistakes everywhere", "[Interface]\nMTU = 1420\n[Socks5]\nBindAddres = 127.0.0.1:1080\n[http]\nBindAddress = 8080\n", []string{
			":4:14: BindAddres: there is no such key", ":3:1: [Socks5] has no BindAddress", ":6:15: BindAddress \"8080\": not host:port",
			":1:1: [Interface] has no PrivateKey", ":1:1: [Interface] has no Address", "there is no [Peer]"}},
		{"nothing to serve", good, []string{"there is nothing to serve"}},
		{"no certificate", good + "[http]\nBindAddress = 127.0.0.1:8080\nCertFile = /nowhere.pem\nKeyFile = /nowhere.pem\n", []string{":8:1: [http] CertFile and KeyFile: "}},
		{"a second peer without AllowedIPs", good + "[Peer]\nPublicKey = " + throughline.NewPrivateKey().Public().String() + "\n[Socks5]\nBindAddress = 127.0.0.1:1080\n", []string{":8:1: [Peer] has no AllowedIPs"}},
		{"an unknown section", good + "[Socks4]\nBindAddress = 127.0.0.1:1080\n", []string{"there is no section of this name"}},
	} {
		path := writeFile(t, "a.conf", c.text)
		for _, args := range [][]string{{"proxy", "-n", path}, {"proxy", path}} {
			if c.want == nil && len(args) == 2 {
				continue
			}
			cmd := program(t, args...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if c.want == nil {
				if err != nil || string(out) != path+": ok\n" || stderr.Len() != 0 {
					t.Errorf("%s: %v, %q, %q", c.name, err, out, &stderr)
				}
				continue
			}
			exit, ok := errors.AsType[*exec.ExitError](err)
			lines := strings.Split(strings.TrimSuffix(stderr.String(), "\n"), "\n")
			if !ok || exit.ExitCode() != 1 || len(out) != 0 || len(lines) != len(c.want) {
				t.Errorf("%s: %v, %q, %q", c.name, err, out, &stderr)
				continue
			}
			for i, want := range c.want {
				if !strings.HasPrefix(lines[i], "throughline: "+path) || !strings.Contains(lines[i], want) {
					t.Errorf("%s: line %d is %q, want %q", c.name, i+1, lines[i], want)
				}
			}
			if strings.Contains(stderr.String(), key.Base64()) {
				t.Errorf("%s: the private key is shown: %s", c.name, &stderr)
			}
		}
	}
}

func TestProxyWrongCalls(t *testing.T) {
	u := newTunnel(t, "127.0.0.1")
	for want, args := range map[string][]string{
		"no configuration file is named":    {"proxy"},
		"-nonsense":                         {"proxy", "--nonsense", "x"},
		"-n comes after the file":           {"proxy", u.client, "-n"},
		"2 configuration files":             {"proxy", u.client, u.client},
		"proxy: -i nowhere: ":               {"proxy", "-i", "nowhere", u.client},
		"proxy: -i 192.0.2.1:9080: listen ": {"proxy", "-i", "192.0.2.1:9080", u.client},
	} {
		var out bytes.Buffer
		err := run(args, &out)
		if err == nil || !strings.Contains(err.Error(), want) || out.Len() != 0 {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
	for _, ask := range []string{"--help", "help"} {
		var out bytes.Buffer
		if err := run([]string{"proxy", ask}, &out); err != nil || !strings.Contains(out.String(), "[Socks5]") {
			t.Errorf("%s: %v: %s", ask, err, &out)
		}
	}
}

// TestPortTaken checks that a proxy whose tunnel can't have its port fails and names the port.
func TestPortTaken(t *testing.T) {
	u := newTunnel(t, "127.0.0.1")
	c, err := (&udp.Host{}).Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	text, _ := os.ReadFile(u.server)
	path := writeFile(t, "taken.conf", strings.Replace(string(text), "ListenPort = "+u.serverPort, fmt.Sprintf("ListenPort = %d", c.Port()), 1))
	if err := run([]string{"proxy", path}, io.Discard); err == nil || !strings.Contains(err.Error(), fmt.Sprint(c.Port())) {
		t.Errorf("%v", err)
	}
}
