package main

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"
)

// A bed is a test bed: two network namespaces with a program in each, a cable (a veth pair) between them, and a tunnel.
//
//	namespace a                        namespace b
//	┌──────────────────────┐           ┌──────────────────────┐
//	│ tunnel  10.9.0.1     │           │ tunnel  10.9.0.2     │
//	│ program, port 51820  │           │ program, port 51820  │
//	│ cable   10.77.0.1    ├───────────┤ cable   10.77.0.2    │
//	└──────────────────────┘           └──────────────────────┘
type bed struct {
	a, b *side
	mtu  int
}

// A side is one end of a bed.
type side struct {
	ns      string // the network namespace
	tunnel  string // the interface
	inner   string // its address
	outer   string // the cable's address
	private string // the keypair, in base64
	public  string
	daemon  *daemon // nil before it is started
}

const (
	port      = "51820"
	waitLimit = 10 * time.Second // bounds waits that take milliseconds on an idle machine
)

// newBed makes the n-th bed. When it returns, pings have crossed the tunnel. The caller calls down.
func newBed(ctx context.Context, n int, kind string, prog program, mtu int) (_ *bed, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*waitLimit)
	defer cancel()
	b := &bed{mtu: mtu}
	for i, s := range []**side{&b.a, &b.b} {
		end := "ab"[i : i+1]
		*s = &side{
			ns:     fmt.Sprintf("bench-%d-%d%s", os.Getpid(), n, end),
			tunnel: fmt.Sprintf("bench%d%s", n, end),
			inner:  fmt.Sprintf("10.9.0.%d", i+1),
			outer:  fmt.Sprintf("10.77.0.%d", i+1),
		}
		(*s).private, (*s).public = newKey()
	}
	defer func() {
		if err != nil {
			b.down()
		}
	}()
	if err := b.connect(ctx, kind, mtu); err != nil {
		return nil, err
	}
	for _, s := range b.sides() {
		if err := s.start(ctx, prog); err != nil {
			return nil, fmt.Errorf("%s did not come up: %w", prog.Name, err)
		}
	}
	for i, s := range b.sides() {
		if err := s.configure(ctx, b.sides()[1-i], mtu); err != nil {
			return nil, err
		}
	}
	// The first packet begins the handshake, which is thereby not part of any measurement.
	ping := b.a.in(ctx, "ping", "-q", "-c", "3", "-i", "0.2", "-W", "2", b.b.inner)
	if err := runQuietly(ping); err != nil {
		return nil, fmt.Errorf("%s: not every ping was answered: %w", prog.Name, err)
	}
	return b, b.alive()
}

func (b *bed) sides() []*side { return []*side{b.a, b.b} }

// connect makes the namespaces and the cable between them.
func (b *bed) connect(ctx context.Context, kind string, mtu int) error {
	for _, s := range b.sides() {
		if err := runQuietly(command(ctx, "ip", "netns", "add", s.ns)); err != nil {
			return err
		}
	}
	wide := fmt.Sprint(max(1500, mtu+80))
	if err := runQuietly(command(ctx, "ip", "link", "add", "cable", "mtu", wide, "netns", b.a.ns, "type", "veth",
		"peer", "name", "cable", "mtu", wide, "netns", b.b.ns)); err != nil {
		return err
	}
	for _, s := range b.sides() {
		if err := s.ip(ctx, "link set lo up", "addr add "+s.outer+"/24 dev cable", "link set cable up"); err != nil {
			return err
		}
	}
	if kind == bedSegmenting {
		for _, s := range b.sides() {
			if err := s.segment(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// segmentation is the features of a network device that let many packets cross as one super-packet, by the names that
// ethtool(8) has for setting and for showing them.
var segmentation = [][2]string{
	{"tso", "tcp-segmentation-offload"}, {"gso", "generic-segmentation-offload"}, {"gro", "generic-receive-offload"},
	{"tx-udp-segmentation", "tx-udp-segmentation"},
}

// segment turns the offloads of the cable off, so that every packet crosses it alone, and checks that they are off.
func (s *side) segment(ctx context.Context) error {
	args := []string{"-K", "cable"}
	for _, f := range segmentation {
		args = append(args, f[0], "off")
	}
	if err := runQuietly(s.in(ctx, "ethtool", args...)); err != nil {
		return err
	}
	out, err := s.in(ctx, "ethtool", "-k", "cable").Output()
	if err != nil {
		return fmt.Errorf("ethtool -k cable: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		name, state, _ := strings.Cut(strings.TrimSpace(line), ": ")
		for _, f := range segmentation {
			if name == f[1] && !strings.HasPrefix(state, "off") {
				return fmt.Errorf("%s can't be turned off on this kernel's veth, so -bed segmenting doesn't work here", name)
			}
		}
	}
	return nil
}

// start starts the program and waits until its configuration socket accepts connections.
func (s *side) start(ctx context.Context, prog program) error {
	d, err := launch(s.in(context.Background(), prog.Path, "-f", s.tunnel))
	if err != nil {
		return err
	}
	s.daemon = d
	for deadline := time.Now().Add(waitLimit); ; {
		c, err := net.Dial("unix", "/var/run/wireguard/"+s.tunnel+".sock")
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w; it printed: %s", err, d.output())
		}
		select {
		case <-d.done:
			return d.alive()
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// configure sets a side's key and port, makes o its peer, and sets its tunnel up.
func (s *side) configure(ctx context.Context, o *side, mtu int) error {
	set := s.in(ctx, "wg", "set", s.tunnel, "private-key", "/dev/stdin", "listen-port", port,
		"peer", o.public, "allowed-ips", o.inner+"/32", "endpoint", o.outer+":"+port)
	set.Stdin = strings.NewReader(s.private + "\n")
	if err := runQuietly(set); err != nil {
		return err
	}
	return s.ip(ctx, "addr add "+s.inner+"/24 dev "+s.tunnel, fmt.Sprintf("link set %s mtu %d up", s.tunnel, mtu))
}

// ip runs commands of ip(8) in the namespace.
func (s *side) ip(ctx context.Context, commands ...string) error {
	cmd := command(ctx, "ip", "-netns", s.ns, "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if err := runQuietly(cmd); err != nil {
		return fmt.Errorf("%w (%s)", err, strings.Join(commands, ", "))
	}
	return nil
}

// in returns a command that runs in the side's namespace.
func (s *side) in(ctx context.Context, name string, args ...string) *exec.Cmd {
	return command(ctx, "ip", append([]string{"netns", "exec", s.ns, name}, args...)...)
}

// command returns a command that is killed when this process or the context ends.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	killWithParent(cmd)
	return cmd
}

// alive returns an error if a program of the bed has ended.
func (b *bed) alive() error {
	for _, s := range b.sides() {
		if err := s.daemon.alive(); err != nil {
			return err
		}
	}
	return nil
}

// down removes everything that newBed made.
func (b *bed) down() {
	for _, s := range b.sides() {
		if s.daemon != nil {
			s.daemon.end()
		}
	}
	for _, s := range b.sides() {
		exec.Command("ip", "netns", "del", s.ns).Run()
	}
}

// newKey returns a new keypair in base64.
func newKey() (private, public string) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // it never fails: crypto/rand doesn't
	}
	raw := k.Bytes()
	raw[0] &= 248
	raw[31] = raw[31]&127 | 64 // as wg genkey does
	return base64.StdEncoding.EncodeToString(raw), base64.StdEncoding.EncodeToString(k.PublicKey().Bytes())
}
