package endpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"throughline/wgtypes"
)

// The times of a Follower.
const (
	lookupTimeout = 5 * time.Second
	firstPause    = 2 * time.Second  // after a name that doesn't resolve, and then doubling
	lastPause     = 2 * time.Minute  // the longest of these pauses
	checkEvery    = 30 * time.Second // how often handshakes are checked
	staleAfter    = 3 * time.Minute  // a session is renewed after 2 min and useless after 3: whitepaper §6.1
	nextAfter     = 16 * time.Second // how long each of a name's addresses is tried: for three initiations, 5 s apart
)

// A Device is what a Follower needs of a throughline.Device.
type Device interface {
	// Peer returns the status of one peer, and whether the device has it.
	Peer(wgtypes.PublicKey) (wgtypes.PeerStatus, bool)

	// Configure changes the endpoint of one peer, if the device has it.
	Configure(wgtypes.Config) error
}

// A Resolver looks names up. A Follower calls it from one goroutine.
type Resolver interface {
	// LookupHost returns the addresses of a host, in the order in which they are to be tried. IPv4-mapped IPv6 addresses
	// stand for IPv4 addresses. It must return soon after ctx has ended.
	LookupHost(ctx context.Context, host string) ([]netip.Addr, error)
}

// A ResolverFunc is a function as a [Resolver].
type ResolverFunc func(ctx context.Context, host string) ([]netip.Addr, error)

// LookupHost calls f.
func (f ResolverFunc) LookupHost(ctx context.Context, host string) ([]netip.Addr, error) {
	return f(ctx, host)
}

// System is the resolver of the operating system, as package net has it.
var System Resolver = ResolverFunc(func(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
})

// A Peer is a peer whose endpoint has a name.
type Peer struct {
	PublicKey wgtypes.PublicKey // names the peer of the device
	Host      string            // the name, without a port
	Port      uint16            // of the endpoint, from 1 to 65535, whichever of the name's addresses is used
	Source    string            // where the name was read, such as file:line, for the log; may be empty
}

// String returns host:port.
func (p Peer) String() string { return net.JoinHostPort(p.Host, strconv.Itoa(int(p.Port))) }

// Options are the optional settings of a Follower.
type Options struct {
	Resolver Resolver     // nil stands for [System]
	Logger   *slog.Logger // for names that don't resolve, and endpoints that change; nil discards
}

// A Follower gives a device the endpoints of peers that have names. Run is called once, from one goroutine; Ready may be
// called from any.
type Follower struct {
	dev      Device
	resolver Resolver
	peers    []*state
	ready    chan struct{}
}

// A state is what a Follower knows of one peer's name.
type state struct {
	Peer
	log      *slog.Logger
	several  bool      // whether the name had more than one address
	failures int       // look-ups that failed in a row
	next     time.Time // when to check again
	tx       uint64    // bytes sent to the peer when its handshakes were checked last
	resolved time.Time // when the name was resolved last
}

// New returns a Follower of peers, each of which must have a host, a port, and a public key that no other has. It looks
// nothing up; Run does. The slice stays the caller's.
func New(dev Device, peers []Peer, o Options) (*Follower, error) {
	if o.Resolver == nil {
		o.Resolver = System
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Follower{dev: dev, resolver: o.Resolver, ready: make(chan struct{})}
	known := make(map[wgtypes.PublicKey]bool)
	for _, p := range peers {
		switch {
		case p.Host == "":
			return nil, fmt.Errorf("endpoint: peer %v has no host", p.PublicKey)
		case p.Port == 0:
			return nil, fmt.Errorf("endpoint: peer %v, at %s, has no port", p.PublicKey, p.Host)
		case known[p.PublicKey]:
			return nil, fmt.Errorf("endpoint: peer %v has two names", p.PublicKey)
		}
		known[p.PublicKey] = true
		log := o.Logger.With("endpoint", p.String())
		if p.Source != "" {
			log = log.With("source", p.Source)
		}
		f.peers = append(f.peers, &state{Peer: p, log: log})
	}
	return f, nil
}

// Ready returns a channel that is closed when every name has been looked up once, whether it resolved or not, or when
// Run's context has ended.
func (f *Follower) Ready() <-chan struct{} { return f.ready }

// Run looks the names up, at once and when it is needed again, until ctx ends. It is called once, and blocks.
func (f *Follower) Run(ctx context.Context) {
	f.look(ctx, time.Now())
	close(f.ready)
	for len(f.peers) > 0 && ctx.Err() == nil {
		next := slices.MinFunc(f.peers, func(a, b *state) int { return a.next.Compare(b.next) }).next
		t := time.NewTimer(time.Until(next))
		select {
		case <-t.C:
			f.look(ctx, time.Now())
		case <-ctx.Done():
			t.Stop()
		}
	}
	<-ctx.Done()
}

// look does what is due now.
func (f *Follower) look(ctx context.Context, now time.Time) {
	for _, p := range f.peers {
		if now.Before(p.next) {
			continue
		}
		p.next = now.Add(checkEvery)
		s, ok := f.dev.Peer(p.PublicKey)
		if !ok {
			continue
		}
		again := staleAfter
		if p.several {
			again = nextAfter
		}
		stale := s.TxBytes != p.tx && now.Sub(s.LastHandshake) > staleAfter && now.Sub(p.resolved) >= again
		p.tx = s.TxBytes
		if !s.Endpoint.IsValid() || stale {
			f.resolve(ctx, p, s.Endpoint, now)
		}
	}
}

// resolve looks a peer's name up and gives the device one of its addresses: the one after that which the device has, or
// else the first. The device may have an address that isn't the name's, as peers roam (whitepaper §2.1).
func (f *Follower) resolve(ctx context.Context, p *state, has netip.AddrPort, now time.Time) {
	one, cancel := context.WithTimeout(ctx, lookupTimeout)
	addrs, err := f.resolver.LookupHost(one, p.Host)
	cancel()
	if err == nil && len(addrs) == 0 {
		err = errors.New("it has no address")
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		if p.failures == 0 { // logged once, not at each attempt
			p.log.Error("endpoint: a peer's name doesn't resolve, retrying", "error", err)
		}
		p.next = time.Now().Add(min(lastPause, firstPause<<min(p.failures, 10)))
		p.failures++
		return
	}
	to, known := netip.AddrPortFrom(addrs[0].Unmap(), p.Port), false
	for i, a := range addrs {
		if a.Unmap() == has.Addr() {
			to, known = netip.AddrPortFrom(addrs[(i+1)%len(addrs)].Unmap(), p.Port), true
		}
	}
	switch {
	case p.failures > 0:
		p.log.Warn("endpoint: a peer's name resolves again", "to", to)
	case has.IsValid() && !known:
		p.log.Warn("endpoint: a peer is silent, and at none of its name's addresses, trying those", "to", to)
	case known && has != to:
		p.log.Info("endpoint: trying the next address of a peer's name", "to", to)
	}
	p.several, p.failures, p.resolved = len(addrs) > 1, 0, now
	if p.several {
		p.next = now.Add(nextAfter)
	}
	if has == to {
		return
	}
	change := wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: p.PublicKey, UpdateOnly: true, Endpoint: &to}}}
	if err := f.dev.Configure(change); err != nil && !errors.Is(err, net.ErrClosed) {
		p.log.Error("endpoint: can't set a peer's endpoint", "to", to, "error", err)
	}
}
