package demo

import (
	"sync"
	"sync/atomic"
	"time"

	"throughline/packet"
	"throughline/tun"
	"throughline/udp"
)

// The steps of a packet's walk, in order. The first three are the sender's, the others the receiver's.
const (
	stepRead    = iota // from the stack
	stepSeal           // from there to the socket: routed, numbered, sealed, and its turn awaited
	stepSend           // the socket's call
	stepReceive        // the socket's call
	stepOpen           // from there to the stack: session found, opened, replay and source checked, and its turn awaited
	stepDeliver        // to the stack, which does its TCP meanwhile
	numSteps
)

var stepNames = [numSteps]string{
	stepRead: "read", stepSeal: "route and seal", stepSend: "send",
	stepReceive: "receive", stepOpen: "open and check", stepDeliver: "deliver",
}

// A walk is the time that the steps of one direction took. It is safe for concurrent use.
type walk struct {
	steps                  [numSteps]tally
	initiations, responses atomic.Uint64 // sent in this direction
}

// A tally adds up one step.
type tally struct{ batches, packets, nanos atomic.Uint64 }

func (t *tally) add(packets int, d time.Duration) {
	t.batches.Add(1)
	t.packets.Add(uint64(packets))
	t.nanos.Add(uint64(d))
}

// A Step is what one step of a walk took: so many batches with so many packets together so many nanoseconds. Waiting
// for something to come is no work: "read" and "receive" are timed only when more was known to be there.
type Step struct {
	Name    string `json:"name"`
	Batches uint64 `json:"batches"`
	Packets uint64 `json:"packets"`
	Nanos   uint64 `json:"ns"`
}

func (w *walk) snapshot() (s [numSteps]Step) {
	for i := range s {
		t := &w.steps[i]
		s[i] = Step{stepNames[i], t.batches.Load(), t.packets.Load(), t.nanos.Load()}
	}
	return s
}

var begun = time.Now()

func clock() time.Duration { return time.Since(begun) }

// A meter times what goes through one peer's TUN and sockets. It allocates when it first meets a batch, never again.
type meter struct {
	out, in *walk
	marks   sync.Map // *packet.Batch to *mark: when it was read or received
}

// A mark belongs to the owner of its batch.
type mark struct{ at time.Duration }

// set remembers when b was read or received.
func (m *meter) set(b *packet.Batch, at time.Duration) {
	v, ok := m.marks.Load(b)
	if !ok {
		v, _ = m.marks.LoadOrStore(b, new(mark))
	}
	v.(*mark).at = at
}

// since returns how long ago that was; false for a batch that was neither read nor received.
func (m *meter) since(b *packet.Batch, now time.Duration) (time.Duration, bool) {
	v, ok := m.marks.Load(b)
	if !ok {
		return 0, false
	}
	return now - v.(*mark).at, true
}

// device returns d with its queues timed.
func (m *meter) device(d tun.Device) tun.Device {
	t := &timedTUN{Device: d}
	for _, q := range d.Queues() {
		t.queues = append(t.queues, &timedQueue{inner: q, m: m})
	}
	if o, ok := d.(tun.Offloader); ok {
		return struct {
			*timedTUN
			offloads
		}{t, o}
	}
	return t
}

// offloads is what tun.Offloader adds to a Device.
type offloads interface{ Offloads() packet.OffloadStates }

type timedTUN struct {
	tun.Device
	queues []tun.Queue
}

// Queues implements [tun.Device].
func (t *timedTUN) Queues() []tun.Queue { return t.queues }

type timedQueue struct {
	inner tun.Queue
	m     *meter
	more  bool // Read's own: the last one left something
}

// Read implements [tun.Queue].
func (q *timedQueue) Read(b *packet.Batch) (bool, error) {
	timed, from := q.more, clock()
	more, err := q.inner.Read(b)
	now := clock()
	q.more = more && err == nil
	if err != nil {
		return more, err
	}
	if timed {
		q.m.out.steps[stepRead].add(len(b.Packets), now-from)
	}
	q.m.set(b, now)
	return more, nil
}

// Write implements [tun.Queue].
func (q *timedQueue) Write(b *packet.Batch) error {
	n := 0
	for i := range b.Packets {
		if p := &b.Packets[i]; p.Drop == 0 && p.Len > 0 {
			n++
		}
	}
	from := clock()
	if d, ok := q.m.since(b, from); ok {
		q.m.in.steps[stepOpen].add(n, d)
	}
	err := q.inner.Write(b)
	q.m.in.steps[stepDeliver].add(n, clock()-from)
	return err
}

// network returns n with its sockets timed.
func (m *meter) network(n udp.Network) udp.Network { return &timedNetwork{n, m} }

type timedNetwork struct {
	inner udp.Network
	m     *meter
}

// Listen implements [udp.Network].
func (n *timedNetwork) Listen(port uint16) (udp.Conn, error) {
	c, err := n.inner.Listen(port)
	if err != nil {
		return nil, err
	}
	t := &timedConn{Conn: c, m: n.m}
	for _, r := range c.Receivers() {
		t.receivers = append(t.receivers, &timedReceiver{inner: r, m: n.m})
	}
	if o, ok := c.(udp.Offloader); ok {
		return struct {
			*timedConn
			udp.Offloader
		}{t, o}, nil
	}
	return t, nil
}

type timedConn struct {
	udp.Conn
	m         *meter
	receivers []udp.Receiver
}

// Receivers implements [udp.Conn].
func (c *timedConn) Receivers() []udp.Receiver { return c.receivers }

// Send implements [udp.Conn]. What wasn't read from the TUN is a handshake message, a keepalive, or was staged, and is
// no part of the walk.
func (c *timedConn) Send(b *packet.Batch) error {
	from := clock()
	d, ok := c.m.since(b, from)
	if !ok {
		c.m.out.unread(b)
		return c.Conn.Send(b)
	}
	n := runLength(b)
	c.m.out.steps[stepSeal].add(n, d)
	err := c.Conn.Send(b)
	c.m.out.steps[stepSend].add(n, clock()-from)
	return err
}

// unread counts handshake messages. They go by themselves. Whitepaper §5.4.2, §5.4.3: the first byte is the type.
func (w *walk) unread(b *packet.Batch) {
	if len(b.Packets) == 0 || b.Packets[0].Len == 0 {
		return
	}
	switch b.Bytes(0)[0] {
	case 1:
		w.initiations.Add(1)
	case 2:
		w.responses.Add(1)
	}
}

func runLength(b *packet.Batch) (n int) {
	for i := range b.Runs {
		n += b.Runs[i].N
	}
	return n
}

type timedReceiver struct {
	inner udp.Receiver
	m     *meter
	more  bool // Receive's own: the last one left something
}

// Receive implements [udp.Receiver].
func (r *timedReceiver) Receive(b *packet.Batch) (bool, error) {
	timed, from := r.more, clock()
	more, err := r.inner.Receive(b)
	now := clock()
	r.more = more && err == nil
	if err != nil {
		return more, err
	}
	if timed {
		r.m.in.steps[stepReceive].add(len(b.Packets), now-from)
	}
	r.m.set(b, now)
	return more, nil
}
