package engine

import (
	"bytes"
	"encoding/binary"
	"io"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"throughline/internal/ipheader"
	"throughline/internal/mono"
	"throughline/internal/noise"
	"throughline/packet"
	"throughline/tun/tuntest"
	"throughline/udp/udptest"
	"throughline/wgtypes"
)

// A node is one end of a simulated tunnel: an engine between a TUN in memory and a host on a simulated network.
type node struct {
	*Engine
	t      *testing.T
	tun    *tuntest.Device
	host   *udptest.Host
	key    wgtypes.PrivateKey
	inner  netip.Addr // its address inside
	inner6 netip.Addr
	port   uint16
}

// simulatedClock returns a clock that begins now, at an hour: 0 stands for never.
func simulatedClock() func() mono.Time {
	began := time.Now()
	return func() mono.Time { return mono.Time(time.Since(began) + time.Hour) }
}

// newNode makes node number n, which is up, has a key, and no peers. It is closed when the test ends.
func newNode(t *testing.T, net *udptest.Net, n byte) *node {
	t.Helper()
	return newNodeWith(t, net, n, simulatedClock(), io.Discard)
}

// newNodeWith makes it with a clock of its own, and something that its engine writes to what it logs.
func newNodeWith(t *testing.T, net *udptest.Net, n byte, clock func() mono.Time, log io.Writer) *node {
	t.Helper()
	x := &node{
		t: t, tun: tuntest.New(1420), host: net.Host(netip.AddrFrom4([4]byte{192, 0, 2, n}), addr6("2001:db8::", n)),
		inner: netip.AddrFrom4([4]byte{10, 0, 0, n}), inner6: addr6("fd00::", n), port: 51820,
	}
	for i := range x.key {
		x.key[i] = n + byte(i)
	}
	x.key[0] &= 248
	x.key[31] = x.key[31]&127 | 64
	var err error
	x.Engine, err = New(Options{
		TUN: x.tun, Network: x.host, Clock: clock, Workers: 2,
		Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	x.configure(&wgtypes.Config{PrivateKey: &x.key, ListenPort: &x.port})
	if err := x.Up(); err != nil {
		t.Fatal(err)
	}
	return x
}

func addr6(prefix string, n byte) netip.Addr {
	a := netip.MustParseAddr(prefix).As16()
	a[15] = n
	return netip.AddrFrom16(a)
}

func (x *node) configure(c *wgtypes.Config) {
	x.t.Helper()
	if err := x.Configure(c); err != nil {
		x.t.Fatal(err)
	}
}

func (x *node) public() wgtypes.PublicKey {
	id, err := noise.NewIdentity(&x.key)
	if err != nil {
		x.t.Fatal(err)
	}
	return id.Public()
}

// outer returns where the node is.
func (x *node) outer() netip.AddrPort { return netip.AddrPortFrom(x.host.Addrs()[0], x.port) }

// knows makes y a peer of x; with an endpoint unless y is to send first.
func (x *node) knows(y *node, change ...func(*wgtypes.PeerConfig)) {
	x.t.Helper()
	to := y.outer()
	pc := wgtypes.PeerConfig{
		PublicKey: y.public(), Endpoint: &to,
		AllowedIPs: []netip.Prefix{netip.PrefixFrom(y.inner, 32), netip.PrefixFrom(y.inner6, 128)},
	}
	for _, f := range change {
		f(&pc)
	}
	x.configure(&wgtypes.Config{Peers: []wgtypes.PeerConfig{pc}})
}

func withoutEndpoint(pc *wgtypes.PeerConfig) { pc.Endpoint = nil }

func withKeepalive(d time.Duration) func(*wgtypes.PeerConfig) {
	return func(pc *wgtypes.PeerConfig) { pc.PersistentKeepalive = &d }
}

func withPreshared(b byte) func(*wgtypes.PeerConfig) {
	return func(pc *wgtypes.PeerConfig) { pc.PresharedKey = &wgtypes.PresharedKey{0: b} }
}

// pair makes two nodes that know each other.
func pair(t *testing.T, net *udptest.Net) (a, b *node) {
	t.Helper()
	a, b = newNode(t, net, 1), newNode(t, net, 2)
	a.knows(b)
	b.knows(a)
	return a, b
}

func (x *node) peer(y *node) *Peer {
	x.t.Helper()
	p := x.lookup(y.public())
	if p == nil {
		x.t.Fatal("no such peer")
	}
	return p
}

// datagram makes an IPv4 packet of the experimental protocol 253, with a number in it.
func datagram(from, to netip.Addr, seq uint32, size int) []byte {
	p := make([]byte, max(size, ipheader.IPv4Size+4))
	p[0], p[8], p[9] = 0x45, 64, 253
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], from.AsSlice())
	copy(p[16:], to.AsSlice())
	binary.BigEndian.PutUint32(p[ipheader.IPv4Size:], seq)
	for i := ipheader.IPv4Size + 4; i < len(p); i++ {
		p[i] = byte(seq) + byte(i)
	}
	return p
}

// datagram6 makes an IPv6 packet of the experimental protocol 253.
func datagram6(from, to netip.Addr, size int) []byte {
	p := make([]byte, max(size, ipheader.IPv6Size))
	p[0], p[6], p[7] = 0x60, 253, 64
	binary.BigEndian.PutUint16(p[4:], uint16(len(p)-ipheader.IPv6Size))
	copy(p[8:], from.AsSlice())
	copy(p[24:], to.AsSlice())
	return p
}

// send sends a packet out through the node's TUN.
func (x *node) send(p []byte) {
	x.t.Helper()
	if !x.tun.Outbound(p) {
		x.t.Fatal("the TUN is closed")
	}
}

// wants waits for a packet on the node's TUN, and checks that it is p.
func (x *node) wants(p []byte) {
	x.t.Helper()
	select {
	case got := <-x.tun.Inbound():
		if !bytes.Equal(got, p) {
			x.t.Fatalf("received % x\nwant     % x", got, p)
		}
	case <-time.After(time.Minute):
		x.t.Fatalf("no packet came; drops: %v", x.reasons())
	}
}

// wantsNothing checks that no packet comes for a while.
func (x *node) wantsNothing(d time.Duration) {
	x.t.Helper()
	select {
	case got := <-x.tun.Inbound():
		x.t.Fatalf("received % x, want nothing", got)
	case <-time.After(d):
	}
}

// received returns the numbers of the packets that came, in order.
func (x *node) received() (seqs []uint32) {
	for {
		select {
		case p := <-x.tun.Inbound():
			seqs = append(seqs, binary.BigEndian.Uint32(p[ipheader.IPv4Size:]))
		default:
			return seqs
		}
	}
}

// reasons returns why packets were dropped, for a failure's message.
func (x *node) reasons() map[string]uint64 {
	m := map[string]uint64{}
	for why := range x.drops {
		if n := x.drops[why].Load(); n > 0 {
			m[packet.Drop(why).String()] = n
		}
	}
	return m
}

// count counts the messages of a type that are sent from now on.
func count(net *udptest.Net, kind byte) func() int {
	var n atomic.Int64
	net.Hook(func(d *udptest.Datagram) bool {
		if len(d.Data) > 0 && d.Data[0] == kind {
			n.Add(1)
		}
		return true
	})
	return func() int { return int(n.Load()) }
}
