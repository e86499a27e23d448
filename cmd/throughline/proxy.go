package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"throughline"
	"throughline/conf"
	"throughline/netstack"
	"throughline/packet"
	"throughline/proxy"
	"throughline/proxy/wireproxy"
	"throughline/udp"
)

const proxyUsage = `usage: throughline proxy [-i ADDRESS:PORT] [-n] CONF

Serves the proxies and forwarded ports that CONF names through the tunnel that it describes, until SIGINT or
SIGTERM comes. It needs no privileges and makes no interface.

  -i ADDRESS:PORT   answer there to HTTP requests for /readyz and /metrics, whoever sends them
  -n                check the file, say what is wrong with it, and end

Environment: LOG_LEVEL, THROUGHLINE_OFFLOADS_OFF and THROUGHLINE_CIPHER, as 'throughline --help' tells. Without
LOG_LEVEL warnings are said, too.

The file is wireproxy's. A value that begins with $ is an environment variable's ($$ stands for $).

  WGConfig = FILE      before all sections: [Interface] and [Peer] are in FILE
  [Interface], [Peer]  as wg-quick has them; hooks aren't run. A single peer without AllowedIPs has them all
    CheckAlive = ADDRESS, ...   ping these; /readyz tells whether they answer
    CheckAliveInterval = 5      seconds
  [Socks5]             a SOCKS5 proxy, with UDP        BindAddress [Username] [Password]
  [http]               an HTTP proxy                   BindAddress [Username] [Password] [CertFile] [KeyFile]
  [TCPClientTunnel]    a port here leads into the tunnel         BindAddress Target
  [TCPServerTunnel]    a port in the tunnel leads here           ListenPort Target
  [UDPClientTunnel]    the same for datagrams                    BindAddress Target
  [UDPServerTunnel]                                              ListenPort Target
  [UDPProxyTunnel]     [UDPClientTunnel] as wireproxy has it     BindAddress Target [InactivityTimeout]
  [STDIOTunnel]        stdin and stdout lead into the tunnel     Target
  [Resolve]
    ResolveStrategy = auto      ipv4 or ipv6: which addresses of a name are tried first
  All but [STDIOTunnel]:
    MaxConnections = 1024       at once; further ones are refused
    IdleTimeout = 2h            seconds, 90s, 2h, or off; of datagrams 2m
  All that lead into the tunnel:
    ResolveLocally = false      true: names are asked of this system. True without DNS in [Interface]
`

// A proxyCall is what one call of "throughline proxy" is to run.
type proxyCall struct {
	file   *conf.File
	cfg    *wireproxy.Config
	health string // where /readyz and /metrics are; empty: nowhere
	host   udp.Host
	cipher string
	names  proxy.Network // resolves the names of endpoints
	log    *slog.Logger
}

// runProxy is the verb proxy.
func runProxy(args []string, stdout io.Writer) error {
	fs := flags("proxy")
	health := fs.String("i", "", "")
	check := fs.Bool("n", false, "")
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		_, err := io.WriteString(stdout, proxyUsage)
		return err
	} else if err != nil {
		return fmt.Errorf("proxy: %w; run 'throughline proxy --help' for usage", err)
	}
	switch path := fs.Arg(0); {
	case fs.NArg() == 0:
		return errors.New("proxy: which configuration file?; run 'throughline proxy --help' for usage")
	case fs.NArg() == 1 && path == "help":
		_, err := io.WriteString(stdout, proxyUsage)
		return err
	case fs.NArg() > 1 && strings.HasPrefix(fs.Arg(1), "-"):
		return fmt.Errorf("proxy: %s stands behind the file; put it before", fs.Arg(1))
	case fs.NArg() > 1:
		return fmt.Errorf("proxy: %d configuration files; name one", fs.NArg())
	}
	if *health != "" {
		if _, err := net.ResolveTCPAddr("tcp", *health); err != nil {
			return fmt.Errorf("proxy: -i %s: %w; use one like 127.0.0.1:9080", *health, err)
		}
	}
	env, err := readEnvironment()
	if err != nil {
		return err
	}
	path := fs.Arg(0)
	f, cfg, err := wireproxy.Load(path, os.LookupEnv)
	if f != nil {
		err = errors.Join(err, complete(f)) // all that is wrong at once
	}
	if err == nil && len(cfg.Sections) == 0 && len(cfg.CheckAlive) == 0 && *health == "" {
		err = fmt.Errorf("%s: there is nothing to serve; add a section, like [Socks5]", path)
	}
	if err != nil {
		sayEach(os.Stderr, err)
		return errSaid
	}
	if *check {
		_, err := fmt.Fprintf(stdout, "%s: ok\n", path)
		return err
	}
	cfg.Stdin, cfg.Stdout = os.Stdin, os.Stdout
	p := &proxyCall{
		file: f, cfg: cfg, health: *health, host: env.host, cipher: env.cipher, names: proxy.Host{},
		log: env.logger(slog.LevelWarn),
	}
	ctx, stop := signal.NotifyContext(context.Background(), endSignals...)
	defer stop()
	ignoreBrokenPipes()
	return p.run(ctx)
}

// sayEach says each of several joined errors on a line of its own.
func sayEach(w io.Writer, err error) {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(w, "throughline: %s\n", line)
	}
}

// complete finds what a file may lack for wg, but not to make a tunnel of it here, and adds what wireproxy takes for
// granted: a peer that is told nothing of allowed IPs has them all.
func complete(f *conf.File) error {
	i := &f.Interface
	wrong := func(pos conf.Pos, problem string) error { return &conf.Error{Pos: pos, Problem: problem} }
	if i.Pos.Line == 0 {
		return fmt.Errorf("%s: there is no [Interface]; add one, or name the file that has it: WGConfig = FILE", f.Name)
	}
	var errs []error
	if i.PrivateKey == nil || i.PrivateKey.IsZero() {
		errs = append(errs, wrong(i.Pos, "[Interface] has no PrivateKey; add one (wg genkey makes one)"))
	}
	if len(i.Address) == 0 {
		errs = append(errs, wrong(i.Pos, "[Interface] has no Address; add the one that the far peer allows, like 10.0.0.2/32"))
	} else if s, err := netstack.New(stackOptions(f)); err != nil {
		errs = append(errs, wrong(i.Pos, "no tunnel can be made of [Interface]: "+err.Error()))
	} else {
		s.Close()
	}
	if len(f.Peers) == 0 {
		errs = append(errs, fmt.Errorf("%s: there is no [Peer]; add one", f.Name))
	}
	for n := range f.Peers {
		switch p := &f.Peers[n]; {
		case len(p.AllowedIPs) > 0:
		case len(f.Peers) == 1:
			p.AllowedIPs = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
		default: // wireproxy gives all to the last of them
			errs = append(errs, wrong(p.Pos, "[Peer] has no AllowedIPs, and isn't the only peer; add those that are behind it"))
		}
	}
	return errors.Join(errs...)
}

func stackOptions(f *conf.File) netstack.Options {
	o := netstack.Options{DNS: f.Interface.DNS, MTU: f.Interface.MTU}
	for _, p := range f.Interface.Address {
		o.Addresses = append(o.Addresses, p.Addr())
	}
	return o
}

// run serves until ctx ends, and leaves nothing behind.
func (p *proxyCall) run(ctx context.Context) error {
	i := &p.file.Interface
	if n := len(i.PreUp) + len(i.PostUp) + len(i.PreDown) + len(i.PostDown); n > 0 {
		p.log.Warn("proxy: hooks aren't run, there is no interface", "hooks", n)
	}
	s, err := netstack.New(stackOptions(p.file))
	if err != nil {
		return err
	}
	dev, err := throughline.New(throughline.Options{TUN: s, Network: &p.host, Logger: p.log, CipherImplementation: p.cipher})
	if err != nil {
		s.Close()
		return err
	}
	defer dev.Close()
	change, err := p.file.Config(nil)
	if err != nil {
		return err
	}
	if err := dev.Configure(change); err != nil {
		return err
	}
	if err := dev.Up(); err != nil {
		return err
	}

	ctx, cancel := context.WithCancel(ctx)
	follower := newFollower(p, dev)
	looked, followed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(followed)
		follower.look(ctx, time.Now())
		close(looked)
		follower.run(ctx)
	}()
	defer func() { <-followed }()
	defer cancel()
	select { // so that who connects at once finds a way
	case <-looked:
	case <-time.After(lookupTimeout):
	case <-ctx.Done():
	}

	px := proxy.New(p.cfg, s, proxy.Host{}, p.log)
	if p.health == "" {
		return px.Run(ctx)
	}
	ln, err := net.Listen("tcp", p.health)
	if err != nil {
		return fmt.Errorf("proxy: -i %s: %w", p.health, err)
	}
	server := &http.Server{
		Handler:           px.Health(func(w io.Writer) error { return writeMetrics(w, dev.Status()) }),
		ReadHeaderTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() {
		err := server.Serve(ln)
		cancel() // an operator who asks for health gets it, or the end
		ended <- err
	}()
	err = px.Run(ctx)
	server.Close()
	if e := <-ended; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("proxy: -i %s: %w", p.health, e))
	}
	return err
}

// Times of a follower.
const (
	lookupTimeout = 5 * time.Second
	firstPause    = 2 * time.Second // after a name that doesn't resolve, and then doubling
	lastPause     = 2 * time.Minute
	followEvery   = 30 * time.Second // how often handshakes are looked at
	staleAfter    = 3 * time.Minute  // a session is renewed after 2 min and useless after 3: whitepaper §6.1
	nextAfter     = 16 * time.Second // when the next of a name's addresses is tried: after three initiations, 5 s apart
)

// A follower gives a device the endpoints that have names: at the start, and again when no handshake succeeds for long
// though something is being sent. It belongs to one goroutine.
type follower struct {
	dev   *throughline.Device
	names proxy.Network
	log   *slog.Logger
	peers []*named
}

// A named is a peer whose endpoint has a name.
type named struct {
	key     throughline.PublicKey
	at      conf.Endpoint
	several bool      // whether the name had more than one address
	tries   int       // failures in a row
	next    time.Time // when to look again
	tx      uint64    // what was sent when handshakes were looked at last
	renewed time.Time // when it was resolved last
}

func newFollower(p *proxyCall, dev *throughline.Device) *follower {
	f := &follower{dev: dev, names: p.names, log: p.log}
	for i := range p.file.Peers {
		peer := &p.file.Peers[i]
		if _, ok := peer.Endpoint.AddrPort(); !ok && !peer.Endpoint.IsZero() {
			f.peers = append(f.peers, &named{key: peer.PublicKey, at: peer.Endpoint})
		}
	}
	return f
}

// run looks after the names until ctx ends.
func (f *follower) run(ctx context.Context) {
	for len(f.peers) > 0 {
		next := slices.MinFunc(f.peers, func(a, b *named) int { return a.next.Compare(b.next) }).next
		t := time.NewTimer(time.Until(next))
		select {
		case <-t.C:
			f.look(ctx, time.Now())
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// look does what is due now.
func (f *follower) look(ctx context.Context, now time.Time) {
	var status map[throughline.PublicKey]throughline.PeerStatus
	for _, n := range f.peers {
		if now.Before(n.next) {
			continue
		}
		if status == nil {
			status = make(map[throughline.PublicKey]throughline.PeerStatus)
			for _, s := range f.dev.Status().Peers {
				status[s.PublicKey] = s
			}
		}
		s := status[n.key]
		again := staleAfter
		if n.several {
			again = nextAfter
		}
		n.next = now.Add(followEvery)
		stale := s.TxBytes != n.tx && now.Sub(s.LastHandshake) > staleAfter && now.Sub(n.renewed) >= again
		n.tx = s.TxBytes
		if !s.Endpoint.IsValid() || stale {
			f.resolve(ctx, n, s.Endpoint, now)
		}
	}
}

// resolve asks for the addresses of a peer's name and tells the device one of them: the one behind that which it has, if
// that is among them. It may have another one, as peers roam (whitepaper §2.1).
func (f *follower) resolve(ctx context.Context, n *named, has netip.AddrPort, now time.Time) {
	one, cancel := context.WithTimeout(ctx, lookupTimeout)
	addrs, err := f.names.LookupHost(one, n.at.Host)
	cancel()
	if err == nil && len(addrs) == 0 {
		err = errors.New("it has no address")
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		if n.tries == 0 { // once for each time it goes wrong
			f.log.Error("proxy: an endpoint's name doesn't resolve; trying on", "endpoint", n.at, "at", n.at.Pos, "error", err)
		}
		n.next = now.Add(min(lastPause, firstPause<<min(n.tries, 10)))
		n.tries++
		return
	}
	to, known := netip.AddrPortFrom(addrs[0].Unmap(), n.at.Port), false
	for i, a := range addrs {
		if a.Unmap() == has.Addr() {
			to, known = netip.AddrPortFrom(addrs[(i+1)%len(addrs)].Unmap(), n.at.Port), true
		}
	}
	switch {
	case n.tries > 0 || has.IsValid() && !known:
		f.log.Warn("proxy: an endpoint's name resolves anew", "endpoint", n.at, "to", to)
	case known && has != to:
		f.log.Info("proxy: trying the next address of an endpoint's name", "endpoint", n.at, "to", to)
	}
	n.several, n.tries, n.renewed = len(addrs) > 1, 0, now
	if n.several {
		n.next = now.Add(nextAfter)
	}
	if has == to {
		return
	}
	if err := f.dev.Configure(throughline.Config{Peers: []throughline.PeerConfig{{PublicKey: n.key, UpdateOnly: true, Endpoint: &to}}}); err != nil && !errors.Is(err, net.ErrClosed) {
		f.log.Error("proxy: can't set an endpoint", "endpoint", n.at, "to", to, "error", err)
	}
}

// writeMetrics writes a device's counters in Prometheus' text format.
func writeMetrics(w io.Writer, s throughline.Status) error {
	var b strings.Builder
	head := func(name, kind, help string) {
		fmt.Fprintf(&b, "# HELP throughline_%s %s\n# TYPE throughline_%[1]s %[3]s\n", name, help, kind)
	}
	head("peers", "gauge", "Peers that are configured.")
	fmt.Fprintf(&b, "throughline_peers %d\n", len(s.Peers))
	slices.SortFunc(s.Peers, func(a, b throughline.PeerStatus) int { return cmp.Compare(a.PublicKey.String(), b.PublicKey.String()) })
	for _, m := range []struct {
		name, kind, help string
		value            func(*throughline.PeerStatus) uint64
	}{
		{"peer_received_bytes_total", "counter", "Bytes of datagrams received from a peer.", func(p *throughline.PeerStatus) uint64 { return p.RxBytes }},
		{"peer_sent_bytes_total", "counter", "Bytes of datagrams sent to a peer.", func(p *throughline.PeerStatus) uint64 { return p.TxBytes }},
		{"peer_last_handshake_timestamp_seconds", "gauge", "When the last handshake with a peer was completed; 0: never.", func(p *throughline.PeerStatus) uint64 {
			if p.LastHandshake.IsZero() {
				return 0
			}
			return uint64(p.LastHandshake.Unix())
		}},
	} {
		head(m.name, m.kind, m.help)
		for i := range s.Peers {
			fmt.Fprintf(&b, "throughline_%s{public_key=\"%v\"} %d\n", m.name, s.Peers[i].PublicKey, m.value(&s.Peers[i]))
		}
	}
	head("drops_total", "counter", "Packets that went no further, by reason.")
	for _, why := range slices.SortedFunc(maps.Keys(s.Drops), func(a, b packet.Drop) int { return cmp.Compare(a.String(), b.String()) }) {
		fmt.Fprintf(&b, "throughline_drops_total{reason=\"%s\"} %d\n", why, s.Drops[why])
	}
	head("cipher", "gauge", "The way in which packets are sealed and opened.")
	fmt.Fprintf(&b, "throughline_cipher{name=\"%s\"} 1\n", s.CipherImplementation)
	head("offload", "gauge", "Work for many packets at once that the kernel does (1) or doesn't (0), and why.")
	byName := func(a, b packet.Offload) int { return cmp.Compare(a.String(), b.String()) }
	for _, o := range slices.SortedFunc(maps.Keys(s.Offloads), byName) {
		on := 0
		if s.Offloads[o] == packet.OffloadOn {
			on = 1
		}
		fmt.Fprintf(&b, "throughline_offload{name=\"%s\",state=\"%s\"} %d\n", o, s.Offloads[o], on)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
