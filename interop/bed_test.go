// Package interop tests Throughline against wireguard-go and against itself, as an operator would: the daemons are
// programs in network namespaces, set up with wg(8) and ip(8), and loaded with ping(8) and iperf3(1).
package interop

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A bed is a test bed: two network namespaces with a daemon in each, and a cable (a veth pair) between them.
//
//	namespace a                               namespace b
//	┌─────────────────────────────┐           ┌─────────────────────────────┐
//	│ tunnel  10.7.0.1  fd07::1   │           │ tunnel  10.7.0.2  fd07::2   │
//	│    │                        │           │                        │    │
//	│ daemon  port 51820          │           │ daemon  port 51820     │    │
//	│    │                        │           │                        │    │
//	│ cable   192.168.77.1 fd77::1├───────────┤ cable   192.168.77.2 fd77::2│
//	└─────────────────────────────┘           └─────────────────────────────┘
type bed struct {
	plan
	t    *testing.T
	a, b *side
}

// A plan says how to make a bed. Zero values stand for our program, IPv4 outside, no preshared key and an MTU of 1420.
type plan struct {
	a, b  program
	outer family // of the endpoints
	psk   bool   // with a preshared key
	mtu   int
}

// A family is an address family, IPv4 or IPv6.
type family int

const (
	ipv4 family = iota
	ipv6
)

func (f family) String() string { return [...]string{"ipv4", "ipv6"}[f] }

// A side is one end of a bed.
type side struct {
	t       *testing.T
	program program
	dir     string    // for its key files
	ns      string    // the network namespace
	cable   string    // the outer interface
	tunnel  string    // the inner one
	outer   [2]string // the cable's addresses, by family
	inner   [2]string // the tunnel's
	private string    // the keypair, in base64
	public  string
	shared  string // the preshared key, or empty
	mtu     int

	daemon *daemon // the one that was started last
}

const (
	port      = 51820
	waitLimit = 10 * time.Second // bounds waits that take milliseconds on an idle machine
)

var beds atomic.Int32

// newBed makes the namespaces and the cable, and starts the daemons. The interfaces are up and have addresses, but no key and
// no peers.
func newBed(t *testing.T, p plan) *bed {
	t.Helper()
	needNamespaces(t)
	if p.a == "" {
		p.a = ours
	}
	if p.b == "" {
		p.b = ours
	}
	if p.mtu == 0 {
		p.mtu = 1420
	}
	b := &bed{plan: p, t: t}
	n := beds.Add(1)
	psk := ""
	if p.psk {
		psk = newPSK()
	}
	newSide := func(name string, host int, prog program) *side {
		s := &side{
			t: t, program: prog, dir: t.TempDir(), mtu: p.mtu, shared: psk,
			ns:     fmt.Sprintf("tl-%d-%d%s", os.Getpid(), n, name),
			cable:  "cable",
			tunnel: fmt.Sprintf("tl%d%s", n, name),
			outer:  [2]string{fmt.Sprintf("192.168.77.%d", host), fmt.Sprintf("fd77::%d", host)},
			inner:  [2]string{fmt.Sprintf("10.7.0.%d", host), fmt.Sprintf("fd07::%d", host)},
		}
		s.private, s.public = newKey()
		must(t, "ip", "netns", "add", s.ns)
		t.Cleanup(func() { exec.Command("ip", "netns", "del", s.ns).Run() })
		s.ip("link set lo up")
		return s
	}
	b.a = newSide("a", 1, p.a)
	b.b = newSide("b", 2, p.b)
	b.addCable("cable", 1500)
	for _, s := range []*side{b.a, b.b} {
		s.ip(
			"addr add %s/24 dev cable", s.outer[ipv4],
			"addr add %s/64 dev cable nodad", s.outer[ipv6],
		)
		s.start()
		s.bringUp()
	}
	t.Cleanup(func() {
		b.a.end()
		b.b.end()
	})
	return b
}

// addCable adds a cable between the two namespaces, whose MTU is large enough for the tunnel's packets.
func (b *bed) addCable(name string, mtu int) {
	b.t.Helper()
	if b.mtu+80 > mtu {
		mtu = b.mtu + 100
	}
	must(b.t, "ip", "link", "add", name, "mtu", strconv.Itoa(mtu), "netns", b.a.ns, "type", "veth",
		"peer", "name", name, "mtu", strconv.Itoa(mtu), "netns", b.b.ns)
	b.a.ip("link set %s up", name)
	b.b.ip("link set %s up", name)
}

// bringUp gives the tunnel its addresses and MTU, and sets it up.
func (s *side) bringUp() {
	s.t.Helper()
	s.ip(
		"addr add %s/24 dev %s", s.inner[ipv4], s.tunnel,
		"addr add %s/64 dev %s nodad", s.inner[ipv6], s.tunnel,
		"link set %s mtu %d up", s.tunnel, s.mtu,
	)
	s.waitForIPv6()
}

// waitForIPv6 waits until the kernel accepts packets to the side's IPv6 addresses: it adds their routes after ip(8) has
// returned.
func (s *side) waitForIPv6() {
	s.t.Helper()
	err := eventually(func() error {
		routes := s.must("ip", "-6", "route", "show", "table", "local")
		for _, address := range []string{s.outer[ipv6], s.inner[ipv6]} {
			if !strings.Contains(routes, "local "+address+" ") {
				return fmt.Errorf("%s: no local route for %s in\n%s", s.ns, address, routes)
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// configure makes each side a peer of the other: at a by wg setconf, at b by wg set.
func (b *bed) configure() {
	b.t.Helper()
	b.a.setconf(b.a.interfaceSection() + b.a.peerSection(b.b, b.outer))
	b.b.setKey()
	b.b.addPeer(b.a, endpoint(b.a, b.outer))
}

// endpoint returns a side's endpoint as wg writes it.
func endpoint(s *side, f family) string { return net.JoinHostPort(s.outer[f], strconv.Itoa(port)) }

// setKey sets the side's own key and port.
func (s *side) setKey() {
	s.t.Helper()
	s.wg("private-key", s.keyFile(s.private), "listen-port", strconv.Itoa(port))
}

// addPeer makes the other side a peer. An empty endpoint isn't set.
func (s *side) addPeer(o *side, endpoint string) {
	s.t.Helper()
	args := []string{"peer", o.public, "allowed-ips", o.inner[ipv4] + "/32," + o.inner[ipv6] + "/128"}
	if s.shared != "" {
		args = append(args, "preshared-key", s.keyFile(s.shared))
	}
	if endpoint != "" {
		args = append(args, "endpoint", endpoint)
	}
	s.wg(args...)
}

// interfaceSection and peerSection return the two parts of a configuration file.
func (s *side) interfaceSection() string {
	return fmt.Sprintf("[Interface]\nPrivateKey = %s\nListenPort = %d\n", s.private, port)
}

func (s *side) peerSection(o *side, f family) string {
	text := fmt.Sprintf("[Peer]\nPublicKey = %s\nAllowedIPs = %s/32, %s/128\nEndpoint = %s\n",
		o.public, o.inner[ipv4], o.inner[ipv6], endpoint(o, f))
	if s.shared != "" {
		text += "PresharedKey = " + s.shared + "\n"
	}
	return text
}

// setconf runs wg setconf on the tunnel.
func (s *side) setconf(text string) {
	s.t.Helper()
	file := filepath.Join(s.dir, "wg.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.must("wg", "setconf", s.tunnel, file)
}

// keyFile writes a key to a file, as wg reads it, and returns the file's name.
func (s *side) keyFile(key string) string {
	s.t.Helper()
	f, err := os.CreateTemp(s.dir, "key")
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := fmt.Fprintln(f, key); err != nil {
		s.t.Fatal(err)
	}
	f.Close()
	return f.Name()
}

// wg runs wg set on the tunnel.
func (s *side) wg(args ...string) {
	s.t.Helper()
	s.must("wg", append([]string{"set", s.tunnel}, args...)...)
}

// show returns the output of wg show for the tunnel, by lines and columns.
func (s *side) show(what string) [][]string {
	s.t.Helper()
	var rows [][]string
	for line := range strings.Lines(s.must("wg", "show", s.tunnel, what)) {
		rows = append(rows, strings.Fields(line))
	}
	return rows
}

// peer returns the output of wg show for the only peer: the columns after its public key.
func (s *side) peer(what string) []string {
	s.t.Helper()
	rows := s.show(what)
	if len(rows) != 1 || len(rows[0]) < 2 {
		s.t.Fatalf("%s: wg show %s: want one peer, got %q", s.ns, what, rows)
	}
	return rows[0][1:]
}

// ip runs commands of ip(8) in the namespace, in one batch. Each is a format, followed by as many arguments as it has verbs.
func (s *side) ip(words ...any) {
	s.t.Helper()
	var script strings.Builder
	for len(words) > 0 {
		format := words[0].(string)
		n := strings.Count(format, "%")
		fmt.Fprintf(&script, format+"\n", words[1:1+n]...)
		words = words[1+n:]
	}
	cmd := exec.Command("ip", "-netns", s.ns, "-batch", "-")
	cmd.Stdin = strings.NewReader(script.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%s: ip: %v: %s\n%s", s.ns, err, out, &script)
	}
}

// in returns a command that runs in the side's namespace.
func (s *side) in(name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", s.ns, name}, args...)...)
}

// enter calls f in the side's network namespace. Sockets that f opens stay there.
func (s *side) enter(f func() error) {
	s.t.Helper()
	err := func() (err error) {
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		defer home.Close()
		there, err := os.Open("/run/netns/" + s.ns)
		if err != nil {
			return err
		}
		defer there.Close()
		// The thread must return to its namespace and not end, as the daemons that it started would end with it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		defer func() {
			if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
				panic("interop: BUG: can't leave the namespace: " + err.Error())
			}
		}()
		return f()
	}()
	if err != nil {
		s.t.Fatalf("in %s: %v", s.ns, err)
	}
}

// occupyPort binds a UDP port in the side's namespace, in both families, until the test ends.
func (s *side) occupyPort(port int) {
	s.t.Helper()
	s.enter(func() error {
		c, err := net.ListenUDP("udp", &net.UDPAddr{Port: port})
		if err == nil {
			s.t.Cleanup(func() { c.Close() })
		}
		return err
	})
}

// must runs a command in the side's namespace and returns its output.
func (s *side) must(name string, args ...string) string {
	s.t.Helper()
	return run(s.t, s.in(name, args...))
}

func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	return run(t, exec.Command(name, args...))
}

func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s%s", strings.Join(cmd.Args, " "), err, out, &stderr)
	}
	return string(out)
}

// start starts a daemon in the foreground and waits until it can be configured.
func (s *side) start() {
	s.t.Helper()
	d, err := launch(s.in(s.program.path(), "-f", s.tunnel), "LOG_LEVEL=verbose")
	if err != nil {
		s.t.Fatal(err)
	}
	s.daemon = d
	if err := eventually(func() error { return reachable(s.tunnel) }); err != nil {
		s.t.Fatalf("%s did not come up: %v\n%s", s.program, err, d.log())
	}
}

// kill kills the daemon, and checks its log.
func (s *side) kill() {
	s.t.Helper()
	s.daemon.kill()
	if s.program == theirs {
		return
	}
	if err := s.daemon.checkLog(s.private, s.shared); err != nil {
		s.t.Error(err)
	}
}

// end ends the daemon as an operator would, and checks that it ends cleanly.
func (s *side) end() {
	d := s.daemon
	if d == nil {
		return
	}
	if s.t.Failed() {
		state, _ := s.in("wg", "show", s.tunnel).CombinedOutput()
		defer func() { s.t.Logf("%s in namespace %s\n%s%s", s.program, s.ns, state, d.log()) }()
	}
	err := d.terminate(syscall.SIGTERM)
	if s.program == ours && os.Getenv(envStandIn) != "1" {
		err = errors.Join(err, d.checkLog(s.private, s.shared), socketGone(s.tunnel))
		if err != nil {
			s.t.Errorf("the daemon in %s did not end cleanly: %v", s.ns, err)
		}
	}
}

// A daemon is a running program whose output is kept.
type daemon struct {
	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex
	out  bytes.Buffer // guarded by mu
}

// launch starts a daemon with additions to the environment.
func launch(cmd *exec.Cmd, env ...string) (*daemon, error) {
	d := &daemon{cmd: cmd, done: make(chan struct{})}
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = d, d
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		cmd.Wait()
		close(d.done)
	}()
	return d, nil
}

// Write keeps the daemon's output.
func (d *daemon) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out.Write(p)
}

func (d *daemon) log() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out.String()
}

func (d *daemon) kill() {
	d.cmd.Process.Kill()
	<-d.done
}

// terminate sends a signal and waits until the daemon has ended with success.
func (d *daemon) terminate(sig os.Signal) error {
	if err := d.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return d.ended()
}

// ended waits until the daemon has ended, and returns an error unless it ended with success.
func (d *daemon) ended() error {
	select {
	case <-d.done:
	case <-time.After(waitLimit):
		d.cmd.Process.Signal(syscall.SIGQUIT) // prints all goroutines to the log
		select {
		case <-d.done:
		case <-time.After(time.Second):
			d.kill()
		}
		return fmt.Errorf("still running after %v", waitLimit)
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("exit status %d (%v)", code, d.cmd.ProcessState)
	}
	return nil
}

// checkLog returns an error if the daemon's log has what it must not have: a panic, a data race, a secret.
func (d *daemon) checkLog(secrets ...string) error {
	log := d.log()
	for _, word := range append([]string{"panic:", ": BUG: ", "DATA RACE", "fatal error:"}, secrets...) {
		if word != "" && strings.Contains(log, word) {
			return fmt.Errorf("%q is in the log:\n%s", word, log)
		}
	}
	return nil
}

func socket(tunnel string) string { return "/var/run/wireguard/" + tunnel + ".sock" }

// reachable returns an error unless the daemon of a tunnel accepts connections to its configuration socket.
func reachable(tunnel string) error {
	c, err := net.Dial("unix", socket(tunnel))
	if err == nil {
		c.Close()
	}
	return err
}

// socketGone returns an error if the socket of a tunnel's daemon is still there.
func socketGone(tunnel string) error {
	if _, err := os.Lstat(socket(tunnel)); err == nil {
		return fmt.Errorf("%s is still there", socket(tunnel))
	}
	return nil
}

// eventually calls try until it returns nil, and returns the last error if it doesn't in time.
func eventually(try func() error) error { return within(waitLimit, try) }

// within is eventually with a time limit.
func within(d time.Duration, try func() error) error {
	for deadline := time.Now().Add(d); ; time.Sleep(5 * time.Millisecond) {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// newKey returns a new keypair in base64.
func newKey() (private, public string) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	raw := k.Bytes()
	raw[0] &= 248
	raw[31] = raw[31]&127 | 64 // as wg genkey does
	return base64.StdEncoding.EncodeToString(raw), base64.StdEncoding.EncodeToString(k.PublicKey().Bytes())
}

func newPSK() string {
	var k [32]byte
	rand.Read(k[:])
	return base64.StdEncoding.EncodeToString(k[:])
}
