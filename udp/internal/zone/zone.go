// Package zone translates between the names of links, which netip.Addr has, and their indices, which the kernel has.
//
// [Names] may be used by several goroutines at once, and start none. They hold one snapshot of the links, asked for at most
// once a second, and only when something isn't in it or it is 30 s old.
package zone

import (
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Names are the links' of one network namespace. They ask when a name or an index is new, and again after a while: a
// link can be renamed. Several goroutines may use them at once; what is known costs one atomic load and a map's lookup.
type Names struct {
	Ask func() ([]net.Interface, error) // to be set before use

	known atomic.Pointer[links]
	mu    sync.Mutex // held while asking
}

// links is a snapshot, never changed.
type links struct {
	at     time.Time
	names  map[uint32]netip.Addr // an address that bears the name: it keeps what package netip knows of it from being dropped and made anew
	indexs map[string]uint32
}

const (
	life    = 30 * time.Second // a snapshot's
	spacing = time.Second      // between two questions about what isn't there

	noLink = 1<<31 - 1 // the last index there could be
)

// Host are the names in this process's network namespace.
var Host = Names{Ask: net.Interfaces}

// With returns a in the zone of the link with the index: its name, or the number where it has none.
func (n *Names) With(a netip.Addr, index uint32) netip.Addr {
	if index == 0 {
		return a
	}
	if l := n.known.Load(); l != nil && time.Since(l.at) < life {
		if named, ok := l.names[index]; ok {
			return a.WithZone(named.Zone())
		}
	}
	if named, ok := n.refresh(func(l *links) bool { _, ok := l.names[index]; return ok }).names[index]; ok {
		return a.WithZone(named.Zone())
	}
	return a.WithZone(strconv.FormatUint(uint64(index), 10))
}

// Index returns the index of the link that a zone names, by its name or number. No zone is 0, where the kernel chooses a
// link; a name that no link has is noLink, which the kernel refuses.
func (n *Names) Index(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if l := n.known.Load(); l != nil && time.Since(l.at) < life {
		if i, ok := l.indexs[zone]; ok {
			return i
		}
	}
	if i, ok := n.refresh(func(l *links) bool { _, ok := l.indexs[zone]; return ok }).indexs[zone]; ok {
		return i
	}
	i, err := strconv.ParseUint(zone, 10, 32)
	if err != nil {
		return noLink
	}
	return uint32(i)
}

// refresh returns a snapshot that is fresh, and that has what is looked for unless the kernel was asked just now.
func (n *Names) refresh(has func(*links) bool) *links {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l := n.known.Load(); l != nil {
		if age := time.Since(l.at); age < spacing || age < life && has(l) {
			return l
		}
	}
	l := &links{at: time.Now(), names: make(map[uint32]netip.Addr), indexs: make(map[string]uint32)}
	ifis, err := n.Ask()
	if err != nil {
		ifis = nil // numbers do
	}
	for _, ifi := range ifis {
		l.names[uint32(ifi.Index)] = netip.IPv6Unspecified().WithZone(ifi.Name)
		l.indexs[ifi.Name] = uint32(ifi.Index)
	}
	n.known.Store(l)
	return l
}
