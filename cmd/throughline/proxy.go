package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"throughline"
	"throughline/conf"
	"throughline/endpoint"
	"throughline/netstack"
	"throughline/proxy"
	"throughline/proxy/wireproxy"
	"throughline/udp"
)

const proxyUsage = `usage: throughline proxy [-i ADDRESS:PORT] [-n] CONF

Serves the proxies and forwarded ports that CONF names through the tunnel that it describes, until SIGINT or
SIGTERM comes. It needs no privileges and makes no interface.

  -i ADDRESS:PORT   serve /readyz and /metrics there over HTTP, to any client
  -n                check the file, report what is wrong with it, and end

Environment: LOG_LEVEL, THROUGHLINE_OFFLOADS_OFF and THROUGHLINE_CIPHER_IMPLEMENTATION, see
'throughline --help'. Without LOG_LEVEL, warnings and errors are logged.

The file has wireproxy's format. A value $NAME is replaced by that of the environment variable NAME; $$ at the
start of a value stands for $.

  WGConfig = FILE      before all sections: [Interface] and [Peer] are in FILE
  [Interface], [Peer]  as in wg-quick's files. What needs an interface is passed over: FwMark, Table, hooks,
                       SaveConfig. A single peer without AllowedIPs gets all IPs
    CheckAlive = ADDRESS, ...   ping these; /readyz reports whether they answer
    CheckAliveInterval = 5      seconds
  [Socks5]             a SOCKS5 proxy, with UDP        BindAddress [Username] [Password]
  [http]               an HTTP proxy                   BindAddress [Username] [Password] [CertFile] [KeyFile]
  [TCPClientTunnel]    a port here, forwarded into the tunnel    BindAddress Target
  [TCPServerTunnel]    a port in the tunnel, forwarded to here   ListenPort Target
  [UDPClientTunnel]    the same for datagrams                    BindAddress Target
  [UDPServerTunnel]                                              ListenPort Target
  [UDPProxyTunnel]     wireproxy's name of [UDPClientTunnel]     BindAddress Target [InactivityTimeout]
  [STDIOTunnel]        stdin and stdout, through the tunnel      Target
  [Resolve]
    ResolveStrategy = auto      ipv4 or ipv6: which addresses of a name are tried first
  In all sections but [STDIOTunnel]:
    MaxConnections = 1024       at the same time; further ones are refused, of datagrams the most silent gives way
    IdleTimeout = 2h            a number of seconds, or like 90s and 2h, or off; for datagrams 2m,
                                and InactivityTimeout off, as wireproxy has it
  In all sections whose targets are in the tunnel:
    ResolveLocally = false      true: this system resolves names; the default without DNS in [Interface]
`

// A proxyCall is what one call of "throughline proxy" is to run.
type proxyCall struct {
	file   *conf.File
	cfg    *proxy.Config
	health string // where /readyz and /metrics are; empty: nowhere
	host   udp.Host
	cipher string
	names  endpoint.Resolver // resolves the names of endpoints
	log    *slog.Logger
}

// runProxy runs "throughline proxy".
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
		return errors.New("proxy: no configuration file is named; run 'throughline proxy --help' for usage")
	case fs.NArg() == 1 && path == "help":
		_, err := io.WriteString(stdout, proxyUsage)
		return err
	case fs.NArg() > 1 && strings.HasPrefix(fs.Arg(1), "-"):
		return fmt.Errorf("proxy: %s comes after the file; put it before", fs.Arg(1))
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
	env.printNotices(stderr)
	path := fs.Arg(0)
	f, cfg, err := wireproxy.Load(path, os.LookupEnv)
	if f != nil {
		err = errors.Join(err, complete(f)) // so that all mistakes are reported at once
	}
	if err == nil && len(cfg.Sections) == 0 && len(cfg.CheckAlive) == 0 && *health == "" {
		err = fmt.Errorf("%s: there is nothing to serve; add a section, like [Socks5]", path)
	}
	if err != nil {
		printEach(stderr, err)
		return errReported
	}
	if *check {
		if keys := passedOver(f); keys != "" {
			fmt.Fprintf(os.Stderr, "throughline: %s\n", keys)
		}
		_, err := fmt.Fprintf(stdout, "%s: ok\n", path)
		return err
	}
	hideMemory()
	cfg.Stdin, cfg.Stdout = os.Stdin, os.Stdout
	p := &proxyCall{
		file: f, cfg: cfg, health: *health, host: env.host, cipher: env.cipher, names: endpoint.System,
		log: env.logger(slog.LevelWarn),
	}
	// net/http logs there when targets of the HTTP proxy break the protocol.
	log.SetFlags(0)
	log.SetOutput(slog.NewLogLogger(p.log.Handler(), slog.LevelDebug).Writer())
	ctx, stop := signal.NotifyContext(context.Background(), endSignals...)
	defer stop()
	ignoreBrokenPipes()
	return p.run(ctx)
}

// printEach prints each of several joined errors on a line of its own.
func printEach(w io.Writer, err error) {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(w, "throughline: %s\n", line)
	}
}

// complete reports what a file must have for a proxy's tunnel, though not for wg. Like wireproxy it gives a single peer
// without allowed IPs all of them.
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
		errs = append(errs, wrong(i.Pos, "[Interface] has no Address; add the one that the peer allows, like 10.0.0.2/32"))
	} else if s, err := netstack.New(stackOptions(f)); err != nil {
		errs = append(errs, wrong(i.Pos, "no tunnel can be made of [Interface]: "+err.Error()))
	} else {
		s.Close()
	}
	if c, err := deviceConfig(f); err != nil {
		errs = append(errs, err)
	} else if _, err := c.Canonical(); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", f.Name, err))
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
			errs = append(errs, wrong(p.Pos, "[Peer] has no AllowedIPs, and isn't the only peer; add the addresses that it has or routes"))
		}
	}
	return errors.Join(errs...)
}

// deviceConfig returns the configuration of the device that a file describes. Its mark is left out: without an interface
// there are no routes to keep the tunnel's own packets from, and marks need privileges.
func deviceConfig(f *conf.File) (throughline.Config, error) {
	c, err := f.Config(nil)
	c.Mark = nil
	return c, err
}

// passedOver says which keys of the file have no meaning for a proxy; empty: none.
func passedOver(f *conf.File) string {
	keys := wireproxy.PassedOver(f)
	if len(keys) == 0 {
		return ""
	}
	return fmt.Sprintf("%s: without meaning where there is no interface, and passed over: %s", f.Interface.Pos.File, strings.Join(keys, ", "))
}

// stackOptions returns the options of the stack that a file describes.
func stackOptions(f *conf.File) netstack.Options {
	o := netstack.Options{DNS: f.Interface.DNS, Search: f.Interface.Search, MTU: f.Interface.MTU}
	for _, p := range f.Interface.Address {
		o.Addresses = append(o.Addresses, p.Addr())
	}
	return o
}

// named returns the peers whose endpoints have names.
func named(f *conf.File) (peers []endpoint.Peer) {
	for i := range f.Peers {
		p := &f.Peers[i]
		if _, ok := p.Endpoint.AddrPort(); !ok && !p.Endpoint.IsZero() {
			peers = append(peers, endpoint.Peer{PublicKey: p.PublicKey, Host: p.Endpoint.Host, Port: p.Endpoint.Port, Source: p.Endpoint.Pos.String()})
		}
	}
	return peers
}

// namesTimeout bounds how long the proxy waits for the names of endpoints before it listens.
const namesTimeout = 5 * time.Second

// run makes the tunnel and serves until ctx ends.
func (p *proxyCall) run(ctx context.Context) error {
	if keys := passedOver(p.file); keys != "" {
		p.log.Warn("proxy: " + keys)
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
	change, err := deviceConfig(p.file)
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
	names, err := endpoint.New(dev, named(p.file), endpoint.Options{Resolver: p.names, Logger: p.log})
	if err != nil {
		cancel()
		return err
	}
	var following sync.WaitGroup
	following.Go(func() { names.Run(ctx) })
	following.Go(func() { returnMemory(ctx, func() int64 { return s.Status().Reserved }, freeMemory) })
	defer following.Wait()
	defer cancel()
	select { // so that clients that connect at once reach the peer
	case <-names.Ready():
	case <-time.After(namesTimeout):
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
		Handler: px.Health(func(w io.Writer) error {
			return errors.Join(writeMetrics(w, dev.Status()), writeStackMetrics(w, s.Status()))
		}),
		ReadHeaderTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() {
		err := server.Serve(ln)
		cancel() // if the server of -i fails, the proxy ends
		ended <- err
	}()
	err = px.Run(ctx)
	server.Close()
	if e := <-ended; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("proxy: -i %s: %w", p.health, e))
	}
	return err
}
