package interop

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"
)

// retry is how long a side that sends to a peer without a session needs at most for a new one: it begins a handshake after
// KEEPALIVE_TIMEOUT + REKEY_TIMEOUT (15 s) without an answer, and its first initiation may be lost (5 s, and jitter).
const retry = 15*time.Second + 6*time.Second

// rolePairs are the beds for tests in which b changes and a must adapt: each program has each role.
var rolePairs = []plan{{a: ours, b: ours}, {a: ours, b: theirs}, {a: theirs, b: ours}}

// forEachRolePair runs a test on each, when a tunnel is up.
func forEachRolePair(t *testing.T, test func(t *testing.T, b *bed)) {
	for _, p := range rolePairs {
		p.psk = true
		t.Run(fmt.Sprintf("%s with changed %s", p.a, p.b), func(t *testing.T) {
			b := newBed(t, p)
			b.configure()
			b.a.wantReach(b.b)
			test(t, b)
		})
	}
}

// restart kills b's daemon, and starts and configures another.
func (b *bed) restart() {
	b.t.Helper()
	b.b.kill()
	b.b.start()
	b.b.bringUp()
	b.b.setKey()
	b.b.addPeer(b.a, endpoint(b.a, b.outer))
}

// TestRestart asks: does a side that was killed and started again reach the other at once?
func TestRestart(t *testing.T) {
	forEachRolePair(t, func(t *testing.T, b *bed) {
		b.restart()
		b.b.wantReach(b.a)
		b.a.wantReach(b.b)
	})
}

// TestSilentRestart asks: does a side find out that the other was started again, if that one sends nothing?
func TestSilentRestart(t *testing.T) {
	t.Parallel()
	forEachRolePair(t, func(t *testing.T, b *bed) {
		t.Parallel()
		b.restart()
		begun := time.Now()
		if err := within(retry, func() error { return b.a.ping(b.b.inner[ipv4], 1) }); err != nil {
			t.Errorf("no answer %v after the restart: %v", retry, err)
		}
		t.Logf("the tunnel works again after %v", time.Since(begun).Round(time.Second/10))
		b.a.wantReach(b.b)
		b.b.wantReach(b.a)
	})
}

// TestNewKey asks: does a side that gets a new private key, and is added as a new peer at the other, reach it at once?
func TestNewKey(t *testing.T) {
	forEachRolePair(t, func(t *testing.T, b *bed) {
		for _, first := range []string{"changed", "other"} {
			old := b.b.public
			b.b.private, b.b.public = newKey()
			b.b.wg("private-key", b.b.keyFile(b.b.private))
			b.a.wg("peer", old, "remove")
			b.a.addPeer(b.b, endpoint(b.b, b.outer))
			if first == "changed" {
				b.b.wantReach(b.a)
			}
			b.a.wantReach(b.b)
			b.b.wantReach(b.a)
		}
	})
}

// TestNewPresharedKey asks: is a new preshared key used from the next handshake on, and does a key that only one side has
// prevent the handshake?
func TestNewPresharedKey(t *testing.T) {
	forEachRolePair(t, func(t *testing.T, b *bed) {
		addPeerAnew := func(s, o *side) { // a new peer has no session
			s.wg("peer", o.public, "remove")
			s.addPeer(o, endpoint(o, b.outer))
		}
		b.a.shared = newPSK()
		addPeerAnew(b.a, b.b)
		b.a.wantNoReach(b.b, "though their preshared keys differ")
		b.b.shared = b.a.shared
		addPeerAnew(b.b, b.a)
		addPeerAnew(b.a, b.b)
		b.a.wantReach(b.b)
	})
}

// TestRoaming asks: does traffic follow a side whose address changes, even to another cable, and back?
func TestRoaming(t *testing.T) {
	forEachRolePair(t, func(t *testing.T, b *bed) {
		isAt := func(want string) {
			t.Helper()
			if got := b.a.peer("endpoints")[0]; got != want {
				t.Errorf("the side that didn't move has the endpoint %s of the other, want %s", got, want)
			}
		}
		moved := func(want string) {
			t.Helper()
			if err := b.b.ping(b.a.inner[ipv4], 3); err != nil {
				t.Errorf("from %s: %v", want, err)
			}
			isAt(want)
			b.a.wantReach(b.b)
			b.b.wantReach(b.a)
			isAt(want)
		}
		// Another address on the same cable; the old one is gone.
		b.b.ip("addr del 192.168.77.2/24 dev cable", "addr add 192.168.77.22/24 dev cable")
		moved("192.168.77.22:51820")

		// Another cable: b gets a's endpoint on it, and a learns b's.
		b.addCable("second", 1500)
		b.a.ip("addr add 192.168.88.1/24 dev second")
		b.b.ip("addr add 192.168.88.2/24 dev second")
		b.b.wg("peer", b.a.public, "endpoint", "192.168.88.1:51820")
		moved("192.168.88.2:51820")

		// Another family. wireguard-go keeps sockets' addresses in a pool, and sends the first datagrams after such a change
		// to a mixture of both; those are ignored.
		warm := func() {
			if b.a.program == ours && b.b.program == ours {
				return
			}
			for range 10 {
				b.b.in("ping", "-c", "3", "-i", "0.01", "-W", "1", b.a.inner[ipv4]).Run()
				b.a.in("ping", "-c", "3", "-i", "0.01", "-W", "1", b.b.inner[ipv4]).Run()
			}
		}
		b.b.wg("peer", b.a.public, "endpoint", "[fd77::1]:51820")
		warm()
		moved("[fd77::2]:51820")

		// The address that a sends from is removed; a must send from another, and b follow.
		b.b.wg("peer", b.a.public, "endpoint", "192.168.77.1:51820")
		warm()
		moved("192.168.77.22:51820")
		b.a.ip("addr del 192.168.77.1/24 dev cable", "addr add 192.168.77.11/24 dev cable")
		if err := b.a.ping(b.b.inner[ipv4], 3); err != nil {
			t.Errorf("after a's own address changed: %v", err)
		}
		if got := b.b.peer("endpoints")[0]; got != "192.168.77.11:51820" {
			t.Errorf("the other side has the endpoint %s", got)
		}
		b.b.wantReach(b.a)
	})
}

// TestMark asks: do datagrams have the mark that is set, from when it is set until it is removed?
func TestMark(t *testing.T) {
	needNamespaces(t)
	for _, outer := range []family{ipv4, ipv6} {
		t.Run(outer.String(), func(t *testing.T) {
			b := newBed(t, plan{outer: outer})
			b.configure()
			b.a.wantReach(b.b)
			// From here on only marked datagrams have a route.
			net, flag := "192.168.77.0/24", "-4"
			if outer == ipv6 {
				net, flag = "fd77::/64", "-6"
			}
			b.a.must("ip", flag, "route", "del", net, "dev", "cable")
			b.a.must("ip", flag, "route", "add", net, "dev", "cable", "table", "77")
			b.a.must("ip", flag, "rule", "add", "fwmark", "0x7e", "table", "77")
			b.a.wantNoReach(b.b, "though it sets no mark")
			for range 2 {
				b.a.wg("fwmark", "0x7e")
				b.a.wantReach(b.b)
				if got := b.a.show("fwmark")[0][0]; got != "0x7e" {
					t.Errorf("wg show fwmark: %s", got)
				}
				b.a.wg("fwmark", "0")
				b.a.wantNoReach(b.b, "though the mark was taken away")
			}
		})
	}
}

// TestListenPort asks: does a side keep its tunnels when its port changes, and when the new port is in use?
func TestListenPort(t *testing.T) {
	forEachRolePair(t, func(t *testing.T, b *bed) {
		b.b.wg("listen-port", "51999")
		if err := b.b.ping(b.a.inner[ipv4], 3); err != nil {
			t.Error(err)
		}
		b.a.wantReach(b.b)
		if got := b.a.peer("endpoints")[0]; got != "192.168.77.2:51999" {
			t.Errorf("the other side has the endpoint %s", got)
		}
		if b.b.program == theirs { // it loses its socket when the port is in use
			return
		}
		b.b.occupyPort(52000)
		if out, err := b.b.in("wg", "set", b.b.tunnel, "listen-port", "52000").CombinedOutput(); err == nil {
			t.Errorf("wg set accepted a port that is in use: %s", out)
		}
		if got := b.b.show("listen-port")[0][0]; got != "51999" {
			t.Errorf("after the refusal the port is %s", got)
		}
		b.a.wantReach(b.b)
		b.b.wg("listen-port", "0")
		if got, _ := strconv.Atoi(b.b.show("listen-port")[0][0]); got == 0 || got == 51999 {
			t.Errorf("port 0 became %d", got)
		}
		b.b.wantReach(b.a)
		b.a.wantReach(b.b)
	})
}

// TestUnknownEndpoint asks: does a side without the other's endpoint answer it, and have the endpoint from then on?
func TestUnknownEndpoint(t *testing.T) {
	for _, p := range rolePairs {
		for _, p.outer = range []family{ipv4, ipv6} {
			t.Run(fmt.Sprintf("%s waits for %s/%v", p.a, p.b, p.outer), func(t *testing.T) {
				b := newBed(t, p)
				b.a.setKey()
				b.a.addPeer(b.b, "")
				b.b.setKey()
				b.b.addPeer(b.a, endpoint(b.a, p.outer))
				b.a.wantNoReach(b.b, "though it can't know where")
				if got := b.a.peer("endpoints"); !slices.Equal(got, []string{"(none)"}) {
					t.Errorf("endpoint before: %v", got)
				}
				b.b.wantReach(b.a)
				b.a.wantReach(b.b)
				if got, want := b.a.peer("endpoints")[0], endpoint(b.b, p.outer); got != want {
					t.Errorf("endpoint after: %s, want %s", got, want)
				}
			})
		}
	}
}

// TestChangesUnderLoad asks: does a tunnel under full load survive all changes that an operator may make?
func TestChangesUnderLoad(t *testing.T) {
	b := newBed(t, plan{})
	b.configure()
	b.a.wantReach(b.b)
	defer b.b.serve()()
	load := make(chan struct{})
	go func() {
		defer close(load)
		b.a.iperf(b.b.inner[ipv4], "-t", "3", "--bidir", "-P", "2") // its result doesn't matter
	}()
	for i, busy := 0, true; busy; i++ {
		for _, s := range []*side{b.a, b.b} {
			o := b.b
			if s == b.b {
				o = b.a
			}
			s.wg("fwmark", strconv.Itoa(i%3))
			s.ip("link set %s mtu %d", s.tunnel, 1280+i%2*140)
			s.wg("peer", o.public, "persistent-keepalive", strconv.Itoa(i%4), "allowed-ips", o.inner[ipv6]+"/128")
			s.wg("peer", o.public, "allowed-ips", o.inner[ipv4]+"/32,"+o.inner[ipv6]+"/128")
			switch i % 8 {
			case 1:
				s.wg("listen-port", strconv.Itoa(port+1+i%2))
				s.wg("listen-port", strconv.Itoa(port))
			case 3:
				s.wg("peer", o.public, "remove")
				s.addPeer(o, endpoint(o, ipv4))
			case 5:
				s.wg("private-key", s.keyFile(o.private)) // now the peer has the side's own key, and is removed
				s.wg("private-key", s.keyFile(s.private))
				s.addPeer(o, endpoint(o, ipv4))
			case 7:
				s.ip("link set %s down", s.tunnel, "link set %s up", s.tunnel)
			}
		}
		select {
		case <-load:
			busy = false
		case <-time.After(20 * time.Millisecond):
		}
	}
	for _, s := range []*side{b.a, b.b} { // what link set down removed, and what the other may have lost
		s.ip("addr replace %s/64 dev %s nodad", s.inner[ipv6], s.tunnel)
		s.waitForIPv6()
	}
	b.b.wg("peer", b.a.public, "remove")
	b.a.wg("peer", b.b.public, "remove")
	b.b.addPeer(b.a, endpoint(b.a, ipv4))
	b.a.addPeer(b.b, endpoint(b.b, ipv4))
	b.a.wantReach(b.b)
	b.b.wantReach(b.a)
}
