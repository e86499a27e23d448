// Package udptest is a simulated network for tests: hosts with addresses whose sockets implement [udp.Network] and
// [udp.Conn], and between them loss, delay, reordering, duplication, partitions, path MTUs, and a man in the middle.
//
// It opens no socket and has no goroutine of its own. All waiting is by the time package and sync.Cond, so that it runs
// in the fake time of a testing/synctest bubble; make the [Net] inside the bubble then. Chance comes from the seed
// alone: the same calls in the same order have the same fate. Everything is safe for concurrent use.
//
// It doesn't imitate fragmentation (what is larger than the path MTU is refused), ICMP, or a sender that waits: the
// queue of a socket is bounded, and drops when it is full.
package udptest

import (
	"cmp"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Options say what a network does to datagrams. The zero Options are a perfect network without delay.
type Options struct {
	Loss      float64       // the probability that a datagram is lost
	Duplicate float64       // that it is delivered twice
	Reorder   float64       // that it is held back for another Latency (at least a millisecond), so that others overtake it
	Latency   time.Duration // in one direction; with none, a datagram is there when Send returns
	Queue     int           // how many datagrams a socket holds for each family; further ones are dropped. 0: 1024
	NoGRO     bool          // receive each datagram by itself, never several as one super-packet
}

// A Datagram is what a hook sees, and may alter.
type Datagram struct {
	From, To netip.AddrPort // as they are on the wire
	Mark     uint32         // the sender's firewall mark
	Data     []byte         // its own copy
}

// Stats count the fates of datagrams.
type Stats struct {
	Sent       int // by hosts, injected ones included
	Delivered  int // into a socket's queue, duplicates included
	Lost       int // by chance
	Duplicated int // by chance
	Reordered  int // by chance
	Hooked     int // not let through by the hook
	Nowhere    int // no socket at the destination when they came, or a partition between
	Overflowed int // the socket's queue was full
}

// A Net is a simulated network.
type Net struct {
	o Options

	mu    sync.Mutex // guards all below, and the hosts' and sockets' fields
	rng   *rand.Rand
	hosts []*Host
	paths map[path]pathState
	hook  func(*Datagram) bool
	stats Stats
	queue flights // what is in flight, in order of delivery
	seq   uint64
	timer *time.Timer
}

type path struct{ a, b *Host } // both directions; the host made first comes first

type pathState struct {
	cut bool
	mtu int
}

// New returns a network without hosts.
func New(seed uint64, o Options) *Net {
	o.Queue = cmp.Or(o.Queue, 1024)
	return &Net{o: o, rng: rand.New(rand.NewPCG(seed, 0)), paths: make(map[path]pathState)}
}

// Host adds a host that has addrs; the first of each family is its source where none is asked for.
func (n *Net) Host(addrs ...netip.Addr) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := &Host{net: n, id: len(n.hosts), nextPort: 49152, conns: make(map[uint16]*conn)}
	n.hosts = append(n.hosts, h)
	h.setAddrs(addrs)
	return h
}

// Hook makes f see every datagram that is sent, before chance does its work. f may alter it, addresses too, and says
// whether it goes on. It is called by the sender, without a lock: it may call the network, and several senders call it
// at once. A nil f takes the hook away.
func (n *Net) Hook(f func(d *Datagram) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hook = f
}

// Inject sends d as if its From had: with the network's latency, but past the hook and without loss, duplication and
// reordering.
func (n *Net) Inject(d Datagram) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stats.Sent++
	d.Data = slices.Clone(d.Data)
	n.fly(d, n.o.Latency)
}

// Cut makes a partition between a and b: until Heal what they send each other is lost, without an error, and so is what
// is in flight.
func (n *Net) Cut(a, b *Host) { n.path(a, b, func(s *pathState) { s.cut = true }) }

// Heal undoes Cut.
func (n *Net) Heal(a, b *Host) { n.path(a, b, func(s *pathState) { s.cut = false }) }

// SetMTU sets the path MTU between a and b, outer headers included; 0: no bound. Send refuses what is larger with
// EMSGSIZE.
func (n *Net) SetMTU(a, b *Host, mtu int) { n.path(a, b, func(s *pathState) { s.mtu = mtu }) }

// Stats returns the counts so far.
func (n *Net) Stats() Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stats
}

func (n *Net) path(a, b *Host, change func(*pathState)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := pathOf(a, b)
	s := n.paths[p]
	change(&s)
	n.paths[p] = s
}

func pathOf(a, b *Host) path {
	if a.id > b.id {
		a, b = b, a
	}
	return path{a, b}
}

// at returns the host that has the address, or nil. Called with n.mu.
func (n *Net) at(a netip.Addr) *Host {
	a = a.WithZone("")
	for _, h := range n.hosts {
		if slices.ContainsFunc(h.addrs, func(b netip.Addr) bool { return b.WithZone("") == a }) {
			return h
		}
	}
	return nil
}

// send lets chance decide the fate of d. Called without n.mu.
func (n *Net) send(d Datagram) {
	n.mu.Lock()
	n.stats.Sent++
	hook := n.hook
	n.mu.Unlock()
	pass := hook == nil || hook(&d)
	n.mu.Lock()
	defer n.mu.Unlock()
	if !pass {
		n.stats.Hooked++
		return
	}
	// Always three draws: what happens to one datagram doesn't depend on what options the others met.
	lost, twice, late := n.rng.Float64() < n.o.Loss, n.rng.Float64() < n.o.Duplicate, n.rng.Float64() < n.o.Reorder
	if lost {
		n.stats.Lost++
		return
	}
	delay := n.o.Latency
	if late {
		n.stats.Reordered++
		delay += max(n.o.Latency, time.Millisecond)
	}
	n.fly(d, delay)
	if twice {
		n.stats.Duplicated++
		d.Data = slices.Clone(d.Data)
		n.fly(d, delay)
	}
}

// A flight is a datagram between two hosts.
type flight struct {
	at  time.Time
	seq uint64 // keeps the order of what is delivered at one moment
	d   Datagram
}

type flights []flight

func (f flights) Len() int { return len(f) }
func (f flights) Less(i, j int) bool {
	return cmp.Or(f[i].at.Compare(f[j].at), cmp.Compare(f[i].seq, f[j].seq)) < 0
}
func (f flights) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f *flights) Push(x any)   { *f = append(*f, x.(flight)) }
func (f *flights) Pop() any {
	last := len(*f) - 1
	x := (*f)[last]
	(*f)[last] = flight{}
	*f = (*f)[:last]
	return x
}

// fly delivers d after the delay. Called with n.mu.
func (n *Net) fly(d Datagram, delay time.Duration) {
	if delay <= 0 {
		n.deliver(d)
		return
	}
	n.seq++
	heap.Push(&n.queue, flight{time.Now().Add(delay), n.seq, d})
	n.setTimer()
}

// setTimer makes land be called when the first flight is due. Called with n.mu.
func (n *Net) setTimer() {
	if len(n.queue) == 0 {
		return
	}
	// Not 0: in a bubble the runtime would call land's starter at once, on this goroutine, and Go 1.26's race detector can
	// crash when another one does so at the same moment.
	wait := max(time.Until(n.queue[0].at), 1)
	if n.timer == nil {
		n.timer = time.AfterFunc(wait, n.land)
	} else {
		n.timer.Reset(wait)
	}
}

// land delivers all that are due, in order.
func (n *Net) land() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for now := time.Now(); len(n.queue) > 0 && !n.queue[0].at.After(now); {
		n.deliver(heap.Pop(&n.queue).(flight).d)
	}
	n.setTimer()
}

// deliver puts d into the queue of the socket it is for. Called with n.mu.
func (n *Net) deliver(d Datagram) {
	to, from := n.at(d.To.Addr()), n.at(d.From.Addr())
	if to == nil || from != nil && n.paths[pathOf(from, to)].cut {
		n.stats.Nowhere++
		return
	}
	var r *receiver
	if c := to.conns[d.To.Port()]; c != nil {
		r = c.receiver(d.To.Addr())
	}
	switch {
	case r == nil:
		n.stats.Nowhere++
	case len(r.queue) >= n.o.Queue:
		n.stats.Overflowed++
	default:
		n.stats.Delivered++
		r.queue = append(r.queue, d)
		r.ready.Signal()
	}
}

// checkAddr panics on addresses no host can have: the test is wrong.
func checkAddr(a netip.Addr) {
	if !a.IsValid() || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() {
		panic(fmt.Sprintf("udptest: BUG: no host can have the address %v", a))
	}
}
