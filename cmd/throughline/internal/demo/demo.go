// Package demo is a tunnel with both of its ends in one process, and a page that shows it at work.
//
// Each of the two peers, near and far, is a throughline.Device with a fresh key and a user-space stack of its own. They
// send to each other from UDP sockets of the operating system on 127.0.0.1. The far peer serves HTTP inside the tunnel;
// [Demo.Serve] forwards connections from this host to it. So the page is delivered by the tunnel that it describes.
// Nothing needs privileges, configuration or a network, and Close removes everything.
//
// With Options.TUN each peer has one of the kernel's TUNs instead, in a network namespace of its own, and TCP is the
// kernel's. The UDP sockets stay in the process's namespace. That needs privileges, and Linux; the namespaces have no
// names, and end with the process at the latest.
//
// A packet's walk is the steps from the sender's TUN to the receiver's. They are timed from outside the engine, by
// decorators around queues and sockets that note when a batch passes.
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
	"throughline/packet"
	"throughline/proxy"
	"throughline/tun"
	"throughline/udp"
)

// The peers' addresses inside the tunnel. They are used nowhere outside.
var (
	inner    = netip.MustParsePrefix("10.128.0.0/30")
	nearAddr = netip.MustParseAddr("10.128.0.1")
	farAddr  = netip.MustParseAddr("10.128.0.2")
	farHTTP  = netip.AddrPortFrom(farAddr, 80).String()
)

// loopback is the address of the peers' sockets. Other machines can't reach it.
var loopback = netip.MustParseAddr("127.0.0.1")

// A Demo is two peers and the tunnel between them. Make one with [New].
type Demo struct {
	near, far *peer
	up, down  walk // near to far, and far to near
	began     time.Time
	version   string
	log       *slog.Logger

	server *http.Server // the far peer's
	client *http.Client // the near peer's

	ctx   context.Context // ends the load that the page started
	stop  context.CancelFunc
	tasks sync.WaitGroup

	mu      sync.Mutex // guards what follows
	closed  bool
	history history
	load    Loading
	moved   atomic.Int64 // bytes of the page's load that were sent and received so far
}

// A peer is one end of the tunnel.
type peer struct {
	inside    proxy.Network // dials and listens inside the tunnel: the stack, or the namespace
	namespace *namespace    // nil without the kernel's TUNs
	dev       *throughline.Device
	name      string // of its TUN
	key       throughline.PrivateKey
	addr      netip.Addr
}

// close ends a peer and waits for its end.
func (p *peer) close() error {
	err := p.dev.Close()
	if p.namespace != nil {
		err = errors.Join(err, p.namespace.Close())
	}
	return err
}

// Options configure a demo.
type Options struct {
	Version string       // for the page to show
	Network udp.Network  // opens the sockets; nil stands for the operating system's
	Logger  *slog.Logger // nil discards
	Cipher  string       // one of throughline.CipherImplementations; "" stands for the fastest

	TUN bool           // use the kernel's TUNs, in network namespaces
	Off packet.Offload // the TUNs' offloads not to use
}

// Makes lists what New would make, in a phrase each.
func (o Options) Makes() []string {
	between := "two UDP sockets on free ports of 127.0.0.1"
	if !o.TUN {
		return []string{
			"two WireGuard peers with fresh keys, in this process",
			fmt.Sprintf("a TCP/IP stack in user space for each, at %v and %v", nearAddr, farAddr),
			between,
		}
	}
	return []string{
		"two network namespaces without names, which other programs don't see",
		fmt.Sprintf("in one the TUN interface near with %v/%d, and it is up", nearAddr, inner.Bits()),
		fmt.Sprintf("in the other the TUN interface far with %v/%d, and it is up", farAddr, inner.Bits()),
		"two WireGuard peers with fresh keys, one on each interface",
		between,
	}
}

// New makes two peers and the tunnel between them. The caller closes the Demo.
func New(o Options) (*Demo, error) {
	if o.Network == nil {
		o.Network = &udp.Host{Address: loopback}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Demo{began: time.Now(), version: o.Version, log: o.Logger}
	d.ctx, d.stop = context.WithCancel(context.Background())
	var err error
	if d.near, err = newPeer("near", nearAddr, &meter{out: &d.up, in: &d.down}, o); err != nil {
		return nil, err
	}
	if d.far, err = newPeer("far", farAddr, &meter{out: &d.down, in: &d.up}, o); err != nil {
		d.near.close()
		return nil, err
	}
	if err := d.join(); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// newPeer makes the peer called end, whose TUN and sockets m times. It knows no other peer yet.
func newPeer(end string, addr netip.Addr, m *meter, o Options) (*peer, error) {
	p := &peer{key: throughline.NewPrivateKey(), addr: addr, name: end}
	t, err := p.makeInside(o)
	if err != nil {
		return nil, err
	}
	p.dev, err = throughline.New(throughline.Options{TUN: m.device(t), Network: m.network(o.Network), Logger: o.Logger.With("end", end), CipherImplementation: o.Cipher})
	if err != nil {
		t.Close()
		if p.namespace != nil {
			p.namespace.Close()
		}
		return nil, err
	}
	if err = p.dev.Configure(throughline.Config{PrivateKey: &p.key}); err == nil {
		err = p.dev.Up()
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// makeInside makes the peer's stack or namespace, and returns its TUN.
func (p *peer) makeInside(o Options) (tun.Device, error) {
	if !o.TUN {
		s, err := netstack.New(netstack.Options{Addresses: []netip.Addr{p.addr}})
		p.inside = s
		return s, err
	}
	n, err := newNamespace()
	if err != nil {
		return nil, err
	}
	t, err := n.open(p.name, netip.PrefixFrom(p.addr, inner.Bits()), o.Off)
	if err != nil {
		n.Close()
		return nil, err
	}
	p.inside, p.namespace = n, n
	return t, nil
}

// join configures each peer with the other, and serves HTTP at the far one.
func (d *Demo) join() error {
	for _, ends := range [][2]*peer{{d.near, d.far}, {d.far, d.near}} {
		at := netip.AddrPortFrom(loopback, ends[1].dev.Status().ListenPort)
		if err := ends[0].dev.Configure(throughline.Config{Peers: []throughline.PeerConfig{{
			PublicKey:  ends[1].key.Public(),
			Endpoint:   &at,
			AllowedIPs: []netip.Prefix{netip.PrefixFrom(ends[1].addr, 32)},
		}}}); err != nil {
			return err
		}
	}
	ln, err := d.far.inside.Listen("tcp", farHTTP)
	if err != nil {
		return err
	}
	d.server = &http.Server{Handler: d.handler(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	d.client = &http.Client{Transport: &http.Transport{
		DialContext:        d.near.inside.DialContext,
		DisableCompression: true,
		DisableKeepAlives:  true,
		WriteBufferSize:    64 << 10,
		ReadBufferSize:     64 << 10,
	}}
	d.tasks.Go(func() { d.server.Serve(ln) })
	return nil
}

// Close ends both peers and everything that the Demo started, and waits for it.
func (d *Demo) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.stop()
	if d.server != nil {
		d.server.Close()
	}
	err := errors.Join(d.near.close(), d.far.close())
	d.tasks.Wait()
	return err
}

// Ping sends an echo request from the near peer to the far one, and waits for the reply.
func (d *Demo) Ping(ctx context.Context) (time.Duration, error) {
	rtt, err := d.near.inside.Ping(ctx, farAddr)
	if err != nil {
		err = fmt.Errorf("ping through the tunnel: %w", err)
	}
	return rtt, err
}

// Serve forwards the connections of ln through the tunnel to the page, and measures, until ctx ends. It closes ln.
func (d *Demo) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { d.watch(ctx) })
	wg.Go(func() { d.keepPinging(ctx) })
	defer wg.Wait()
	defer cancel()
	forward := &proxy.Config{Sections: []proxy.Section{{
		Kind: proxy.TCPClientTunnel, Name: "page", BindAddress: ln.Addr().String(), Target: farHTTP,
		MaxConnections: 256, IdleTimeout: 5 * time.Minute,
	}}}
	return proxy.Run(ctx, forward, d.near.inside, front{ln: ln}, d.log)
}

// A front is the host's network whose only listener is ln, which is open already.
type front struct {
	proxy.Host
	ln net.Listener
}

// Listen returns the listener.
func (f front) Listen(string, string) (net.Listener, error) { return f.ln, nil }
