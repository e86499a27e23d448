// Package link joins gVisor's stack and a tunnel's batches: it is a link endpoint for the stack, and a tun.Queue for the
// tunnel.
//
// Read puts what gVisor sent straight into the batch, a super-packet as its segments: each byte is copied once and summed
// once. Write merges the segments of a flow, whose checksums offload.Merger verifies; gVisor verifies those of packets
// that couldn't be merged. Nothing is allocated for each packet except from gVisor's pools, and no goroutine is started.
//
// Over IPv6, where packets aren't fragmented on their way, datagrams larger than the path carries are sent as fragments; see
// paths.
//
// What gVisor sent waits for Read in a queue with two bounds; see send. Read has one caller at a time and so has Write; the
// two must be different goroutines. A packet of gVisor's is held by reference until Read has copied it.
package link

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"throughline/internal/wire"
	"throughline/packet"
	"throughline/tun"
	"throughline/tun/offload"
)

// Bounds of what gVisor has sent and the tunnel hasn't read.
const (
	waitBytes   = 512 << 10 // from either on, a sender that may wait does
	waitPackets = 512
	dropPackets = 4096 // from here on, a packet is dropped
)

var errClosed = fmt.Errorf("netstack: %w", os.ErrClosed)

// A Link is the network interface of a stack: Read returns what gVisor sends, and Write delivers packets to gVisor.
type Link struct {
	mtu     int
	gso     int // the bytes of payload in a super-packet, at most
	network atomic.Pointer[stack.NetworkDispatcher]

	// verified says that the checksums of the packet being delivered are right. gVisor asks for it by Capabilities, once for
	// each packet, in the call that delivers it; and only one goroutine delivers.
	verified atomic.Bool
	merger   offload.Merger

	mu      sync.Mutex // guards what follows
	filled  sync.Cond  // there is a packet, or the link is closed
	drained sync.Cond  // there is space for the sender that has waited longest, or the link is closed
	queue   ring
	bytes   int  // in queue
	idle    bool // Read waits for filled
	waiting int  // how many senders wait for drained
	closed  bool

	paths paths  // the path MTUs of destinations; Write learns them, Read uses them
	whole []byte // a packet that is being split into fragments; used by Read alone, as what follows

	taken           []*stack.PacketBuffer // what Read has taken from queue
	super           offload.Super
	remainder       []byte // what is left of a super-packet that a batch had no room for; its memory is used again
	remainderHeader offload.Header
}

var (
	_ stack.LinkEndpoint = (*Link)(nil)
	_ stack.GSOEndpoint  = (*Link)(nil)
	_ tun.Queue          = (*Link)(nil)
)

// tcpRoom is how many bytes of each IPv4 packet gVisor reserves for headers: it leaves space for the largest TCP options, but
// uses at most a timestamp, of so many bytes.
const (
	tcpRoom   = header.IPv4MinimumSize + header.TCPHeaderMaximumSize
	timestamp = 12
)

// New returns a link with an MTU in bytes.
func New(mtu int) *Link {
	// A super-packet's segments fill one super-packet of datagrams, all of one size, so that no segment in the midst of a
	// stream is short.
	payload := mtu - tcpRoom
	sent := packet.Headroom + wire.Padded(payload+header.IPv4MinimumSize+header.TCPMinimumSize+timestamp, mtu) + packet.Tailroom
	l := &Link{mtu: mtu, gso: max(1, packet.MaxSuperPacket/sent) * payload}
	l.filled.L, l.drained.L = &l.mu, &l.mu
	l.merger.TCP = true
	return l
}

// Chunk returns how many bytes should be written to a TCP connection at once: the payload of one super-packet, which is a
// whole number of segments.
func (l *Link) Chunk(v6 bool) int {
	if !v6 {
		return l.gso
	}
	payload := l.mtu - tcpRoom
	return l.gso / payload * (payload - (header.IPv6MinimumSize - header.IPv4MinimumSize))
}

// MTU implements stack.LinkEndpoint.
func (l *Link) MTU() uint32 { return uint32(l.mtu) }

// SetMTU implements stack.LinkEndpoint. Nobody calls it.
func (l *Link) SetMTU(uint32) {}

// MaxHeaderLength implements stack.LinkEndpoint: an interface of layer 3 has none.
func (l *Link) MaxHeaderLength() uint16 { return 0 }

// LinkAddress implements stack.LinkEndpoint.
func (l *Link) LinkAddress() tcpip.LinkAddress { return "" }

// SetLinkAddress implements stack.LinkEndpoint.
func (l *Link) SetLinkAddress(tcpip.LinkAddress) {}

// Capabilities implements stack.LinkEndpoint. With GSO the link computes the checksums of TCP data; gVisor computes the
// few others, as a link can't compute those of datagrams that gVisor fragments.
func (l *Link) Capabilities() stack.LinkEndpointCapabilities {
	if l.verified.Load() {
		return stack.CapabilityRXChecksumOffload
	}
	return 0
}

// Attach implements stack.LinkEndpoint.
func (l *Link) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		l.network.Store(nil)
		return
	}
	l.network.Store(&d)
}

// IsAttached implements stack.LinkEndpoint.
func (l *Link) IsAttached() bool { return l.network.Load() != nil }

// Wait implements stack.LinkEndpoint: there are no goroutines.
func (l *Link) Wait() {}

// ARPHardwareType implements stack.LinkEndpoint.
func (l *Link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }

// AddHeader implements stack.LinkEndpoint.
func (l *Link) AddHeader(*stack.PacketBuffer) {}

// ParseHeader implements stack.LinkEndpoint.
func (l *Link) ParseHeader(*stack.PacketBuffer) bool { return true }

// Close implements stack.LinkEndpoint.
func (l *Link) Close() { l.Shutdown() }

// SetOnCloseAction implements stack.LinkEndpoint.
func (l *Link) SetOnCloseAction(func()) {}

// SupportedGSO implements stack.GSOEndpoint.
func (l *Link) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }

// GSOMaxSize implements stack.GSOEndpoint. gVisor subtracts the largest headers and 1 to get the limit of the payload.
func (l *Link) GSOMaxSize() uint32 { return uint32(l.gso + header.TCPTotalHeaderMaximumSize + 1) }

// WritePackets implements stack.LinkWriter: gVisor sends. The packets are kept until Read has copied them.
func (l *Link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for i, p := range pkts.AsSlice() {
		if err := l.send(p); err != nil {
			return i, err
		}
	}
	return pkts.Len(), nil
}

// send queues a packet, waits for space if the sender may, and drops the packet if there is none.
func (l *Link) send(p *stack.PacketBuffer) tcpip.Error {
	// TCP data is sent by a program's goroutine or by one that works on this very connection: it may wait, even with the
	// connection locked. Everything else may come from the goroutine in Write. UDP has the bound of its socket's buffer,
	// from which packets are gone when Read has copied them.
	mayWait := p.GSOOptions.Type != stack.GSONone
	l.mu.Lock()
	defer l.mu.Unlock()
	if mayWait && (l.full() || l.waiting > 0) {
		l.waiting++
		for first := true; !l.closed && (first || l.full()); first = false {
			l.drained.Wait()
		}
		l.waiting--
	}
	switch {
	case l.closed:
		return &tcpip.ErrClosedForSend{}
	case l.queue.n >= dropPackets:
		return &tcpip.ErrNoBufferSpace{}
	}
	l.queue.push(p.IncRef())
	l.bytes += p.Size()
	if l.idle {
		l.idle = false
		l.filled.Signal()
	}
	l.wakeSender()
	return nil
}

// full reports whether senders that may wait must. The lock is held.
func (l *Link) full() bool { return l.bytes >= waitBytes || l.queue.n >= waitPackets }

// wakeSender wakes the sender that has waited longest, if there is space; that one will wake the next. The lock is held.
func (l *Link) wakeSender() {
	if l.waiting > 0 && !l.full() {
		l.drained.Signal()
	}
}

// Shutdown makes Read and senders return errors.
func (l *Link) Shutdown() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.filled.Broadcast()
	l.drained.Broadcast()
}

// Release releases the packets that nobody will read any more.
func (l *Link) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.queue.n > 0 {
		l.queue.pop().DecRef()
	}
	l.bytes = 0
}

// A ring is a queue of packets. Its memory grows as needed and never shrinks.
type ring struct {
	slots   []*stack.PacketBuffer // a power of two, or none
	head, n int
}

func (r *ring) push(p *stack.PacketBuffer) {
	if r.n == len(r.slots) {
		slots := make([]*stack.PacketBuffer, max(64, 2*r.n))
		for i := range r.n {
			slots[i] = r.slots[(r.head+i)&(len(r.slots)-1)]
		}
		r.slots, r.head = slots, 0
	}
	r.slots[(r.head+r.n)&(len(r.slots)-1)] = p
	r.n++
}

func (r *ring) peek() *stack.PacketBuffer { return r.slots[r.head] }

func (r *ring) pop() *stack.PacketBuffer {
	p := r.slots[r.head]
	r.slots[r.head] = nil
	r.head = (r.head + 1) & (len(r.slots) - 1)
	r.n--
	return p
}

// Write implements [tun.Queue]: it delivers packets from the tunnel to gVisor.
func (l *Link) Write(b *packet.Batch) error {
	d := l.network.Load()
	if d == nil {
		return errClosed
	}
	for _, w := range l.merger.Merge(b) {
		first := b.Bytes(w.First)
		proto := header.IPv4ProtocolNumber
		switch first[0] >> 4 {
		case 4:
		case 6:
			proto = header.IPv6ProtocolNumber
			if w.N == 1 && len(first) > nextHeader && first[nextHeader] == byte(header.ICMPv6ProtocolNumber) {
				l.paths.learn(first, time.Now())
			}
		default:
			b.Packets[w.First].Drop = packet.DropTUN
			continue
		}
		v := buffer.NewView(w.Len)
		v.Write(first)
		for i := l.merger.Next(w.First); i >= 0; i = l.merger.Next(i) {
			v.Write(b.Bytes(i)[w.Head:])
		}
		p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(v)})
		l.verified.Store(w.N > 1) // the Merger verified each of several packets, but not one alone
		(*d).DeliverNetworkPacket(proto, p)
		p.DecRef()
	}
	return nil
}
