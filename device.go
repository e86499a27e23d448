package throughline

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"throughline/internal/aead"
	"throughline/internal/engine"
	"throughline/internal/mono"
	"throughline/internal/noise"
	"throughline/packet"
	"throughline/tun"
	"throughline/udp"
)

// Options are what a device is made of.
type Options struct {
	// TUN is the inner side. It must be set. Once [New] has succeeded the device owns it, and closes it.
	TUN tun.Device

	// Network opens the sockets of the outer side; nil stands for the operating system's.
	Network udp.Network

	// Logger hears what happens: handshakes at debug level, what needs an operator at warn and error. No secret is ever
	// logged, and nothing for each packet. Nil stands for silence.
	Logger *slog.Logger

	// Cipher is the way in which packets are sealed and opened, one of [Ciphers]; "" stands for the first of them. All ways
	// are ChaCha20-Poly1305, to the bit.
	Cipher string
}

// Ciphers returns the names of the ways in which this machine can seal and open packets, the fastest first.
func Ciphers() []string {
	var names []string
	for _, w := range aead.Ways() {
		names = append(names, w.String())
	}
	return names
}

// A Device is one end of a tunnel. It follows its TUN: it opens its sockets when the interface is set up, and closes
// them when it is set down. All methods are safe for concurrent use.
type Device struct {
	engine *engine.Engine
	tun    tun.Device
	log    *slog.Logger
	once   sync.Once
	done   chan struct{}
}

// New returns a device that runs: it has no key and no peers yet, and is down until the TUN says that it is up, or
// [Device.Up] is called.
func New(o Options) (*Device, error) { return newDevice(o, boottime) }

func newDevice(o Options, clock func() mono.Time) (*Device, error) {
	if o.TUN == nil {
		return nil, errors.New("throughline: Options.TUN is not set")
	}
	if o.Network == nil {
		o.Network = &udp.Host{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	cipher := aead.Best()
	if o.Cipher != "" {
		var err error
		if cipher, err = aead.Named(o.Cipher); err != nil {
			return nil, fmt.Errorf("throughline: Options.Cipher: %w", err)
		}
	}
	e, err := engine.New(engine.Options{TUN: o.TUN, Network: o.Network, Clock: clock, Log: o.Logger, Cipher: cipher})
	if err != nil {
		return nil, fmt.Errorf("throughline: %w", err)
	}
	d := &Device{engine: e, tun: o.TUN, log: o.Logger, done: make(chan struct{})}
	go d.follow()
	return d, nil
}

// follow does what the TUN says, until it is gone. Close waits for it through done.
func (d *Device) follow() {
	defer close(d.done)
	events := d.tun.Events()
	for {
		select {
		case ev, ok := <-events:
			if !ok {
				d.engine.Close()
				return
			}
			d.heed(ev)
		case <-d.engine.Gone():
			d.engine.Close()
			return
		}
	}
}

func (d *Device) heed(ev tun.Event) {
	if ev&tun.MTU != 0 {
		if mtu, err := d.tun.MTU(); err == nil {
			d.engine.SetMTU(mtu)
			d.log.Debug("interface: MTU changed", "mtu", mtu)
		}
	}
	if ev&tun.Down != 0 {
		d.engine.Down()
		d.log.Info("interface: down")
	}
	if ev&tun.Up != 0 {
		if err := d.engine.Up(); errors.Is(err, net.ErrClosed) {
			return // Close came first
		} else if err != nil {
			d.log.Error("interface: up, but its sockets can't be opened", "error", err)
			return
		}
		s := d.Status()
		d.log.Info("interface: up", "port", s.ListenPort, "cipher", s.Cipher, "offloads", s.Offloads)
	}
}

// Up opens the sockets, unless they are open, and lets traffic through. Nobody has to call it for a TUN that is up, or is
// set up later: that sends tun.Up, and the device follows. Call it to have that done when it returns, and its error. A port
// in use is an error that wraps syscall.EADDRINUSE.
func (d *Device) Up() error { return d.engine.Up() }

// Down closes the sockets and forgets every session; configuration and peers stay.
func (d *Device) Down() { d.engine.Down() }

// Done returns a channel that is closed when the device has ended: it was closed, or its interface was deleted.
func (d *Device) Done() <-chan struct{} { return d.done }

// Close ends the device and its TUN, and returns when every goroutine of both has ended. It may be called more than
// once.
func (d *Device) Close() error {
	var err error
	d.once.Do(func() {
		d.engine.Close()
		err = d.tun.Close()
	})
	<-d.done
	return err
}

// Configure applies a change, whole or not at all. A port in use is an error that wraps syscall.EADDRINUSE; after Close
// it returns net.ErrClosed.
func (d *Device) Configure(c Config) error {
	change, err := c.change()
	if err != nil {
		return err
	}
	return d.engine.Configure(change)
}

// maxKeepalive is what the configuration protocol can say, in seconds.
const maxKeepalive = 65535 * time.Second

// change checks a configuration and spells it as the engine does.
func (c *Config) change() (*engine.Change, error) {
	e := &engine.Change{
		Port: c.ListenPort, Mark: c.Mark, ReplacePeers: c.ReplacePeers,
		Peers: make([]engine.PeerChange, 0, len(c.Peers)),
	}
	if c.PrivateKey != nil {
		key := [len(PrivateKey{})]byte(c.PrivateKey.Clamped())
		e.Private = &key
	}
	for i := range c.Peers {
		pc, err := c.Peers[i].change()
		if err != nil {
			return nil, fmt.Errorf("throughline: peer %v: %w", c.Peers[i].PublicKey, err)
		}
		e.Peers = append(e.Peers, pc)
	}
	return e, nil
}

func (c *PeerConfig) change() (e engine.PeerChange, err error) {
	e = engine.PeerChange{
		Public: noise.PublicKey(c.PublicKey), Remove: c.Remove, UpdateOnly: c.UpdateOnly,
		Preshared: (*[len(PresharedKey{})]byte)(c.PresharedKey), Keepalive: c.PersistentKeepalive,
		ReplaceAllowedIPs: c.ReplaceAllowedIPs,
	}
	if k := c.PersistentKeepalive; k != nil && (*k < 0 || *k > maxKeepalive || *k%time.Second != 0) {
		return e, fmt.Errorf("persistent keepalive %v is not a whole number of seconds from 0 to 65535", *k)
	}
	if c.Endpoint != nil {
		if !c.Endpoint.IsValid() || c.Endpoint.Port() == 0 {
			return e, fmt.Errorf("endpoint %v is not an address and a port", *c.Endpoint)
		}
		to := netip.AddrPortFrom(c.Endpoint.Addr().Unmap(), c.Endpoint.Port())
		e.Endpoint = &to
	}
	if e.AllowedIPs, err = masked(c.AllowedIPs); err != nil {
		return e, err
	}
	e.RemoveAllowedIPs, err = masked(c.RemoveAllowedIPs)
	return e, err
}

// masked returns prefixes with the bits beyond their length cleared, and IPv4 ones in IPv6 unmapped.
func masked(prefixes []netip.Prefix) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		addr, bits := p.Addr(), p.Bits()
		if addr.Is4In6() && bits >= 96 {
			addr, bits = addr.Unmap(), bits-96
		}
		m, err := addr.WithZone("").Prefix(bits)
		if err != nil || !m.IsValid() {
			return nil, fmt.Errorf("allowed IP %v is not a prefix", p)
		}
		out = append(out, m)
	}
	return out, nil
}

// Status returns what the device is and does, its private key included.
func (d *Device) Status() Status {
	e := d.engine.Status()
	s := Status{
		PrivateKey: PrivateKey(e.Private), PublicKey: PublicKey(e.Public), ListenPort: e.Port, Mark: e.Mark, Cipher: e.Cipher,
		Peers: make([]PeerStatus, 0, len(e.Peers)), Drops: make(map[string]uint64), Offloads: make(map[string]string),
	}
	for o, state := range e.Offloads {
		s.Offloads[o.String()] = state.String()
	}
	for why, n := range e.Drops {
		if n > 0 {
			s.Drops[packet.Drop(why).String()] = n
		}
	}
	for i := range e.Peers {
		p := &e.Peers[i]
		slices.SortFunc(p.AllowedIPs, comparePrefixes)
		s.Peers = append(s.Peers, PeerStatus{
			PublicKey: PublicKey(p.Public), PresharedKey: PresharedKey(p.Preshared), Endpoint: p.Endpoint,
			PersistentKeepalive: p.Keepalive, LastHandshake: p.LastHandshake, RxBytes: p.Rx, TxBytes: p.Tx,
			AllowedIPs: p.AllowedIPs,
		})
	}
	return s
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
