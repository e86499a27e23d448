package engine

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"throughline/internal/ipheader"
	"throughline/internal/loglimit"
	"throughline/internal/wire"
	"throughline/packet"
	"throughline/udp/udptest"
	"throughline/wgtypes"
)

// asPacket returns a datagram as the IP packet that carries it.
func asPacket(d *udptest.Datagram) []byte {
	const udp, udpSize = 17, 8
	from, to := d.From.Addr(), d.To.Addr()
	var p []byte
	if to.Is4() {
		p = datagram(from, to, 0, ipheader.IPv4Size+udpSize+len(d.Data))
		p[9] = udp
	} else {
		p = datagram6(from, to, ipheader.IPv6Size+udpSize+len(d.Data))
		p[6] = udp
	}
	u := p[len(p)-len(d.Data)-udpSize:]
	binary.BigEndian.PutUint16(u, d.From.Port())
	binary.BigEndian.PutUint16(u[2:], d.To.Port())
	binary.BigEndian.PutUint16(u[4:], uint16(udpSize+len(d.Data)))
	copy(u[udpSize:], d.Data)
	return p
}

// Datagrams to a peer whose route leads into the tunnel itself come back, and are dropped: one packet makes one datagram,
// and one warning says why.
func TestARoutingLoopEnds(t *testing.T) {
	for _, family := range []string{"IPv4", "IPv6"} {
		t.Run(family, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := udptest.New(1, udptest.Options{})
				var said bytes.Buffer
				a, b := newNodeWith(t, net, 1, simulatedClock(), &said), newNode(t, net, 2)
				a.limited = loglimit.New(slog.New(slog.NewTextHandler(&said, nil)), a.clock)
				b.knows(a)
				to := b.outer()
				if family == "IPv6" {
					to = netip.AddrPortFrom(b.host.Addrs()[1], b.port)
				}
				a.knows(b, func(pc *wgtypes.PeerConfig) {
					pc.Endpoint, pc.AllowedIPs = &to, prefixes("0.0.0.0/0", "::/0")
				})
				a.send(datagram(a.inner, b.inner, 1, 100))
				b.wants(datagram(a.inner, b.inner, 1, 100))

				var sent atomic.Int64
				net.Hook(func(d *udptest.Datagram) bool { // the default route leads into a's tunnel from now on
					if d.To == to {
						sent.Add(1)
						go a.tun.Outbound(asPacket(d))
						return false
					}
					return true
				})
				for i := range uint32(10) {
					a.send(datagram(a.inner, b.inner, i, 100))
					time.Sleep(time.Millisecond)
				}
				synctest.Wait()
				if n := sent.Load(); n != 10 {
					t.Errorf("10 packets made %d datagrams", n)
				}
				if n := a.drops[packet.DropLoop].Load(); n != 10 {
					t.Errorf("%d were dropped as going in a loop, want 10; drops: %v", n, a.reasons())
				}
				// The handshakes go round neither.
				before, n := sent.Load(), a.drops[packet.DropLoop].Load()
				a.Down()
				if err := a.Up(); err != nil {
					t.Fatal(err)
				}
				a.send(datagram(a.inner, b.inner, 11, 100))
				time.Sleep(10 * wire.RekeyTimeout)
				again, back := sent.Load()-before, a.drops[packet.DropLoop].Load()-n
				if again < 5 || again > 12 || back != uint64(again) {
					t.Errorf("in 50 s %d initiations were sent, %d of them dropped when they came back", again, back)
				}
				a.Close()
				if n := bytes.Count(said.Bytes(), []byte("routing loop")); n < 1 || n > 3 {
					t.Errorf("%d warnings in 50 s:\n%s", n, &said)
				}
				if !bytes.Contains(said.Bytes(), []byte("level=WARN")) || !bytes.Contains(said.Bytes(), []byte("firewall mark")) {
					t.Errorf("said:\n%s", &said)
				}
			})
		})
	}
}

// Other tunnels within ours go on, even one to the peer's very host and port.
func TestTunnelsWithinAreNoLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := newNode(t, net, 1), newNode(t, net, 2)
		b.knows(a)
		a.knows(b, func(pc *wgtypes.PeerConfig) { pc.AllowedIPs = prefixes("0.0.0.0/0") })
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
		kept := record(net, wire.TypeTransport)
		a.send(datagram(a.inner, b.inner, 2, 100))
		b.wants(datagram(a.inner, b.inner, 2, 100))
		ours := kept()[0]
		changed := func(f func(d *udptest.Datagram)) []byte {
			d := ours
			d.Data = slices.Clone(d.Data)
			d.From = netip.AddrPortFrom(a.inner, ours.From.Port()) // what b lets in
			f(&d)
			return asPacket(&d)
		}
		for what, p := range map[string][]byte{
			"another port":         changed(func(d *udptest.Datagram) { d.To = netip.AddrPortFrom(d.To.Addr(), 51821) }),
			"another host":         changed(func(d *udptest.Datagram) { d.To = netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), d.To.Port()) }),
			"another session":      changed(func(d *udptest.Datagram) { d.Data[wire.TransportReceiver]++ }),
			"another's initiation": changed(func(d *udptest.Datagram) { d.Data[0] = wire.TypeInitiation; d.Data[4]++ }),
			"no WireGuard":         changed(func(d *udptest.Datagram) { d.Data[0] = 200 }),
			"a few bytes":          changed(func(d *udptest.Datagram) { d.Data = d.Data[:9] }),
		} {
			a.send(p)
			t.Log(what)
			b.wants(p)
		}
		// And our own is one.
		a.send(changed(func(*udptest.Datagram) {}))
		b.wantsNothing(time.Second)
		if n := a.drops[packet.DropLoop].Load(); n != 1 {
			t.Errorf("%d were dropped as going in a loop, want 1", n)
		}
	})
}
