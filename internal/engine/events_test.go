package engine

import (
	"errors"
	"net"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"throughline/internal/broadcast"
	"throughline/internal/wire"
	"throughline/udp"
	"throughline/udp/udptest"
	"throughline/wgtypes"
)

// errClosed has a name here because the tests call their network net.
var errClosed = net.ErrClosed

// key returns a public key whose first byte is its number.
func key(n byte) wgtypes.PublicKey { return wgtypes.PublicKey{0: n, 31: 1} }

// refusing is a network on which every port is taken.
type refusing struct{}

func (refusing) Listen(uint16) (udp.Conn, error) { return nil, syscall.EADDRINUSE }

// wantsEvents checks that just these events are there.
func wantsEvents(t *testing.T, s *broadcast.Subscription[wgtypes.Event], want ...wgtypes.EventKind) (events []wgtypes.Event) {
	t.Helper()
	synctest.Wait()
	var kinds []wgtypes.EventKind
	for {
		select {
		case e := <-s.Events():
			events, kinds = append(events, e), append(kinds, e.Kind)
			if time.Since(e.At) > time.Hour || e.At.After(time.Now()) {
				t.Errorf("%v was at %v", e.Kind, e.At)
			}
			continue
		default:
		}
		break
	}
	if !slices.Equal(kinds, want) {
		t.Fatalf("events %v, want %v", kinds, want)
	}
	return events
}

func TestEventsOfHandshakesAndRoaming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		atA, atB := a.Subscribe(8), b.Subscribe(8)
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
		if e := wantsEvents(t, atA, wgtypes.HandshakeComplete)[0]; e.Peer != b.public() || e.Endpoint != b.outer() {
			t.Errorf("a completed a handshake with %v at %v", e.Peer, e.Endpoint)
		}
		if e := wantsEvents(t, atB, wgtypes.HandshakeComplete)[0]; e.Peer != a.public() || e.Endpoint != a.outer() {
			t.Errorf("b completed a handshake with %v at %v", e.Peer, e.Endpoint)
		}
		port := uint16(40000)
		a.configure(&wgtypes.Config{ListenPort: &port})
		a.port = port
		a.send(datagram(a.inner, b.inner, 2, 100))
		b.wants(datagram(a.inner, b.inner, 2, 100))
		if e := wantsEvents(t, atB, wgtypes.EndpointMoved)[0]; e.Peer != a.public() || e.Endpoint != a.outer() {
			t.Errorf("%v moved to %v", e.Peer, e.Endpoint)
		}
		wantsEvents(t, atA)
	})
}

func TestEventsOfSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		net.Cut(a.host, b.host)
		at := a.Subscribe(8)
		a.send(datagram(a.inner, b.inner, 1, 100))
		time.Sleep(wire.RekeyAttemptTime - time.Second)
		wantsEvents(t, at)
		time.Sleep(4 * wire.RekeyTimeout) // eighteen tries, each a little later than the timeout
		if e := wantsEvents(t, at, wgtypes.PeerSilent)[0]; e.Peer != b.public() {
			t.Errorf("silent is %v", e.Peer)
		}
	})
}

func TestEventsOfTheDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, udptest.New(1, udptest.Options{}), 1)
		at := a.Subscribe(8)
		a.Down()
		a.Down()
		wantsEvents(t, at, wgtypes.Down)
		if err := a.Up(); err != nil {
			t.Fatal(err)
		}
		wantsEvents(t, at, wgtypes.Up)
		a.Close()
		if e := <-at.Events(); e.Kind != wgtypes.Down {
			t.Errorf("closing says %v", e.Kind)
		}
		if _, open := <-at.Events(); open {
			t.Error("closing leaves the subscription open")
		}
	})
}

func TestPeersOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, udptest.New(1, udptest.Options{}), 1)
		a.configure(&wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: key(1)}, {PublicKey: key(2)}, {PublicKey: key(3)}, {PublicKey: key(4)}}})
		var seen []byte
		for s := range a.Peers() {
			seen = append(seen, s.PublicKey[0])
			switch len(seen) {
			case 1: // no lock is held: the loop may change what it walks over
				a.configure(&wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: key(2), Remove: true}, {PublicKey: key(5)}, {PublicKey: key(3), AllowedIPs: prefixes("10.3.0.0/16")}}})
			case 2:
				if len(s.AllowedIPs) != 1 {
					t.Errorf("the peer is not as it is now: %+v", s)
				}
			}
		}
		if want := []byte{key(1)[0], key(3)[0], key(4)[0]}; !slices.Equal(seen, want) {
			t.Errorf("saw %v, want %v", seen, want)
		}
		if s, ok := a.Peer(key(5)); !ok || s.PublicKey != key(5) {
			t.Errorf("the peer added is %v, %v", s.PublicKey, ok)
		}
		if _, ok := a.Peer(key(2)); ok {
			t.Error("the peer removed is there")
		}
		for range a.Peers() {
			break
		}
	})
}

func TestKeepaliveOnRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		if err := a.Keepalive(key(9)); !errors.Is(err, ErrNoPeer) {
			t.Errorf("to nobody: %v", err)
		}
		established := func() bool {
			synctest.Wait()
			ok, err := a.Established(b.public())
			if err != nil {
				t.Fatal(err)
			}
			return ok
		}
		if established() {
			t.Fatal("a session that nobody asked for")
		}
		transports := count(net, wire.TypeTransport)
		for range 2 { // the first begins a handshake, whose completion sends one
			if err := a.Keepalive(b.public()); err != nil {
				t.Fatal(err)
			}
			if !established() {
				t.Fatal("there is no session")
			}
		}
		if n := transports(); n != 2 {
			t.Errorf("%d transport messages, want 2", n)
		}
		a.Close()
		if err := a.Keepalive(b.public()); !errors.Is(err, errClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// Rebinding keeps the port and the sessions.
func TestRebind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
		handshakes := count(net, wire.TypeInitiation)
		before := a.sockets.Load()
		if err := a.Rebind(); err != nil {
			t.Fatal(err)
		}
		if a.sockets.Load() == before || a.Status().ListenPort != a.port {
			t.Errorf("the sockets are the old ones, or the port changed to %d", a.Status().ListenPort)
		}
		a.send(datagram(a.inner, b.inner, 2, 100))
		b.wants(datagram(a.inner, b.inner, 2, 100))
		b.send(datagram(b.inner, a.inner, 3, 100))
		a.wants(datagram(b.inner, a.inner, 3, 100))
		if n := handshakes(); n != 0 {
			t.Errorf("%d handshakes for a rebinding", n)
		}

		// A port that can't be had any more: down, and up again when it can.
		at := a.Subscribe(8)
		a.Down()
		wantsEvents(t, at, wgtypes.Down)
		if err := a.Rebind(); err != nil {
			t.Errorf("rebinding while down: %v", err)
		}
		thief, err := a.host.Listen(a.port)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Up(); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("up with the port taken: %v", err)
		}
		thief.Close()
		if err := a.Up(); err != nil {
			t.Fatal(err)
		}
		a.Close()
		if err := a.Rebind(); !errors.Is(err, errClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// A port that another has taken meanwhile leaves the device down, until Up finds it free.
func TestRebindLosesThePort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
		at := a.Subscribe(8)
		good := a.network
		a.network = refusing{}
		if err := a.Rebind(); !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatalf("the port is taken: %v", err)
		}
		wantsEvents(t, at, wgtypes.Down)
		if s, _ := a.Peer(b.public()); s.LastHandshake.IsZero() {
			t.Error("the peer forgot its last handshake")
		}
		a.network = good
		if err := a.Up(); err != nil {
			t.Fatal(err)
		}
		wantsEvents(t, at, wgtypes.Up)
		a.send(datagram(a.inner, b.inner, 2, 100))
		b.wants(datagram(a.inner, b.inner, 2, 100))
	})
}
