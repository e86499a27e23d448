// Package names sends datagrams to names. A look-up holds up the datagrams to its own name only, and of those a few.
//
// All of it may be used by any number of goroutines. At most 64 names are known at a time; 8 are looked up, each by a
// goroutine that has ended when Close returns, while at most 4 datagrams wait for it. Any more are dropped.
package names

import (
	"context"
	"maps"
	"net/netip"
	"sync"
	"time"
)

const (
	maxNames   = 64
	maxLookups = 8
	maxWaiting = 4 // for each look-up

	lifetime = time.Minute      // of an address, until it is asked for again
	pause    = 5 * time.Second  // after a failure
	timeout  = 20 * time.Second // of a look-up: for two servers, each asked for 10 s in all
)

// Names are those that one sender of datagrams uses.
type Names struct {
	lookup  func(ctx context.Context, host string) ([]netip.Addr, error)
	send    func(data []byte, to netip.AddrPort)
	drop    func(datagrams int)
	ctx     context.Context
	cancel  context.CancelFunc
	lookups sync.WaitGroup
	mu      sync.Mutex // guards what follows
	known   map[string]*name
	asking  int // look-ups under way
}

type name struct {
	addr    netip.Addr // not valid: none was found yet
	until   time.Time  // when it is to be asked for again
	asking  bool
	waiting []datagram
}

type datagram struct {
	port uint16
	data []byte
}

// New returns names that lookup finds one address for, at least, or fails; datagrams leave by send, and
// drop is told of those that don't, under a lock. Look-ups end with ctx.
func New(ctx context.Context, lookup func(ctx context.Context, host string) ([]netip.Addr, error), send func(data []byte, to netip.AddrPort), drop func(datagrams int)) *Names {
	n := &Names{lookup: lookup, send: send, drop: drop, known: make(map[string]*name)}
	n.ctx, n.cancel = context.WithCancel(ctx)
	return n
}

// Close ends what is under way. Nothing may be sent any more.
func (n *Names) Close() {
	n.cancel()
	n.lookups.Wait()
}

// Send sends a datagram, or a copy of it later. While an address is asked for again the old one is used, and for as long as
// no other is found: a stream of datagrams shouldn't stop every minute.
func (n *Names) Send(host string, port uint16, data []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := n.known[host]
	if k == nil {
		if n.asking >= maxLookups {
			n.drop(1)
			return
		}
		if len(n.known) >= maxNames {
			maps.DeleteFunc(n.known, func(_ string, k *name) bool { return !k.asking })
		}
		k = new(name)
		n.known[host] = k
	}
	if !k.asking && n.asking < maxLookups && !time.Now().Before(k.until) {
		k.asking = true
		n.asking++
		n.lookups.Go(func() { n.ask(host, k) })
	}
	switch {
	case k.addr.IsValid():
		n.send(data, netip.AddrPortFrom(k.addr, port))
	case k.asking && len(k.waiting) < maxWaiting:
		k.waiting = append(k.waiting, datagram{port, append([]byte(nil), data...)})
	default:
		n.drop(1)
	}
}

// ask looks a name up, and sends what waits for it.
func (n *Names) ask(host string, k *name) {
	ctx, cancel := context.WithTimeout(n.ctx, timeout)
	defer cancel()
	addrs, err := n.lookup(ctx, host)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asking--
	k.asking = false
	if err != nil {
		k.until = time.Now().Add(pause)
		n.drop(len(k.waiting))
	} else {
		k.addr, k.until = addrs[0], time.Now().Add(lifetime)
		for _, d := range k.waiting {
			n.send(d.data, netip.AddrPortFrom(k.addr, d.port)) // under the lock, so that others stay behind
		}
	}
	k.waiting = nil
}
