// Package tuntest is a TUN in memory, for tests: what a test sends out the engine reads, and what the engine writes the
// test receives.
//
// It is made of channels alone, so that it works in a testing/synctest bubble, and it is bounded: a full device makes
// Outbound wait and drops what is written. A Device is safe for concurrent use; packets are copied on their way in and
// out, so that nothing is borrowed.
package tuntest

import (
	"fmt"
	"os"
	"sync"

	"throughline/packet"
	"throughline/tun"
)

// Depth is how many packets a [Device] holds in each direction.
const Depth = 1024

var errClosed = fmt.Errorf("tuntest: %w", os.ErrClosed)

// A Device is a [tun.Device] with one queue and no offloads. It begins up: its first event is [tun.Up], unless SetUp sets
// it down before that was received.
type Device struct {
	q      queue
	events chan tun.Event

	mu     sync.Mutex // guards what follows, and sending to events and inbound
	name   string
	mtu    int
	up     bool
	closed bool
}

var _ tun.Device = (*Device)(nil)

type queue struct {
	d        *Device
	outbound chan []byte
	inbound  chan []byte
	held     []byte // a packet that the last batch had no room for
	done     chan struct{}
}

// New returns a device named "test0", with an MTU of mtu bytes.
func New(mtu int) *Device {
	d := &Device{events: make(chan tun.Event, 1), name: "test0", mtu: mtu, up: true}
	d.events <- tun.Up
	d.q = queue{d: d, outbound: make(chan []byte, Depth), inbound: make(chan []byte, Depth), done: make(chan struct{})}
	return d
}

// Outbound sends p out through the device, as a program on the host does. It waits for room, and reports false when the
// device is closed instead.
func (d *Device) Outbound(p []byte) bool {
	select {
	case <-d.q.done:
		return false
	default:
	}
	select {
	case d.q.outbound <- append([]byte(nil), p...):
		return true
	case <-d.q.done:
		return false
	}
}

// Inbound returns the channel of what is written to the device, always the same one. It is closed with the device, after
// what was written before. While it holds [Depth] packets more are dropped, marked [packet.DropTUN].
func (d *Device) Inbound() <-chan []byte { return d.q.inbound }

// SetUp sets the device up or down; it only sends the event, and packets pass in either state.
func (d *Device) SetUp(up bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.up == up {
		return
	}
	d.up = up
	if up {
		d.send(tun.Up)
	} else {
		d.send(tun.Down)
	}
}

// SetMTU changes the MTU.
func (d *Device) SetMTU(mtu int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mtu != mtu {
		d.mtu = mtu
		d.send(tun.MTU)
	}
}

// SetName renames the device.
func (d *Device) SetName(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.name = name
}

// send sends e together with what wasn't received yet. The lock is held.
func (d *Device) send(e tun.Event) {
	if d.closed {
		return
	}
	select {
	case old := <-d.events:
		if e&(tun.Up|tun.Down) != 0 {
			old &^= tun.Up | tun.Down
		}
		e |= old
	default:
	}
	d.events <- e
}

// Name implements [tun.Device].
func (d *Device) Name() (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return "", errClosed
	}
	return d.name, nil
}

// MTU implements [tun.Device].
func (d *Device) MTU() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return 0, errClosed
	}
	return d.mtu, nil
}

// Queues implements [tun.Device].
func (d *Device) Queues() []tun.Queue { return []tun.Queue{&d.q} }

// Events implements [tun.Device].
func (d *Device) Events() <-chan tun.Event { return d.events }

// Close implements [tun.Device]. For the engine it is also how an interface's deletion looks.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.closed = true
		close(d.q.done)
		close(d.events)
		close(d.q.inbound)
	}
	return nil
}

// Read implements [tun.Queue].
func (q *queue) Read(b *packet.Batch) (more bool, err error) {
	select {
	case <-q.done:
		return false, errClosed
	default:
	}
	p := q.held
	if p == nil {
		select {
		case p = <-q.outbound:
		case <-q.done:
			return false, errClosed
		}
	}
	q.held = nil
	for n := 0; ; n++ {
		if !b.Append(p) {
			if n == 0 {
				return false, fmt.Errorf("tuntest: read: a packet of %d bytes doesn't fit into an empty batch", len(p))
			}
			q.held = p
			return true, nil
		}
		select {
		case p = <-q.outbound:
		default:
			return false, nil
		}
	}
}

// Write implements [tun.Queue].
func (q *queue) Write(b *packet.Batch) error {
	q.d.mu.Lock()
	defer q.d.mu.Unlock()
	if q.d.closed {
		return errClosed
	}
	for i := range b.Packets {
		p := &b.Packets[i]
		if p.Drop != 0 || p.Len == 0 {
			continue
		}
		select {
		case q.inbound <- append([]byte(nil), b.Bytes(i)...):
		default:
			p.Drop = packet.DropTUN
		}
	}
	return nil
}
