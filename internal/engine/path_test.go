package engine

import (
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"throughline/internal/aead"
	"throughline/internal/ipheader"
	"throughline/internal/mono"
	"throughline/internal/session"
	"throughline/internal/wire"
	"throughline/packet"
	"throughline/tun/tuntest"
	"throughline/udp"
	"throughline/wgtypes"
)

// The packet path by itself, stage by stage, between ends that do nothing.

// A scripted source gives the same packets again and again, on either side.
type scripted struct {
	packets  [][]byte // for Read
	twin     *session.Keypair
	from     packet.Endpoint
	sent     int
	received int
}

// Read implements tun.Queue.
func (s *scripted) Read(b *packet.Batch) (bool, error) {
	for _, p := range s.packets {
		b.Append(p)
	}
	return false, nil
}

// Write implements tun.Queue.
func (s *scripted) Write(b *packet.Batch) error {
	for i := range b.Packets {
		if p := &b.Packets[i]; p.Drop == 0 && p.Len > 0 {
			s.received++
		}
	}
	return nil
}

// Receive implements udp.Receiver: the packets, sealed by the other end with fresh counters, as one train.
func (s *scripted) Receive(b *packet.Batch) (bool, error) {
	first, _ := s.twin.Reserve(len(s.packets))
	for i, p := range s.packets {
		b.Append(p)
		b.Packets[i].SetCounter(first + uint64(i))
	}
	s.twin.Seal(b.Slab, b.Packets, 0)
	for i := range b.Packets {
		b.Packets[i].SetCounter(0)
	}
	b.Runs = append(b.Runs, packet.Run{N: len(b.Packets), Endpoint: s.from})
	return false, nil
}

// A nullConn takes what is sent. It is a udp.Network too, which opens itself.
type nullConn struct {
	*scripted
	closed chan struct{}
}

func (c *nullConn) Listen(uint16) (udp.Conn, error) {
	return &nullConn{c.scripted, make(chan struct{})}, nil
}
func (c *nullConn) Port() uint16               { return 1 }
func (c *nullConn) Receivers() []udp.Receiver  { return nil }
func (c *nullConn) SetMark(uint32) error       { return nil }
func (c *nullConn) Close() error               { return nil }
func (c *nullConn) Send(b *packet.Batch) error { c.sent += len(b.Packets); return nil }

// A halfConn lacks an address family.
type halfConn struct{ nullConn }

func (c *halfConn) Listen(uint16) (udp.Conn, error) { return c, nil }
func (c *halfConn) MissingFamily() error            { return errors.New("IPv6 is broken") }

// An address family that has no socket is logged whenever sockets are opened.
func TestLacksAreLogged(t *testing.T) {
	var log strings.Builder
	e, err := New(Options{
		TUN: tuntest.New(1420), Network: &halfConn{}, Clock: simulatedClock(),
		Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for i := range 2 {
		if err := e.Up(); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(log.String(), "IPv6 is broken"); n != i+1 {
			t.Errorf("logged %d times, want %d: %s", n, i+1, log.String())
		}
		e.Down()
	}
}

// newPath makes an engine that is up, with one peer that has a session, and the ends of its path.
func newPath(t testing.TB, packets ...[]byte) (*Engine, *scripted, *outbound, *inbound) {
	t.Helper()
	s := &scripted{packets: packets, from: packet.Endpoint{Addr: netip.MustParseAddrPort("192.0.2.2:51820")}}
	now := mono.Time(time.Hour)
	e, err := New(Options{
		TUN: tuntest.New(1420), Network: &nullConn{scripted: s}, Clock: func() mono.Time { return now },
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Workers: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	if err := e.Configure(&wgtypes.Config{
		PrivateKey: &wgtypes.PrivateKey{0: 8, 31: 64},
		Peers: []wgtypes.PeerConfig{{
			PublicKey: [wire.KeySize]byte{1}, Endpoint: &s.from.Addr,
			AllowedIPs: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
		}},
	}); err != nil {
		t.Fatal(err)
	}
	if err := e.Up(); err != nil {
		t.Fatal(err)
	}
	p := e.order[0]
	k1, k2 := [wire.KeySize]byte{1}, [wire.KeySize]byte{2}
	r := &indexEntry{peer: p}
	index := e.indices.Insert(r)
	kp := session.New(aead.Best(), &k1, &k2, index, 2, true, now)
	s.twin = session.New(aead.Best(), &k2, &k1, 2, index, false, now)
	if !e.installKeypair(p, &indexEntry{peer: p, keypair: kp}, now, session.Keypairs.Initiated) {
		t.Fatal("the session was not installed")
	}
	p.Waiting.Store(false)
	return e, s, &outbound{e: e, queue: s}, &inbound{e: e, receiver: s}
}

func fullTrain(from, to string) (train [][]byte) {
	for i := range uint32(45) {
		train = append(train, datagram(netip.MustParseAddr(from), netip.MustParseAddr(to), i, 1420))
	}
	return train
}

func TestOutboundAllocatesNothing(t *testing.T) {
	_, s, out, _ := newPath(t, fullTrain("10.0.0.1", "10.0.0.2")...)
	b := newOutBatch()
	walk := func() {
		if _, _, err := out.Take(b); err != nil {
			t.Fatal(err)
		}
		out.Work(b)
		out.Emit(b)
	}
	walk()
	before := s.sent
	if n := testing.AllocsPerRun(100, walk); n != 0 {
		t.Errorf("%v allocations for 45 packets", n)
	}
	if got := s.sent - before; got != 101*45 {
		t.Errorf("%d packets were sent, want %d: the test measures nothing", got, 101*45)
	}
}

func TestOutboundToManyPeersAllocatesNothing(t *testing.T) {
	var mixed [][]byte
	for i := range uint32(64) {
		mixed = append(mixed, datagram(netip.MustParseAddr("10.0.0.1"), netip.AddrFrom4([4]byte{10, 0, byte(i % 3), 2}), i, 128))
	}
	e, s, out, _ := newPath(t, mixed...)
	to := s.from.Addr
	for i := range byte(2) {
		if err := e.Configure(&wgtypes.Config{Peers: []wgtypes.PeerConfig{{
			PublicKey: [wire.KeySize]byte{50 + i}, Endpoint: &to,
			AllowedIPs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, i, 0}), 24)},
		}}}); err != nil {
			t.Fatal(err)
		}
		k := [wire.KeySize]byte{i}
		p := e.lookup([wire.KeySize]byte{50 + i})
		index := e.indices.Insert(&indexEntry{peer: p})
		if !e.installKeypair(p, &indexEntry{peer: p, keypair: session.New(aead.Best(), &k, &k, index, 9, true, e.clock())}, e.clock(), session.Keypairs.Initiated) {
			t.Fatal("the session was not installed")
		}
		p.Waiting.Store(false)
	}
	b := newOutBatch()
	walk := func() {
		if _, _, err := out.Take(b); err != nil {
			t.Fatal(err)
		}
		if len(b.trains) != 3 {
			t.Fatalf("%d trains for 3 peers", len(b.trains))
		}
		out.Work(b)
		out.Emit(b)
	}
	walk()
	if n := testing.AllocsPerRun(100, walk); n != 0 {
		t.Errorf("%v allocations for 64 packets", n)
	}
}

func TestInboundAllocatesNothing(t *testing.T) {
	e, s, _, in := newPath(t, fullTrain("10.0.0.2", "10.0.0.1")...)
	e.sink = s
	b := newInBatch()
	walk := func() {
		if _, _, err := in.Take(b); err != nil {
			t.Fatal(err)
		}
		in.Work(b)
		in.Emit(b)
	}
	walk()
	before := s.received
	if n := testing.AllocsPerRun(100, walk); n != 0 {
		t.Errorf("%v allocations for 45 packets", n)
	}
	if got := s.received - before; got != 101*45 {
		t.Errorf("%d packets were delivered, want %d: the test measures nothing", got, 101*45)
	}
}

// A train that the wire put out of order is delivered in order.
func TestTrainsArriveInTheOrderTheyWereSent(t *testing.T) {
	e, s, _, in := newPath(t, fullTrain("10.0.0.2", "10.0.0.1")...)
	var got []uint32
	e.sink = writing(func(b *packet.Batch) {
		for i := range b.Packets {
			if p := &b.Packets[i]; p.Drop == 0 && p.Len > 0 {
				got = append(got, binary.BigEndian.Uint32(b.Bytes(i)[ipheader.IPv4Size:]))
			}
		}
	})
	in.receiver = failing(func(b *packet.Batch) (bool, error) {
		more, err := s.Receive(b)
		for i := 0; i+7 < len(b.Packets); i += 8 { // what lies where stays; which comes first changes
			b.Packets[i], b.Packets[i+7] = b.Packets[i+7], b.Packets[i]
		}
		return more, err
	})
	b := newInBatch()
	if _, _, err := in.Take(b); err != nil {
		t.Fatal(err)
	}
	in.Work(b)
	in.Emit(b)
	if len(got) != 45 || !slices.IsSorted(got) {
		t.Errorf("delivered: %v", got)
	}
}

// writing is a tun.Queue that gives what is written to f.
type writing func(*packet.Batch)

func (f writing) Read(*packet.Batch) (bool, error) { return false, os.ErrClosed }
func (f writing) Write(b *packet.Batch) error      { f(b); return nil }

// FuzzDatagrams lets anything arrive at an engine with a live session.
func FuzzDatagrams(f *testing.F) {
	for _, size := range []int{0, 1, 31, 32, 33, wire.InitiationSize, wire.ResponseSize, wire.CookieReplySize, 200} {
		for kind := range byte(6) {
			d := make([]byte, size)
			if size > 0 {
				d[0] = kind
			}
			f.Add(d, uint16(0))
		}
	}
	e, s, _, in := newPath(f)
	e.sink = s
	index := e.order[0].Keypairs.Current.LocalIndex
	in.receiver = arriving(func(b *packet.Batch) {})
	b := newInBatch()
	f.Fuzz(func(t *testing.T, data []byte, size uint16) {
		if len(data) >= 8 && data[0] == wire.TypeTransport && data[4]&1 == 0 {
			binary.LittleEndian.PutUint32(data[4:], index) // a hit, half the time
		}
		in.receiver = arriving(func(b *packet.Batch) {
			_, free := b.Free()
			b.Received(copy(free, data), int(size), s.from)
		})
		before := s.received
		if _, _, err := in.Take(b); err != nil {
			t.Fatal(err)
		}
		in.Work(b)
		in.Emit(b)
		if s.received != before {
			t.Fatal("a packet without a valid tag was delivered")
		}
	})
}

// FuzzPackets lets anything come out of the TUN.
func FuzzPackets(f *testing.F) {
	f.Add([]byte{}, []byte{0x45})
	f.Add(datagram(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 1, 60), []byte{0x60})
	f.Add(datagram6(addr6("fd00::", 1), addr6("fd00::", 2), 60), make([]byte, 1420))
	_, s, out, _ := newPath(f)
	b := newOutBatch()
	f.Fuzz(func(t *testing.T, p, q []byte) {
		s.packets = [][]byte{p, q, p}
		if _, _, err := out.Take(b); err != nil {
			t.Fatal(err)
		}
		laid := len(b.Packets)
		out.Work(b)
		out.Emit(b)
		if len(b.Packets) != laid {
			t.Fatal("packets were lost")
		}
	})
}

// arriving is a udp.Receiver of what f puts into a batch.
type arriving func(*packet.Batch)

func (f arriving) Receive(b *packet.Batch) (bool, error) { f(b); return false, nil }

// A receiver that fails for a while goes on; only net.ErrClosed ends it.
func TestReceiverSurvives(t *testing.T) {
	e, s, _, in := newPath(t, fullTrain("10.0.0.2", "10.0.0.1")...)
	e.sink = s
	failures := 0
	in.receiver = failing(func(b *packet.Batch) (bool, error) {
		if failures++; failures <= 3 {
			return false, os.NewSyscallError("recvmsg", os.ErrPermission)
		}
		return s.Receive(b)
	})
	b := newInBatch()
	if _, _, err := in.Take(b); err != nil || len(b.trains) != 1 {
		t.Errorf("after failures: %d trains, %v", len(b.trains), err)
	}
	in.receiver = failing(func(*packet.Batch) (bool, error) { return false, net.ErrClosed })
	if _, _, err := in.Take(b); err != net.ErrClosed {
		t.Errorf("a closed socket: %v", err)
	}
}

type failing func(*packet.Batch) (bool, error)

func (f failing) Receive(b *packet.Batch) (bool, error) { return f(b) }
