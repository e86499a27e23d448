package udp

import (
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// zones knows the names of links, which netip.Addr has, and their indices, which the kernel has. It asks the kernel
// when a name or an index is new, and again after zoneLife: a link can be renamed. The zero zones are ready to use, by
// several goroutines at once; what is known costs one atomic load and a map's lookup.
type zones struct {
	known atomic.Pointer[links]
	mu    sync.Mutex // held by who asks the kernel
	ask   func() ([]net.Interface, error)
}

// links is a snapshot, never changed.
type links struct {
	at     time.Time
	names  map[uint32]netip.Addr // an address that bears the name: it keeps what package netip knows of it from being dropped and made anew
	indexs map[string]uint32
}

const (
	zoneLife = 30 * time.Second // a snapshot's
	zoneRest = time.Second      // between two questions about what isn't there

	noLink = 1<<31 - 1 // the last index there could be
)

// hostZones are the links of this process's network namespace.
var hostZones = zones{ask: net.Interfaces}

// with returns a in the zone of the link with the index: its name, or the number where it has none.
func (z *zones) with(a netip.Addr, index uint32) netip.Addr {
	if index == 0 {
		return a
	}
	if l := z.known.Load(); l != nil && time.Since(l.at) < zoneLife {
		if named, ok := l.names[index]; ok {
			return a.WithZone(named.Zone())
		}
	}
	if named, ok := z.refresh(func(l *links) bool { _, ok := l.names[index]; return ok }).names[index]; ok {
		return a.WithZone(named.Zone())
	}
	return a.WithZone(strconv.FormatUint(uint64(index), 10))
}

// index returns the index of the link that a zone names, by its name or number. No zone is 0, where the kernel chooses a
// link; a name that no link has is noLink, which the kernel refuses.
func (z *zones) index(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if l := z.known.Load(); l != nil && time.Since(l.at) < zoneLife {
		if i, ok := l.indexs[zone]; ok {
			return i
		}
	}
	if i, ok := z.refresh(func(l *links) bool { _, ok := l.indexs[zone]; return ok }).indexs[zone]; ok {
		return i
	}
	i, err := strconv.ParseUint(zone, 10, 32)
	if err != nil {
		return noLink
	}
	return uint32(i)
}

// refresh returns a snapshot that is fresh, and that has what is looked for unless the kernel was asked just now.
func (z *zones) refresh(has func(*links) bool) *links {
	z.mu.Lock()
	defer z.mu.Unlock()
	if l := z.known.Load(); l != nil {
		if age := time.Since(l.at); age < zoneRest || age < zoneLife && has(l) {
			return l
		}
	}
	l := &links{at: time.Now(), names: make(map[uint32]netip.Addr), indexs: make(map[string]uint32)}
	ifis, err := z.ask()
	if err != nil {
		ifis = nil // numbers do
	}
	for _, ifi := range ifis {
		l.names[uint32(ifi.Index)] = netip.IPv6Unspecified().WithZone(ifi.Name)
		l.indexs[ifi.Name] = uint32(ifi.Index)
	}
	z.known.Store(l)
	return l
}
