// Package udp is the outer side of a tunnel: sockets that move batches of datagrams.
//
// A [Conn] is bound to one port in IPv4 and IPv6. It sends datagrams of one size to one endpoint as a super-packet where
// the kernel can (UDP_SEGMENT), receives coalesced datagrams (UDP_GRO), and where the kernel can't sends and receives
// them one by one. A test's network, or a transport that wraps datagrams, implements the same interfaces.
//
// Concurrency: the methods of a Conn may be called from any goroutine, Close while others wait. A [Receiver] has one caller
// at a time. Batches are borrowed for the length of a call.
//
// Limits: a Receive appends no more than its batch has room for. What a socket's own buffer has no room for, the kernel
// drops.
//
// On Linux its system calls are raw (syscall.RawSyscall), as the TUN's are: none of them waits, for the descriptors don't
// block, and the runtime needn't know of calls that don't. Other calls wake its monitor thread whenever the process was
// idle, which costs a single packet more than everything else on its path (measured: half of the processor time, a third
// of a ping's round trip).
package udp

import "throughline/packet"

// A Network opens sockets. The zero [Host] is the operating system's.
type Network interface {
	// Listen opens sockets on port in both families; 0 picks a port that is free in both. One family may be missing on
	// the host, or be refused; that both are is an error. A port in use is an error that wraps syscall.EADDRINUSE.
	//
	// A port that a Conn of the same Network holds is in use too. So to open sockets anew on their port, when the host has
	// moved to another network or an interface is gone, close the Conn first: when Close has returned the port is free,
	// though another process may take it before Listen does.
	Listen(port uint16) (Conn, error)
}

// A Partial is a [Conn] that may have no socket of one address family, as those of a [Host] may.
type Partial interface {
	// MissingFamily returns why there is no socket of an address family that the host has, or nil.
	MissingFamily() error
}

// A Conn is what Listen opened. Its methods are safe for concurrent use.
type Conn interface {
	// Port returns the port it is bound to.
	Port() uint16

	// Receivers returns one receiver for each family that is there, always the same.
	Receivers() []Receiver

	// Send sends the datagrams of each run to its endpoint, in order, leaving out the dropped. A datagram that can't be
	// sent gets Drop DropSend, and the others are sent; the error is the first such failure's. Send borrows b until it
	// returns.
	//
	// The endpoint's Src is the source while it is an address of this host. If it no longer is, the kernel chooses
	// another, and Send clears Src and SrcIf in the run's Endpoint, so that the caller can forget it too. SrcIf only says
	// to which link a link-local Src belongs; routes determine the link to send by.
	Send(b *packet.Batch) error

	// SetMark sets the firewall mark (on Linux SO_MARK) of what is sent; 0 takes it away. Where there are no marks, one
	// other than 0 is an error that wraps errors.ErrUnsupported, and changes nothing.
	SetMark(mark uint32) error

	// Close closes the sockets, and frees the port before it returns; blocked calls return net.ErrClosed. It may be called
	// more than once; only the first call waits for the port to be free.
	Close() error
}

// A Receiver receives the datagrams of one address family.
type Receiver interface {
	// Receive appends datagrams to b, which the caller has reset, at least one unless it returns an error: it waits for
	// the first, and then appends what else is there without waiting, until b is nearly full. more says that the socket
	// is known to hold more. One caller at a time.
	//
	// Only net.ErrClosed ends a receiver. After any other error the caller waits a little and calls again.
	Receive(b *packet.Batch) (more bool, err error)
}
