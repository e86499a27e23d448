package demo

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"throughline/packet"
	"throughline/tun"
	"throughline/udp"
)

// A slow is a TUN queue, a socket and a receiver; each kind of call takes another time.
type slow struct {
	tun.Device // nil
	packets    int
	more       bool
	err        error
}

func (s *slow) bring(b *packet.Batch, d time.Duration) (bool, error) {
	time.Sleep(d) // in simulated time
	if s.err != nil {
		return false, s.err
	}
	for range s.packets {
		b.Append(make([]byte, 100))
	}
	b.Runs = append(b.Runs, packet.Run{N: s.packets})
	return s.more, nil
}

func (s *slow) Queues() []tun.Queue                   { return []tun.Queue{s} }
func (s *slow) Read(b *packet.Batch) (bool, error)    { return s.bring(b, 10) }
func (s *slow) Write(*packet.Batch) error             { time.Sleep(20 * time.Nanosecond); return nil }
func (s *slow) Listen(uint16) (udp.Conn, error)       { return &slowConn{s}, s.err }
func (s *slow) Receive(b *packet.Batch) (bool, error) { return s.bring(b, 40) }

type slowConn struct{ s *slow }

func (c *slowConn) Port() uint16               { return 1 }
func (c *slowConn) Receivers() []udp.Receiver  { return []udp.Receiver{c.s} }
func (c *slowConn) Send(b *packet.Batch) error { time.Sleep(80 * time.Nanosecond); return nil }
func (c *slowConn) SetMark(uint32) error       { return nil }
func (c *slowConn) Close() error               { return nil }

func metered(s *slow) (*meter, tun.Queue, udp.Conn, udp.Receiver, error) {
	m := &meter{out: new(walk), in: new(walk)}
	c, err := m.network(s).Listen(0)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	return m, m.device(s).Queues()[0], c, c.Receivers()[0], nil
}

// TestWalkIsTimed moves batches out and in, in simulated time, and checks the times of each step.
func TestWalkIsTimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{packets: 3, more: true}
		m, q, c, r, err := metered(s)
		if err != nil {
			t.Fatal(err)
		}
		out, in := packet.New(), packet.New()
		for range 3 {
			out.Reset()
			if more, err := q.Read(out); err != nil || !more {
				t.Fatal(more, err)
			}
			time.Sleep(5 * time.Nanosecond) // sealing
			if err := c.Send(out); err != nil {
				t.Fatal(err)
			}
			in.Reset()
			if more, err := r.Receive(in); err != nil || !more {
				t.Fatal(more, err)
			}
			time.Sleep(7 * time.Nanosecond) // opening
			in.Packets[0].Drop = packet.DropTag
			in.Packets[1].Len = 0 // a keepalive
			if err := q.Write(in); err != nil {
				t.Fatal(err)
			}
		}
		// The first Read and the first Receive may have waited: they aren't timed.
		want := [numSteps]Step{
			{"read", 2, 6, 20}, {"route and seal", 3, 9, 15}, {"send", 3, 9, 240}, {}, {}, {},
		}
		got := m.out.snapshot()
		for i := range stepReceive {
			if got[i] != want[i] {
				t.Errorf("out: %+v, want %+v", got[i], want[i])
			}
		}
		want = [numSteps]Step{{}, {}, {}, {"receive", 2, 6, 80}, {"open and check", 3, 3, 21}, {"deliver", 3, 3, 60}}
		got = m.in.snapshot()
		for i := stepReceive; i < numSteps; i++ {
			if got[i] != want[i] {
				t.Errorf("in: %+v, want %+v", got[i], want[i])
			}
		}
	})
}

// TestUnread checks that handshake messages are counted and not timed, and that errors are returned.
func TestUnread(t *testing.T) {
	s := &slow{packets: 1}
	m, q, c, r, err := metered(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []byte{1, 1, 2, 3, 4} {
		b := packet.New()
		b.Append([]byte{kind, 0, 0, 0})
		if err := c.Send(b); err != nil {
			t.Fatal(err)
		}
	}
	c.Send(packet.New())
	if i, r := m.out.initiations.Load(), m.out.responses.Load(); i != 2 || r != 1 {
		t.Errorf("%d initiations and %d responses, want 2 and 1", i, r)
	}
	s.err = errors.New("gone")
	if _, err := q.Read(packet.New()); err != s.err {
		t.Errorf("Read: %v", err)
	}
	if _, err := r.Receive(packet.New()); err != s.err {
		t.Errorf("Receive: %v", err)
	}
	if _, _, _, _, err := metered(s); err != s.err {
		t.Errorf("Listen: %v", err)
	}
	if got := m.out.snapshot(); got[stepSeal].Batches+got[stepSend].Batches+got[stepRead].Batches != 0 {
		t.Errorf("a batch that was never read was timed: %+v", got)
	}
}

// TestOffloadsShowThrough checks that a decorator is an Offloader if, and only if, what it decorates is one.
func TestOffloadsShowThrough(t *testing.T) {
	m := &meter{out: new(walk), in: new(walk)}
	c, err := m.network(&udp.Host{}).Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, ok := c.(udp.Offloader); !ok {
		t.Error("a host's socket has lost its offloads")
	}
	c, _ = m.network(&slow{}).Listen(0)
	if _, ok := c.(udp.Offloader); ok {
		t.Error("a socket without offloads has got some")
	}
	if _, ok := m.device(&slow{}).(tun.Offloader); ok {
		t.Error("a TUN without offloads has got some")
	}
	if _, ok := m.device(&offloading{}).(tun.Offloader); !ok {
		t.Error("a TUN has lost its offloads")
	}
}

type offloading struct{ slow }

func (*offloading) Offloads() packet.OffloadStates { return nil }

// A still is a slow whose calls take no time.
type still struct{ slow }

func (*still) Read(b *packet.Batch) (bool, error) { return true, nil }
func (*still) Write(*packet.Batch) error          { return nil }

func TestMeterAllocatesNothing(t *testing.T) {
	m := &meter{out: new(walk), in: new(walk)}
	q := &timedQueue{inner: &still{}, m: m}
	b := packet.New()
	b.Append(make([]byte, 100))
	q.Read(b)
	if n := testing.AllocsPerRun(100, func() {
		q.Read(b)
		q.Write(b)
	}); n != 0 {
		t.Errorf("%v allocations for a batch", n)
	}
}
