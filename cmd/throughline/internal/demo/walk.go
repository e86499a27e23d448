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
	stepRead    = iota // the call that reads it from the TUN
	stepSeal           // from there to the socket: it is routed, gets its counter, is sealed, and waits for its turn
	stepSend           // the call that sends it
	stepReceive        // the call that receives it
	stepOpen           // from there to the TUN: its session is found, it is opened and checked, and waits for its turn
	stepDeliver        // the call that writes it to the TUN; a user-space stack does its TCP in that call
	numSteps
)

var stepNames = [numSteps]string{
	stepRead: "read", stepSeal: "route and seal", stepSend: "send",
	stepReceive: "receive", stepOpen: "open and check", stepDeliver: "deliver",
}

// A walk is the times of the steps in one direction. It is safe for concurrent use.
type walk struct {
	steps                  [numSteps]tally
	initiations, responses atomic.Uint64 // handshake messages sent in this direction
}

// A tally adds up the times of one step.
type tally struct{ batches, packets, nanos atomic.Uint64 }

func (t *tally) add(packets int, d time.Duration) {
	t.batches.Add(1)
	t.packets.Add(uint64(packets))
	t.nanos.Add(uint64(d))
}

// A Step is what one step of a walk took: Nanos nanoseconds for Batches batches with Packets packets in all. Calls of "read"
// and "receive" are timed only when more was known to be there, as others wait for it first.
type Step struct {
	Name    string `json:"name"`
	Batches uint64 `json:"batches"`
	Packets uint64 `json:"packets"`
	Nanos   uint64 `json:"ns"`
}

// snapshot returns the steps so far.
func (w *walk) snapshot() (s [numSteps]Step) {
	for i := range s {
		t := &w.steps[i]
		s[i] = Step{stepNames[i], t.batches.Load(), t.packets.Load(), t.nanos.Load()}
	}
	return s
}

var begun = time.Now()

// clock is the time since the program began.
func clock() time.Duration { return time.Since(begun) }

// A meter times the batches that go through one peer's TUN and sockets. It allocates once for each batch object, as these
// are used again.
type meter struct {
	out, in *walk    // of what the peer sends, and of what it receives
	marks   sync.Map // *packet.Batch to *mark: when it was read or received
}

// A mark is the moment at which its batch was read or received. It belongs to the goroutine that has the batch.
type mark struct{ at time.Duration }

// set records when b was read or received.
func (m *meter) set(b *packet.Batch, at time.Duration) {
	v, ok := m.marks.Load(b)
	if !ok {
		v, _ = m.marks.LoadOrStore(b, new(mark))
	}
	v.(*mark).at = at
}

// since returns how long ago that was, or false for a batch that was neither read nor received.
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

// A timedTUN is a TUN whose queues are timed.
type timedTUN struct {
	tun.Device
	queues []tun.Queue
}

// Queues implements [tun.Device].
func (t *timedTUN) Queues() []tun.Queue { return t.queues }

// A timedQueue is a queue that is timed.
type timedQueue struct {
	inner tun.Queue
	m     *meter
	more  bool // used by Read: the queue is known to hold more
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

// A timedNetwork is a network whose sockets are timed.
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

// A timedConn is a Conn that is timed.
type timedConn struct {
	udp.Conn
	m         *meter
	receivers []udp.Receiver
}

// Receivers implements [udp.Conn].
func (c *timedConn) Receivers() []udp.Receiver { return c.receivers }

// Send implements [udp.Conn]. A batch that wasn't read from the TUN has a handshake message, a keepalive, or packets that
// were staged, and isn't timed.
func (c *timedConn) Send(b *packet.Batch) error {
	from := clock()
	d, ok := c.m.since(b, from)
	if !ok {
		c.m.out.unread(b)
		return c.Conn.Send(b)
	}
	n := datagrams(b)
	c.m.out.steps[stepSeal].add(n, d)
	err := c.Conn.Send(b)
	c.m.out.steps[stepSend].add(n, clock()-from)
	return err
}

// unread counts handshake messages in a batch that wasn't read from the TUN; each is alone in its batch. The first byte is
// the type: whitepaper §5.4.2, §5.4.3.
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

// datagrams returns how many datagrams b sends.
func datagrams(b *packet.Batch) (n int) {
	for i := range b.Runs {
		n += b.Runs[i].N
	}
	return n
}

// A timedReceiver is a receiver that is timed.
type timedReceiver struct {
	inner udp.Receiver
	m     *meter
	more  bool // used by Receive: the socket is known to hold more
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
