package udp

import (
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// destinations remembers the endpoints to which the kernel refused super-packets, and of what size: on the path to them a
// link's MTU is less than a segment (plain datagrams would be fragmented), or a driver is broken. After refusalLife they
// are tried again. It is bounded: one that is forgotten costs a system call. The zero value is empty, and asking it costs
// one atomic load.
type destinations struct {
	n  atomic.Int32 // len(m)
	mu sync.Mutex
	m  map[netip.AddrPort]refusal // guarded by mu
}

// A refusal says that super-packets whose segments are of size bytes or more don't pass, until a moment.
type refusal struct {
	size  int
	until time.Time
}

const (
	refusalLife     = time.Minute
	maxDestinations = 128
)

// limit returns the size from which on super-packets to a are refused.
func (d *destinations) limit(a netip.AddrPort) int {
	if d.n.Load() == 0 {
		return math.MaxInt
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r, ok := d.m[a]
	if !ok {
		return math.MaxInt
	}
	if !time.Now().Before(r.until) {
		delete(d.m, a)
		d.n.Store(int32(len(d.m)))
		return math.MaxInt
	}
	return r.size
}

// add remembers that a super-packet to a whose segments are of size bytes was refused.
func (d *destinations) add(a netip.AddrPort, size int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.m == nil {
		d.m = make(map[netip.AddrPort]refusal)
	}
	if r, ok := d.m[a]; ok {
		size = min(size, r.size)
	} else if len(d.m) == maxDestinations {
		for other := range d.m { // any one
			delete(d.m, other)
			break
		}
	}
	d.m[a] = refusal{size, time.Now().Add(refusalLife)}
	d.n.Store(int32(len(d.m)))
}
