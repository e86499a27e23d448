package interop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	socks "golang.org/x/net/proxy"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	theirnet "golang.zx2c4.com/wireguard/tun/netstack"

	"throughline"
	"throughline/netstack"
)

// The inner addresses of a proxy and its far peer.
var (
	nearAddr = netip.MustParseAddr("10.8.0.1")
	farAddr  = netip.MustParseAddr("10.8.0.2")
)

// What the far peer serves.
const (
	farEcho = 7  // TCP and UDP
	farEnd  = 9  // TCP: answers at the end of what it receives
	farOnce = 13 // TCP: sends 100 bytes back, and closes
	farDNS  = 53 // UDP: resolves only farName
	farHTTP = 80 // describes the request

	farName = "echo.test"
)

// A far is the far peer, at the other end of a proxy's tunnel: a user-space stack in this process.
type far struct {
	public  string
	port    uint16
	addPeer func(public string) // makes the proxy a peer
	listen  func(port uint16) (net.Listener, error)
	packet  func(port uint16) (net.PacketConn, error)
	dial    func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error)
}

// newFar makes a far peer of one of the implementations.
func newFar(t *testing.T, p program) *far {
	t.Helper()
	fail := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	private, public := newKey()
	f := &far{public: public}
	if p == ours {
		s, err := netstack.New(netstack.Options{Addresses: []netip.Addr{farAddr}})
		fail(err)
		dev, err := throughline.New(throughline.Options{TUN: s})
		fail(err)
		t.Cleanup(func() { dev.Close() })
		key, err := throughline.ParsePrivateKey(private)
		fail(err)
		fail(dev.Configure(throughline.Config{PrivateKey: &key}))
		fail(dev.Up())
		f.port = dev.Status().ListenPort
		f.addPeer = func(public string) {
			key, err := throughline.ParsePublicKey(public)
			fail(err)
			fail(dev.Configure(throughline.Config{Peers: []throughline.PeerConfig{{
				PublicKey: key, AllowedIPs: []netip.Prefix{netip.PrefixFrom(nearAddr, 32)},
			}}}))
		}
		f.listen = func(port uint16) (net.Listener, error) { return s.Listen("tcp", fmt.Sprintf(":%d", port)) }
		f.packet = func(port uint16) (net.PacketConn, error) { return s.ListenPacket("udp", fmt.Sprintf(":%d", port)) }
		f.dial = func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
			return s.DialContext(ctx, network, to.String())
		}
		return f
	}
	tun, s, err := theirnet.CreateNetTUN([]netip.Addr{farAddr}, nil, 1420)
	fail(err)
	dev := device.NewDevice(tun, conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
	t.Cleanup(dev.Close)
	fail(dev.IpcSet("private_key=" + hexKey(private) + "\nlisten_port=0\n"))
	fail(dev.Up())
	state, err := dev.IpcGet()
	fail(err)
	for line := range strings.Lines(state) {
		fmt.Sscanf(line, "listen_port=%d", &f.port)
	}
	f.addPeer = func(public string) {
		fail(dev.IpcSet(fmt.Sprintf("public_key=%s\nallowed_ip=%v/32\n", hexKey(public), nearAddr)))
	}
	f.listen = func(port uint16) (net.Listener, error) {
		return s.ListenTCPAddrPort(netip.AddrPortFrom(farAddr, port))
	}
	f.packet = func(port uint16) (net.PacketConn, error) {
		return s.ListenUDPAddrPort(netip.AddrPortFrom(farAddr, port))
	}
	f.dial = func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
		return s.DialContext(ctx, network, to.String())
	}
	return f
}

// serveTCP serves each connection to a listener with a goroutine, until the test ends.
func serveTCP(t *testing.T, ln net.Listener, err error, each func(net.Conn)) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				each(c)
			}()
		}
	}()
}

// serveUDP answers each datagram until the test ends. For a nil answer it sends none.
func serveUDP(t *testing.T, pc net.PacketConn, err error, answer func([]byte) []byte) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			if a := answer(b[:n]); a != nil {
				pc.WriteTo(a, from)
			}
		}
	}()
}

// echoTCP sends back what it receives, and then closes. It uses little memory for each connection.
func echoTCP(c net.Conn) {
	b := make([]byte, 4<<10)
	for {
		n, err := c.Read(b)
		if n > 0 {
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// answerAfterEOF receives until the other side half closes, and then sends all of it back.
func answerAfterEOF(c net.Conn) {
	b, err := io.ReadAll(c)
	if err == nil {
		c.Write(append(b, " and the end"...))
	}
}

// answerOnce sends back what it receives first, and closes.
func answerOnce(c net.Conn) {
	b := make([]byte, 100)
	if _, err := io.ReadFull(c, b); err == nil {
		c.Write(b)
	}
}

func echoUDP(b []byte) []byte { return b }

// answerDNS answers a query. Only farName exists.
func answerDNS(q []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(q) != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	question := m.Questions[0]
	if question.Name.String() != farName+"." {
		m.RCode = dnsmessage.RCodeNameError
	} else if question.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: 60},
			Body:   &dnsmessage.AResource{A: farAddr.As4()},
		}}
	}
	a, err := m.Pack()
	if err != nil {
		return nil
	}
	return a
}

// describe answers a request with a description of it.
func describe(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s http://%s%s %d bytes %v\n%s", r.Method, r.Host, r.URL, len(body), err, body)
}

// serve makes the far peer serve everything on its ports.
func (f *far) serve(t *testing.T) {
	t.Helper()
	ln, err := f.listen(farEcho)
	serveTCP(t, ln, err, echoTCP)
	ln, err = f.listen(farEnd)
	serveTCP(t, ln, err, answerAfterEOF)
	ln, err = f.listen(farOnce)
	serveTCP(t, ln, err, answerOnce)
	pc, err := f.packet(farEcho)
	serveUDP(t, pc, err, echoUDP)
	pc, err = f.packet(farDNS)
	serveUDP(t, pc, err, answerDNS)
	ln, err = f.listen(farHTTP)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(describe)}
	t.Cleanup(func() { server.Close() })
	go server.Serve(ln)
}

// A proxied is a running "throughline proxy" and the far peer of its tunnel.
type proxied struct {
	t      *testing.T
	far    *far
	host   string // a loopback address that only it uses, so that its ports are free
	daemon *daemon
	ended  bool
}

var proxies atomic.Int32

// proxyPath returns the path of the proxy's program, which is always ours. These tests need no namespaces; without them the
// program is built here.
func proxyPath(t *testing.T) string {
	t.Helper()
	if os.Getenv(envStandIn) == "1" {
		t.Skip("wireguard-go has no proxy")
	}
	if os.Getenv(envInside) != "" {
		return ours.path()
	}
	path := filepath.Join(t.TempDir(), "throughline")
	args := []string{"build", "-o", path}
	if isRaceBuild() {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/throughline")...)
	cmd.Dir = ".."
	run(t, cmd)
	return path
}

// startProxy starts a far peer that serves, and a proxy with the sections, in which HOST stands for its address. It returns
// when all sections listen.
func startProxy(t *testing.T, p program, sections string) *proxied {
	t.Helper()
	program := proxyPath(t)
	n := proxies.Add(1)
	x := &proxied{t: t, far: newFar(t, p), host: fmt.Sprintf("127.8.%d.%d", n/250, 1+n%250)}
	x.far.serve(t)
	private, public := newKey()
	x.far.addPeer(public)
	text := fmt.Sprintf("[Interface]\nPrivateKey = %s\nAddress = %v/32\nDNS = %v\n\n"+
		"[Peer]\nPublicKey = %s\nAllowedIPs = 0.0.0.0/0\nEndpoint = 127.0.0.1:%d\nPersistentKeepalive = 25\n\n%s",
		private, nearAddr, farAddr, x.far.public, x.far.port, strings.ReplaceAll(sections, "HOST", x.host))
	file := filepath.Join(t.TempDir(), "proxy.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := launch(exec.Command(program, "proxy", "-i", x.at(9090), file), "LOG_LEVEL=verbose")
	if err != nil {
		t.Fatal(err)
	}
	x.daemon = d
	t.Cleanup(x.end)
	if err := eventually(func() error {
		select {
		case <-d.done:
			t.Fatalf("the proxy ended: %v\n%s", d.cmd.ProcessState, d.log())
		default:
		}
		if got, want := strings.Count(d.log(), "proxy: listening"), strings.Count(sections, "\n[")+1; got != want {
			return fmt.Errorf("%d of %d sections listen", got, want)
		}
		return nil
	}); err != nil {
		t.Fatalf("%v\n%s", err, d.log())
	}
	return x
}

// end ends the proxy as an operator would, and checks that it ends cleanly.
func (x *proxied) end() {
	if x.ended {
		return
	}
	x.ended = true
	err := errors.Join(x.daemon.terminate(os.Interrupt), x.daemon.checkLog())
	if err != nil {
		x.t.Errorf("the proxy did not end cleanly: %v", err)
	}
	if x.t.Failed() {
		log := x.daemon.log()
		x.t.Logf("the proxy logged:\n%s", log[max(0, len(log)-8<<10):])
	}
}

// at returns an address of the proxy.
func (x *proxied) at(port int) string { return net.JoinHostPort(x.host, strconv.Itoa(port)) }

// inner returns an address of the far peer.
func inner(port uint16) string { return netip.AddrPortFrom(farAddr, port).String() }

// metric returns the sum of a metric of the proxy over its sections.
func (x *proxied) metric(name string) (sum float64) {
	x.t.Helper()
	resp, err := http.Get("http://" + x.at(9090) + "/metrics")
	if err != nil {
		x.t.Fatal(err)
	}
	defer resp.Body.Close()
	found := false
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		full, value, _ := strings.Cut(lines.Text(), " ")
		if base, _, _ := strings.Cut(full, "{"); base == "throughline_"+name {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				x.t.Fatal(err)
			}
			sum, found = sum+v, true
		}
	}
	if !found {
		x.t.Fatalf("there is no metric %s", name)
	}
	return sum
}

// wantMetric waits until a metric has a value.
func (x *proxied) wantMetric(name string, want float64) {
	x.t.Helper()
	if err := within(6*waitLimit, func() error {
		if got := x.metric(name); got != want {
			return fmt.Errorf("%s is %v, want %v", name, got, want)
		}
		return nil
	}); err != nil {
		x.t.Error(err)
	}
}

// memory returns a figure of the proxy's /proc/PID/status, in MiB.
func (x *proxied) memory(line string) float64 {
	x.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", x.daemon.cmd.Process.Pid))
	if err != nil {
		x.t.Fatal(err)
	}
	for l := range strings.Lines(string(text)) {
		var kib float64
		if n, _ := fmt.Sscanf(l, line+": %f kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	x.t.Fatalf("no %s in\n%s", line, text)
	return 0
}

// cpu returns how much processor time the proxy has used, in seconds.
func (x *proxied) cpu() float64 {
	x.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", x.daemon.cmd.Process.Pid))
	if err != nil {
		x.t.Fatal(err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')'):]))
	user, err1 := strconv.Atoi(fields[12])
	system, err2 := strconv.Atoi(fields[13])
	if err := errors.Join(err1, err2); err != nil {
		x.t.Fatal(err)
	}
	return float64(user+system) / 100 // USER_HZ
}

// descriptors returns how many descriptors the proxy has open.
func (x *proxied) descriptors() int {
	x.t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", x.daemon.cmd.Process.Pid))
	if err != nil {
		x.t.Fatal(err)
	}
	return len(fds)
}

// goroutines ends the proxy by SIGQUIT, at which it prints its goroutines, and returns their stacks.
func (x *proxied) goroutines() []string {
	x.t.Helper()
	x.ended = true
	x.daemon.cmd.Process.Signal(unix.SIGQUIT)
	select {
	case <-x.daemon.done:
	case <-time.After(waitLimit):
		x.daemon.kill()
		x.t.Fatal("the proxy doesn't end by SIGQUIT")
	}
	_, dump, _ := strings.Cut(x.daemon.log(), "SIGQUIT: quit")
	var all []string
	for g := range strings.SplitSeq(dump, "\n\n") {
		if strings.HasPrefix(strings.TrimSpace(g), "goroutine ") {
			all = append(all, g)
		}
	}
	return all
}

// viaSOCKS connects through the proxy by SOCKS5. The client is golang.org/x/net's.
func (x *proxied) viaSOCKS(d *net.Dialer, port int, auth *socks.Auth, to string) (net.Conn, error) {
	s, err := socks.SOCKS5("tcp", x.at(port), auth, d)
	if err != nil {
		return nil, err
	}
	return s.Dial("tcp", to)
}

// viaCONNECT connects through the proxy by HTTP.
func (x *proxied) viaCONNECT(d *net.Dialer, port int, header, to string) (net.Conn, error) {
	c, err := d.Dial("tcp", x.at(port))
	if err != nil {
		return nil, err
	}
	const want = "HTTP/1.1 200 Connection established\r\n\r\n"
	got := make([]byte, len(want))
	c.SetDeadline(time.Now().Add(6 * waitLimit))
	if _, err = fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n%s\r\n", to, header); err == nil {
		_, err = io.ReadFull(c, got)
	}
	if err == nil && string(got) != want {
		err = fmt.Errorf("CONNECT %s is answered by %q", to, got)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	c.SetDeadline(time.Time{})
	return c, nil
}

// payload returns n bytes that differ for each i if there are at least four.
func payload(i, n int) []byte {
	b := make([]byte, max(n, 4))
	binary.BigEndian.PutUint32(b, uint32(i))
	for j := 4; j < n; j++ {
		b[j] = byte(i*31 + j*7 + j>>8)
	}
	return b[:n]
}

// ahead is how many bytes are sent before they must come back. It is less than the far stack's window: gVisor's receiver
// ignores acknowledgements while less than one unit of its scaled window is left (RFC 9293 §3.10.7.4 says that they must be
// processed), so that an echo whose buffers are full in both directions can stall.
const ahead = 256 << 10

// roundTrip sends n bytes and receives them back.
func roundTrip(c net.Conn, i, n int) error {
	c.SetDeadline(time.Now().Add(6 * waitLimit))
	defer c.SetDeadline(time.Time{})
	got := make([]byte, min(n, ahead))
	for sent := 0; sent < n; sent += ahead {
		want := payload(i+sent, min(n-sent, ahead))
		if _, err := c.Write(want); err != nil {
			return fmt.Errorf("connection %d: after %d bytes: %w", i, sent, err)
		}
		if m, err := io.ReadFull(c, got[:len(want)]); err != nil {
			return fmt.Errorf("connection %d: %d of %d bytes came back: %w", i, sent+m, n, err)
		}
		if !bytes.Equal(got[:len(want)], want) {
			return fmt.Errorf("connection %d: other bytes came back", i)
		}
	}
	return nil
}

// each calls f with the numbers below n, atOnce at the same time, and returns the first few of the errors.
func each(n, atOnce int, f func(i int) error) error {
	var (
		next atomic.Int64
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
		more int
	)
	for range atOnce {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f(i); err != nil {
					mu.Lock()
					if errs = append(errs, err); len(errs) > 5 {
						errs, more = errs[:5], more+1
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if more > 0 {
		errs = append(errs, fmt.Errorf("and %d more", more))
	}
	return errors.Join(errs...)
}

// needDescriptors raises the limit of this process, and of those it starts, to n.
func needDescriptors(t *testing.T, n uint64) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if old.Cur >= n {
		return
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: max(n, old.Max)}); err != nil {
		if os.Getenv("CI") == "true" && os.Geteuid() == 0 {
			t.Fatalf("can't open %d files, at most %d: %v", n, old.Max, err)
		}
		t.Skipf("can't open %d files, at most %d: %v", n, old.Max, err)
	}
}
