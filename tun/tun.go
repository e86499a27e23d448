// Package tun is the inner side of a tunnel: a network interface whose packets this process reads and writes.
//
// A [Device] has one or more queues. A [Queue] moves whole batches: where the kernel offers TCP segmentation offload, a
// super-packet is read and split into the batch's slab, and packets of one flow are merged and written by one system
// call. A Device that isn't the kernel's (a user-space stack, a test's pipe) implements the same two interfaces.
//
// Concurrency: the methods of a Device may be called from any goroutine. A Queue has one reader and one writer at a time;
// the two may run beside each other.
//
// Ownership: a batch is borrowed until Read or Write returns. A device owns its queues, and Close ends them.
//
// Limits: a Read appends no more than its batch has room for, and waits for the first packet only.
package tun

import "throughline/packet"

// An Event is a set of things that happened to the interface.
type Event uint8

// Events.
const (
	Up   Event = 1 << iota // it was set up, or was up when the device was opened
	Down                   // it was set down
	MTU                    // its MTU changed; ask Device.MTU
)

// A Device is a network interface. Its methods are safe for concurrent use.
type Device interface {
	// Name returns the interface's present name; an administrator may rename it.
	Name() (string, error)

	// MTU returns the interface's maximum transmission unit in bytes.
	MTU() (int, error)

	// Queues returns the device's queues, one at least, always the same.
	Queues() []Queue

	// Events returns a channel of what happens to the interface, always the same one. It is closed when the device is
	// closed and when the interface is deleted; the daemon ends then.
	//
	// A device counts as down until it sends Up. One that is up when it is opened sends Up as its first event; one that
	// can't be set down, as it is in memory or in user space, is up from the start, and so is one that can't find out. So
	// following the events is all that is needed: no other call has to set up what is up already. Events that weren't
	// received yet are joined to one, in which the last of Up and Down replaces the other; a device never waits for its
	// reader.
	Events() <-chan Event

	// Close ends the device: the interface goes, a blocked Read returns os.ErrClosed, Events is closed. It may be
	// called more than once, from anywhere.
	Close() error
}

// A Queue is one ordered path in and out of a device.
type Queue interface {
	// Read appends to b, which the caller has reset, at least one packet unless it returns an error. It waits for the
	// first packet, and then appends what else is there without waiting, until b is full. Packets lie as Batch.Place lays
	// them. more says that the queue is known to hold more. One caller at a time.
	//
	// A packet too large or malformed for the kernel's own header is dropped, not an error. After Close, or when the
	// interface is gone, it returns an error that is os.ErrClosed.
	Read(b *packet.Batch) (more bool, err error)

	// Write delivers every live packet of b that is not empty, in order. Each packet must have packet.Headroom
	// free bytes before it in the slab; Write may overwrite those and the packets themselves. A packet that the kernel
	// refuses gets Drop DropTUN; the others are written. The error is for what concerns the whole queue: os.ErrClosed
	// after Close. One caller at a time; it may run beside Read.
	Write(b *packet.Batch) error
}
