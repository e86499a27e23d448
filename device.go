package throughline

import (
	"crypto/fips140"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"throughline/internal/aead"
	"throughline/internal/engine"
	"throughline/internal/mono"
	"throughline/internal/secret"
	"throughline/tun"
	"throughline/udp"
)

// Options are what a device is made of.
type Options struct {
	// TUN is the inner side. It must be set. Once [New] has succeeded the device owns it, and closes it.
	TUN tun.Device

	// Network opens the sockets of the outer side; nil stands for the operating system's.
	Network udp.Network

	// Logger logs handshakes at debug level, and what needs an operator at warn and error. No secret is ever logged, and
	// nothing for each packet. Nil: nothing is logged.
	Logger *slog.Logger

	// CipherImplementation names the code that seals and opens packets, one of [CipherImplementations]; "" stands for the
	// first of them. All compute ChaCha20-Poly1305, to the bit.
	CipherImplementation string

	// StagedBytes bounds the memory for packets that wait for a session, of all peers together, beyond the 128 packets
	// for each: what has waited longest gives way (packet.DropStagedFull). 0 stands for 64 MiB; it is never less than 256
	// KiB.
	StagedBytes int
}

// CipherImplementations returns the names of the code with which this machine can seal and open packets, the fastest
// first.
func CipherImplementations() []string {
	var names []string
	for _, impl := range aead.Implementations() {
		names = append(names, impl.String())
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

// New returns a running device without a key or peers. It is down until its TUN sends [tun.Up], or [Device.Up] is called.
func New(o Options) (*Device, error) { return newDevice(o, boottime) }

func newDevice(o Options, clock func() mono.Time) (*Device, error) {
	if o.TUN == nil {
		return nil, errors.New("throughline: Options.TUN is not set")
	}
	if fips140.Enforced() {
		return nil, errors.New("throughline: WireGuard's ciphers are not FIPS 140's, and this process may use no others (GODEBUG=fips140=only)")
	}
	if o.Network == nil {
		o.Network = &udp.Host{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	cipher := aead.Best()
	if o.CipherImplementation != "" {
		var err error
		if cipher, err = aead.Named(o.CipherImplementation); err != nil {
			return nil, fmt.Errorf("throughline: Options.CipherImplementation: %w", err)
		}
	}
	e, err := engine.New(engine.Options{TUN: o.TUN, Network: o.Network, Clock: clock, Log: o.Logger, Cipher: cipher, StagedBytes: o.StagedBytes})
	if err != nil {
		return nil, fmt.Errorf("throughline: %w", err)
	}
	d := &Device{engine: e, tun: o.TUN, log: o.Logger, done: make(chan struct{})}
	go d.follow()
	return d, nil
}

// follow handles the TUN's events until the TUN ends. Close waits for it through done.
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
			d.handleEvent(ev)
		case <-d.engine.TUNEnded():
			d.engine.Close()
			return
		}
	}
}

func (d *Device) handleEvent(ev tun.Event) {
	if ev&tun.MTU != 0 {
		if mtu, err := d.tun.MTU(); err == nil {
			d.engine.SetMTU(mtu)
			d.log.Debug("interface: MTU changed", "mtu", mtu)
		}
	}
	if ev&tun.Down != 0 {
		d.engine.LinkDown()
		d.log.Info("interface: down")
	}
	if ev&tun.Up != 0 {
		if err := d.engine.Up(); errors.Is(err, net.ErrClosed) {
			return // Close came first
		} else if err != nil {
			d.log.Error("interface: up, but its sockets can't be opened", "error", err)
			return
		}
		secret.OnClearedStack(func() { // a Status has keys in it
			s := d.Status()
			d.log.Info("interface: up", "port", s.ListenPort, "cipher", s.CipherImplementation, "offloads", s.Offloads)
			s.Wipe()
		})
	}
}

// Up opens the sockets, unless they are open. It need not be called: a TUN that is up, or is set up later, sends
// [tun.Up], and the device follows. Call it to have the sockets open when it returns, or its error. A port in use is an
// error that wraps syscall.EADDRINUSE.
func (d *Device) Up() error { return wrap(d.engine.Up()) }

// Down closes the sockets and forgets every session; configuration and peers stay. What the TUN sends is dropped until
// [Device.Up] is called, or the TUN sends [tun.Up].
func (d *Device) Down() { d.engine.Down() }

// Rebind closes the sockets and opens new ones on the same port; sessions stay. It is for changes of the host's network
// that sockets don't outlive: an interface they were bound to was made anew, the system closed them while it slept.
// Datagrams that arrive or are sent meanwhile are lost. While the device is down it does nothing. When the port can't be
// had any more the device is down, and the error wraps syscall.EADDRINUSE; [Device.Up] tries again.
func (d *Device) Rebind() error { return wrap(d.engine.Rebind()) }

// Ending returns a channel that is closed as soon as the device begins to end: Close was called, or its interface was
// deleted. What names the interface to others, such as its configuration socket, is to be removed then, as a new interface
// may take the name while this device is still ending.
func (d *Device) Ending() <-chan struct{} { return d.engine.TUNEnded() }

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

// Configure applies a change, whole or not at all; what c points to is copied. A port in use is an error that wraps
// syscall.EADDRINUSE; after Close the error wraps net.ErrClosed.
func (d *Device) Configure(c Config) error {
	return wrap(d.engine.Configure(&c))
}

// wrap puts the module's name before an error that isn't nil.
func wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("throughline: %w", err)
}

// Status returns what the device is and does, its private key included. The Status is the caller's, which may [Status.Wipe]
// it.
func (d *Device) Status() Status { return d.engine.Status() }
