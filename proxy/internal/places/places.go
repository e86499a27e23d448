// Package places has a bounded number of places for clients that may be strangers, and says who gives way when all are taken.
//
// A place is unproven until it is settled: its client has shown nothing yet for which it would be kept. When a client
// comes and all places are taken, an unproven one gives way, of the source that has most of them the oldest. If there is none,
// the settled one gives way on which nothing has moved for longest (of the 32 that were looked at last), unless that was less
// than a second ago: then the new client is refused. So a flood from few sources drives out itself first, one from many sources
// its own oldest, and neither drives out a client that is in use.
//
// A source is an IPv4 address or an IPv6 /64, for a host that has one address of a /64 has them all; a source has at most so
// many places, and above them its own give way. A Table may be used by any number of goroutines; each call takes one lock
// for a bounded time, whatever the number of places.
package places

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"throughline/proxy/internal/idle"
)

const (
	minIdle = time.Second // on a settled place, before it may give way
	maxLook = 32          // settled places looked at for one that may
)

// A Table has a number of places.
type Table struct {
	total, forOne int

	mu      sync.Mutex // guards what follows, and the places
	n       int
	sources map[netip.Addr]*source
	ranks   map[int]*list.List // sources by how many unproven places they have, 1 at least
	most    int                // the highest rank that isn't empty; 0: there is none
	settled list.List          // places, those that were looked at last behind
}

// A source is where clients come from.
type source struct {
	addr     netip.Addr
	n        int       // places
	unproven list.List // the oldest first
	settled  list.List // those that were looked at last behind
	rank     *list.Element
}

// A Place is one client's. Its fields are the caller's, and don't change once it is taken.
type Place struct {
	Clock  *idle.Clock // when something moved; of a place that is never settled nil
	Yield  func()      // is called when the place gives way, outside of any lock
	source *source     // nil: not taken, or given way
	at     *list.Element
	among  *list.Element // in Table.settled
}

// New returns a table with so many places, and so many for one source.
func New(total, forOne int) *Table {
	return &Table{total: total, forOne: forOne, sources: make(map[netip.Addr]*source), ranks: make(map[int]*list.List)}
}

// Source returns what an address counts as.
func Source(a netip.Addr) netip.Addr {
	if a = a.Unmap().WithZone(""); a.Is6() {
		p, _ := a.Prefix(64)
		return p.Addr()
	}
	return a
}

// Take takes a place for a client at this address. It reports false when there is none, and whether another gave way.
func (t *Table) Take(p *Place, from netip.Addr) (ok, displaced bool) {
	out, ok := t.take(p, Source(from))
	if out != nil {
		out.Yield()
	}
	return ok, out != nil
}

func (t *Table) take(p *Place, from netip.Addr) (out *Place, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sources[from]
	switch {
	case s != nil && s.n >= t.forOne:
		if out = oldest(s); out == nil {
			out = idlest(&s.settled)
		}
	case t.n < t.total:
		ok = true
	case t.most > 0:
		out = oldest(t.ranks[t.most].Front().Value.(*source))
	default:
		out = idlest(&t.settled)
	}
	if out == nil && !ok {
		return nil, false
	}
	if out != nil {
		t.remove(out)
	}
	if s = t.sources[from]; s == nil {
		s = &source{addr: from}
		t.sources[from] = s
	}
	s.n++
	t.n++
	p.source = s
	p.at = s.unproven.PushBack(p)
	t.rank(s, s.unproven.Len()-1)
	return out, true
}

// oldest returns a source's oldest unproven place; nil if it has none.
func oldest(s *source) *Place {
	if e := s.unproven.Front(); e != nil {
		return e.Value.(*Place)
	}
	return nil
}

// idlest returns the settled place that may give way; nil if there is none. Those that were looked at go behind.
func idlest(l *list.List) *Place {
	var found *list.Element
	var longest time.Duration
	for range min(l.Len(), maxLook) {
		e := l.Front()
		l.MoveToBack(e)
		if d := e.Value.(*Place).Clock.Idle(); d >= minIdle && d > longest {
			found, longest = e, d
		}
	}
	if found == nil {
		return nil
	}
	return found.Value.(*Place)
}

// rank puts a source where its number of unproven places belongs, which was another one.
func (t *Table) rank(s *source, was int) {
	if s.rank != nil {
		if l := t.ranks[was]; l.Len() == 1 {
			delete(t.ranks, was)
		} else {
			l.Remove(s.rank)
		}
		s.rank = nil
	}
	is := s.unproven.Len()
	if is > 0 {
		l := t.ranks[is]
		if l == nil {
			l = new(list.List)
			t.ranks[is] = l
		}
		s.rank = l.PushBack(s)
	}
	switch {
	case is > t.most:
		t.most = is
	case was == t.most && t.ranks[was] == nil:
		t.most = is // it was one more or one less, so no rank lies between
	}
}

// remove takes a place out of the table.
func (t *Table) remove(p *Place) {
	s := p.source
	p.source = nil
	if p.among != nil {
		s.settled.Remove(p.at)
		t.settled.Remove(p.among)
	} else {
		s.unproven.Remove(p.at)
		t.rank(s, s.unproven.Len()+1)
	}
	t.n--
	if s.n--; s.n == 0 {
		delete(t.sources, s.addr)
	}
}

// Settle notes that a place's client is one to be kept. It reports false when the place has given way.
func (t *Table) Settle(p *Place) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := p.source
	if s == nil || p.among != nil {
		return s != nil
	}
	s.unproven.Remove(p.at)
	t.rank(s, s.unproven.Len()+1)
	p.at, p.among = s.settled.PushBack(p), t.settled.PushBack(p)
	return true
}

// Leave gives a place up. It reports false when it had given way, or was left before.
func (t *Table) Leave(p *Place) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.source == nil {
		return false
	}
	t.remove(p)
	return true
}

// Taken returns how many places are taken.
func (t *Table) Taken() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n
}
