package throughline_test

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"throughline"
	"throughline/tun/tuntest"
	"throughline/udp/udptest"
)

// newDevice makes a device on a simulated network, down.
func newDevice(t *testing.T, log *slog.Logger) (*throughline.Device, *tuntest.Device, *udptest.Host) {
	t.Helper()
	tun := tuntest.New(1420)
	tun.SetUp(false) // until a test sets it up
	host := udptest.New(1, udptest.Options{}).Host(netip.MustParseAddr("192.0.2.1"))
	dev, err := throughline.New(throughline.Options{TUN: tun, Network: host, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return dev, tun, host
}

// The device follows its TUN: up, down, and gone.
func TestDeviceFollowsItsTUN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, tun, host := newDevice(t, nil)
		if err := dev.Configure(throughline.Config{ListenPort: new(uint16(7000))}); err != nil {
			t.Fatal(err)
		}
		taken := func() bool {
			c, err := host.Listen(7000)
			if err == nil {
				c.Close()
			}
			return errors.Is(err, syscall.EADDRINUSE)
		}
		for range 3 {
			if taken() {
				t.Fatal("down, and the port is taken")
			}
			tun.SetUp(true)
			synctest.Wait()
			if !taken() {
				t.Fatal("up, and the port isn't taken")
			}
			tun.SetUp(false)
			synctest.Wait()
		}
		tun.SetUp(true)
		synctest.Wait()
		select {
		case <-dev.Ending():
			t.Error("ending, and the interface is there")
		default:
		}
		tun.Close() // as deletion looks
		<-dev.Ending()
		<-dev.Done()
		if taken() {
			t.Error("gone, and the port is taken")
		}
		if err := dev.Close(); err != nil {
			t.Errorf("Close after the end: %v", err)
		}
	})
}

// A TUN that is up when it is opened is followed like any other: nobody has to call Up.
func TestDeviceFollowsATUNThatIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := udptest.New(1, udptest.Options{}).Host(netip.MustParseAddr("192.0.2.1"))
		dev, err := throughline.New(throughline.Options{TUN: tuntest.New(1420), Network: host})
		if err != nil {
			t.Fatal(err)
		}
		defer dev.Close()
		synctest.Wait()
		port := dev.Status().ListenPort
		if _, err := host.Listen(port); port == 0 || !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("port %d is not taken: %v", port, err)
		}
	})
}

// A port that is taken when the interface comes up is said, and may be mended by another port.
func TestUpWithATakenPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said lines
		dev, tun, host := newDevice(t, slog.New(slog.NewTextHandler(&said, nil)))
		other, err := host.Listen(7000)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if err := dev.Configure(throughline.Config{ListenPort: new(uint16(7000))}); err != nil {
			t.Fatal(err)
		}
		tun.SetUp(true)
		synctest.Wait()
		if !strings.Contains(said.String(), "in use") {
			t.Errorf("the log says %q", said.String())
		}
		if err := dev.Up(); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("Up: %v", err)
		}
		if err := dev.Configure(throughline.Config{ListenPort: new(uint16(7000))}); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("the taken port again: %v", err)
		}
		if err := dev.Configure(throughline.Config{ListenPort: new(uint16(7001))}); err != nil {
			t.Fatal(err)
		}
		if _, err := host.Listen(7001); !errors.Is(err, syscall.EADDRINUSE) {
			t.Error("with a free port the device didn't come up")
		}
	})
}

func TestCloseFromEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, tun, _ := newDevice(t, nil)
		tun.SetUp(true)
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() { dev.Close() })
			all.Go(func() { dev.Up() })
			all.Go(func() { dev.Status() })
			all.Go(func() { dev.Down() })
			all.Go(func() { dev.Configure(throughline.Config{PrivateKey: new(throughline.NewPrivateKey())}) })
		}
		all.Wait()
		if err := dev.Configure(throughline.Config{}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Configure after Close: %v", err)
		}
	})
}

// What is wrong in a configuration is said, and nothing of it is applied.
func TestBadConfigurations(t *testing.T) {
	dev, _, _ := newDevice(t, nil)
	key := throughline.NewPrivateKey().Public()
	for want, pc := range map[string]throughline.PeerConfig{
		"persistent keepalive -1s":  {PersistentKeepalive: new(-time.Second)},
		"persistent keepalive 1.5s": {PersistentKeepalive: new(1500 * time.Millisecond)},
		"18h12m16s":                 {PersistentKeepalive: new(65536 * time.Second)},
		"endpoint invalid":          {Endpoint: &netip.AddrPort{}},
		"endpoint 192.0.2.1:0":      {Endpoint: new(netip.MustParseAddrPort("192.0.2.1:0"))},
		"allowed IP invalid":        {AllowedIPs: []netip.Prefix{{}}},
		"allowed IP invalid Prefix": {RemoveAllowedIPs: []netip.Prefix{{}}},
	} {
		pc.PublicKey = key
		err := dev.Configure(throughline.Config{ListenPort: new(uint16(9)), Peers: []throughline.PeerConfig{{PublicKey: throughline.PublicKey{1}}, pc}})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), key.String()) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
		if s := dev.Status(); len(s.Peers) != 0 || s.ListenPort == 9 {
			t.Fatal("the configuration was applied in part")
		}
	}
}

func TestStatusTellsWhatWasConfigured(t *testing.T) {
	dev, _, _ := newDevice(t, nil)
	private, preshared := throughline.NewPrivateKey(), throughline.NewPresharedKey()
	peer := throughline.NewPrivateKey().Public()
	if err := dev.Configure(throughline.Config{
		PrivateKey: &private, ListenPort: new(uint16(1234)), Mark: new(uint32(7)),
		Peers: []throughline.PeerConfig{{
			PublicKey: peer, PresharedKey: &preshared, Endpoint: new(netip.MustParseAddrPort("[::ffff:192.0.2.7]:99")),
			PersistentKeepalive: new(25 * time.Second),
			AllowedIPs: []netip.Prefix{
				netip.MustParsePrefix("fd00::1/64"), netip.MustParsePrefix("10.1.2.3/8"), netip.MustParsePrefix("::ffff:10.9.0.0/112"),
			},
		}},
	}); err != nil {
		t.Fatal(err)
	}
	s := dev.Status()
	if s.PrivateKey != private || s.PublicKey != private.Public() || s.ListenPort != 1234 || s.Mark != 7 || len(s.Peers) != 1 {
		t.Fatalf("%+v", s)
	}
	p := s.Peers[0]
	if p.PublicKey != peer || p.PresharedKey != preshared || p.Endpoint.String() != "192.0.2.7:99" || p.PersistentKeepalive != 25*time.Second || !p.LastHandshake.IsZero() {
		t.Errorf("%+v", p)
	}
	want := "[10.0.0.0/8 10.9.0.0/16 fd00::/64]"
	var got []string
	for _, prefix := range p.AllowedIPs {
		got = append(got, prefix.String())
	}
	if "["+strings.Join(got, " ")+"]" != want {
		t.Errorf("allowed IPs %v, want %s", got, want)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	if _, err := throughline.New(throughline.Options{}); err == nil || !strings.Contains(err.Error(), "TUN") {
		t.Errorf("without a TUN: %v", err)
	}
	_, err := throughline.New(throughline.Options{TUN: tuntest.New(1420), CipherImplementation: "rot13"})
	if err == nil || !strings.Contains(err.Error(), `Options.CipherImplementation: this machine has no "rot13": it has `+strings.Join(throughline.CipherImplementations(), ", ")) {
		t.Errorf("a cipher that isn't there: %v", err)
	}
}

// Each way can be asked for by name, and the status names it.
func TestStatusNamesTheCipherImplementation(t *testing.T) {
	for _, name := range throughline.CipherImplementations() {
		d, err := throughline.New(throughline.Options{TUN: tuntest.New(1420), CipherImplementation: name})
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Status().CipherImplementation; got != name {
			t.Errorf("the status names %q, want %q", got, name)
		}
		d.Close()
	}
}

// lines is a log's text, written and read by several goroutines.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
