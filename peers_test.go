package throughline_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"throughline"
	"throughline/tun/tuntest"
	"throughline/udp/udptest"
)

// twoDevices returns two devices on a simulated network, with their keys; they don't know each other yet, and are down.
func twoDevices(t *testing.T) (a, b *throughline.Device, keyA, keyB throughline.PublicKey) {
	t.Helper()
	simulated := udptest.New(1, udptest.Options{})
	port := uint16(51820)
	make := func(addr string) (*throughline.Device, throughline.PublicKey) {
		tun := tuntest.New(1420)
		tun.SetUp(false)
		d, err := throughline.New(throughline.Options{TUN: tun, Network: simulated.Host(netip.MustParseAddr(addr))})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		key := throughline.NewPrivateKey()
		if err := d.Configure(throughline.Config{PrivateKey: &key, ListenPort: &port}); err != nil {
			t.Fatal(err)
		}
		return d, key.Public()
	}
	a, keyA = make("192.0.2.1")
	b, keyB = make("192.0.2.2")
	return a, b, keyA, keyB
}

func addPeer(t *testing.T, d *throughline.Device, key throughline.PublicKey, endpoint string) {
	t.Helper()
	p := throughline.PeerConfig{PublicKey: key, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	if endpoint != "" {
		to := netip.MustParseAddrPort(endpoint)
		p.Endpoint = &to
	}
	if err := d.Configure(throughline.Config{Peers: []throughline.PeerConfig{p}}); err != nil {
		t.Fatal(err)
	}
}

func TestWaitHandshake(t *testing.T) {
	a, b, keyA, keyB := twoDevices(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := a.WaitHandshake(ctx, keyB); !errors.Is(err, throughline.ErrNoPeer) || !strings.HasPrefix(err.Error(), "throughline: ") {
		t.Errorf("for a peer that isn't there: %v", err)
	}
	addPeer(t, a, keyB, "192.0.2.2:51820")
	addPeer(t, b, keyA, "")

	short, cancelShort := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancelShort()
	if err := a.WaitHandshake(short, keyB); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), keyB.String()) {
		t.Errorf("while both are down: %v", err)
	}

	// What waits while the devices are down gets its handshake when they come up.
	waited := make(chan error, 1)
	go func() { waited <- a.WaitHandshake(ctx, keyB) }()
	if err := b.Up(); err != nil {
		t.Fatal(err)
	}
	if err := a.Up(); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
	if s, ok := a.Peer(keyB); !ok || s.LastHandshake.IsZero() {
		t.Errorf("after the handshake the peer is %+v, %v", s, ok)
	}
	if err := a.WaitHandshake(ctx, keyB); err != nil {
		t.Errorf("with a session: %v", err)
	}

	for _, end := range []struct {
		name string
		do   func()
		want error
	}{
		{"the peer is removed", func() {
			a.Down()
			if err := a.Configure(throughline.Config{Peers: []throughline.PeerConfig{{PublicKey: keyB, Remove: true}}}); err != nil {
				t.Error(err)
			}
			if err := a.Up(); err != nil {
				t.Error(err)
			}
		}, throughline.ErrNoPeer},
		{"the device is closed", func() { b.Close() }, net.ErrClosed},
	} {
		d, key := a, keyB
		if end.want == net.ErrClosed {
			d, key = b, keyA
			b.Down() // without a session
		}
		begun := make(chan struct{})
		go func() { close(begun); waited <- d.WaitHandshake(ctx, key) }()
		<-begun
		end.do()
		if err := <-waited; end.want == net.ErrClosed && !errors.Is(err, end.want) || err != nil && !errors.Is(err, end.want) {
			t.Errorf("%s: %v, want %v", end.name, err, end.want)
		}
	}
}

func TestSubscribe(t *testing.T) {
	a, _, _, _ := twoDevices(t)
	s := a.Subscribe(1)
	if err := a.Up(); err != nil {
		t.Fatal(err)
	}
	a.Down()
	if e := <-s.Events(); e.Kind != throughline.EventUp || e.Kind.String() != "up" {
		t.Errorf("the event is %v", e.Kind)
	}
	if s.Lost() != 1 {
		t.Errorf("%d events were lost, want 1", s.Lost())
	}
	s.Close()
	if _, open := <-s.Events(); open {
		t.Error("the channel of a closed subscription is open")
	}
}

// A process that may use FIPS 140's ciphers only is told so, by an error.
func TestFIPSOnly(t *testing.T) {
	if os.Getenv("GODEBUG") == "fips140=only" {
		if _, err := throughline.New(throughline.Options{TUN: tuntest.New(1420)}); err == nil || !strings.Contains(err.Error(), "FIPS 140") {
			t.Errorf("New: %v", err)
		}
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestFIPSOnly$", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestFIPSOnly") {
		t.Errorf("%v: %s", err, out)
	}
}
