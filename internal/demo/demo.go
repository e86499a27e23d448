// Package demo is a tunnel with both of its ends in one process, and a page that shows it at work.
//
// Two peers with fresh keys, near and far, are each a throughline.Device over a user-space stack of its own. They are
// joined by UDP sockets of the operating system, over 127.0.0.1. The far peer serves HTTP inside the tunnel; [Demo.Serve]
// brings connections of this host's there. So the page is delivered by the tunnel that it describes. Nothing needs
// privileges, configuration or a network, and nothing is left behind.
//
// The walk of a packet is timed from outside: decorators around the stacks' queues and the sockets note when a batch
// passes. The engine is what it is elsewhere.
//
// A Demo is safe for concurrent use. Its bounds: one load at a time from the page, [MaxStreams] streams in it, 256
// connections to the page, a history of 60 s. It is no benchmark: both ends, the programs that send and check, and the
// clock reads share the machine.
package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"throughline"
	"throughline/netstack"
	"throughline/proxy"
	"throughline/udp"
)

// Where the peers are inside of the tunnel. Nobody outside sees these addresses.
var (
	nearAddr = netip.MustParseAddr("10.128.0.1")
	farAddr  = netip.MustParseAddr("10.128.0.2")
	farHTTP  = netip.AddrPortFrom(farAddr, 80).String()
)

// A Demo is two peers and what runs between them. Make one with [New].
type Demo struct {
	near, far *peer
	up, down  walk // near to far, and far to near
	began     time.Time
	version   string
	log       *slog.Logger

	server *http.Server // the far peer's
	client *http.Client // the near peer's

	ctx   context.Context // ends what the page has begun
	stop  context.CancelFunc
	tasks sync.WaitGroup

	mu      sync.Mutex // guards what follows
	closed  bool
	history history
	load    Loading
	moved   atomic.Int64 // bytes of the load that runs
}

// A peer is one end of the tunnel.
type peer struct {
	stack *netstack.Stack
	dev   *throughline.Device
	key   throughline.PrivateKey
	addr  netip.Addr
}

// Options are what a demo is made of.
type Options struct {
	Version string       // for the page to show
	Network udp.Network  // opens the sockets; nil stands for the operating system's
	Logger  *slog.Logger // nil stands for silence
	Cipher  string       // one of throughline.Ciphers; "" stands for the fastest
}

// New joins two peers.
func New(o Options) (*Demo, error) {
	if o.Network == nil {
		o.Network = &udp.Host{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Demo{began: time.Now(), version: o.Version, log: o.Logger}
	d.ctx, d.stop = context.WithCancel(context.Background())
	var err error
	if d.near, err = newPeer(nearAddr, &meter{out: &d.up, in: &d.down}, o, "near"); err != nil {
		return nil, err
	}
	if d.far, err = newPeer(farAddr, &meter{out: &d.down, in: &d.up}, o, "far"); err != nil {
		d.near.dev.Close()
		return nil, err
	}
	if err := d.join(); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func newPeer(addr netip.Addr, m *meter, o Options, end string) (*peer, error) {
	s, err := netstack.New(netstack.Options{Addresses: []netip.Addr{addr}})
	if err != nil {
		return nil, err
	}
	dev, err := throughline.New(throughline.Options{TUN: m.device(s), Network: m.network(o.Network), Logger: o.Logger.With("end", end), Cipher: o.Cipher})
	if err != nil {
		s.Close()
		return nil, err
	}
	p := &peer{stack: s, dev: dev, key: throughline.NewPrivateKey(), addr: addr}
	if err = dev.Configure(throughline.Config{PrivateKey: &p.key}); err == nil {
		err = dev.Up()
	}
	if err != nil {
		dev.Close()
		return nil, err
	}
	return p, nil
}

// join makes the peers known to each other, and serves at the far one.
func (d *Demo) join() error {
	for _, ends := range [][2]*peer{{d.near, d.far}, {d.far, d.near}} {
		at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), ends[1].dev.Status().ListenPort)
		if err := ends[0].dev.Configure(throughline.Config{Peers: []throughline.PeerConfig{{
			PublicKey:  ends[1].key.Public(),
			Endpoint:   &at,
			AllowedIPs: []netip.Prefix{netip.PrefixFrom(ends[1].addr, 32)},
		}}}); err != nil {
			return err
		}
	}
	ln, err := d.far.stack.Listen("tcp", farHTTP)
	if err != nil {
		return err
	}
	d.server = &http.Server{Handler: d.handler(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	d.client = &http.Client{Transport: &http.Transport{
		DialContext:        d.near.stack.DialContext,
		DisableCompression: true,
		DisableKeepAlives:  true,
		WriteBufferSize:    64 << 10,
		ReadBufferSize:     64 << 10,
	}}
	d.tasks.Go(func() { d.server.Serve(ln) })
	return nil
}

// Close ends both peers and all that goes on between them. When it returns, nothing is left.
func (d *Demo) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.stop()
	if d.server != nil {
		d.server.Close()
	}
	err := errors.Join(d.near.dev.Close(), d.far.dev.Close())
	d.tasks.Wait()
	return err
}

// Ping sends an echo request from the near peer to the far one, and waits for the reply.
func (d *Demo) Ping(ctx context.Context) (time.Duration, error) {
	rtt, err := d.near.stack.Ping(ctx, farAddr)
	if err != nil {
		err = fmt.Errorf("ping through the tunnel: %w", err)
	}
	return rtt, err
}

// Serve brings the connections of ln through the tunnel to the page, and measures, until ctx ends. It closes ln.
func (d *Demo) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { d.watch(ctx) })
	wg.Go(func() { d.keepPinging(ctx) })
	defer wg.Wait()
	defer cancel()
	door := &proxy.Config{Sections: []proxy.Section{{
		Kind: proxy.TCPClientTunnel, Name: "page", BindAddress: ln.Addr().String(), Target: farHTTP,
		MaxConnections: 256, IdleTimeout: 5 * time.Minute,
	}}}
	return proxy.Run(ctx, door, d.near.stack, front{ln: ln}, d.log)
}

// A front is the host's network with one listener, which is open already.
type front struct {
	proxy.Host
	ln net.Listener
}

// Listen returns the listener.
func (f front) Listen(string, string) (net.Listener, error) { return f.ln, nil }
