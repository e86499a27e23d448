package places

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"throughline/proxy/internal/idle"
)

// taken is a table whose places have names, and who gave way in it.
type taken struct {
	*Table
	by   map[string]*Place
	gone []string
}

func (k *taken) take(t *testing.T, name, from string, want bool, gone ...string) {
	t.Helper()
	p := &Place{Clock: idle.New(0), Yield: func() { k.gone = append(k.gone, name) }}
	k.gone = nil
	ok, displaced := k.Take(p, netip.MustParseAddr(from))
	if ok != want || displaced != (len(gone) > 0) || !slices.Equal(k.gone, gone) {
		t.Errorf("%s: %v, %v; %v gave way, want %v", name, ok, displaced, k.gone, gone)
	}
	if ok {
		k.by[name] = p
	}
}

func TestUnprovenGiveWay(t *testing.T) {
	k := &taken{Table: New(4, 3), by: map[string]*Place{}}
	k.take(t, "honest", "192.0.2.1", true)
	k.take(t, "a", "192.0.2.2", true)
	k.take(t, "b", "192.0.2.2", true)
	k.take(t, "c", "192.0.2.2", true)
	k.take(t, "d", "192.0.2.2", true, "a") // its own bound
	k.take(t, "e", "192.0.2.3", true, "b") // the table's: of the source with the most
	k.take(t, "f", "2001:db8::1", true, "c")
	k.take(t, "g", "2001:db8::2", true, "honest") // all have one: the oldest
	k.take(t, "h", "2001:db8:0:1::1", true, "f")
	if k.Leave(k.by["a"]) || !k.Leave(k.by["d"]) || k.Leave(k.by["d"]) || k.Taken() != 3 {
		t.Errorf("%d places are taken", k.Taken())
	}
	k.take(t, "i", "192.0.2.9", true)
}

func TestSettledStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &taken{Table: New(3, 3), by: map[string]*Place{}}
		k.take(t, "a", "192.0.2.1", true)
		k.take(t, "b", "192.0.2.1", true)
		k.take(t, "c", "192.0.2.2", true)
		if !k.Settle(k.by["a"]) || !k.Settle(k.by["b"]) || !k.Settle(k.by["b"]) {
			t.Error("a place is not there")
		}
		k.take(t, "d", "192.0.2.3", true, "c") // never those that are settled, while there is another
		if k.Settle(k.by["c"]) {
			t.Error("a place that gave way is settled")
		}
		k.Settle(k.by["d"])
		k.take(t, "e", "192.0.2.4", false) // all are in use
		time.Sleep(2 * time.Second)
		k.by["a"].Clock.Moved()
		time.Sleep(time.Second)
		k.by["b"].Clock.Moved()
		k.take(t, "f", "192.0.2.4", true, "d")
		k.take(t, "g", "192.0.2.5", true, "f")
		k.Settle(k.by["g"])
		k.take(t, "h", "192.0.2.6", true, "a") // idle for a second
		k.Settle(k.by["h"])
		k.take(t, "i", "192.0.2.6", false)
	})
}

// TestRandom holds the bounds, and that what is counted is there, whatever is done.
func TestRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	k := New(20, 7)
	var live []*Place
	for range 20000 {
		switch {
		case r.IntN(4) > 0:
			p := &Place{Clock: idle.New(0)}
			p.Yield = func() { live = slices.DeleteFunc(live, func(q *Place) bool { return q == p }) }
			if ok, _ := k.Take(p, netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(6) * r.IntN(6))})); ok {
				live = append(live, p)
			}
		case len(live) > 0 && r.IntN(2) == 0:
			k.Settle(live[r.IntN(len(live))])
		case len(live) > 0:
			i := r.IntN(len(live))
			k.Leave(live[i])
			live = slices.Delete(live, i, i+1)
		}
		most, n, unproven := 0, 0, 0
		for _, s := range k.sources {
			most, n, unproven = max(most, s.unproven.Len()), n+s.n, unproven+s.unproven.Len()
			if s.n > 7 || s.n != s.unproven.Len()+s.settled.Len() || s.n == 0 {
				t.Fatalf("a source has %d places", s.n)
			}
		}
		if n != k.n || n != len(live) || n > 20 || most != k.most || n != unproven+k.settled.Len() {
			t.Fatalf("%d places, %d live, %d counted; at most %d, %d counted", n, len(live), k.n, most, k.most)
		}
	}
}

func TestLetsGo(t *testing.T) {
	k := New(8, 8)
	for i := range 1000 {
		p := &Place{Yield: func() {}}
		k.Take(p, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
		if i%2 == 0 {
			k.Leave(p)
		}
	}
	if len(k.sources) > 8 || len(k.ranks) > 8 {
		t.Errorf("%d sources and %d ranks are kept", len(k.sources), len(k.ranks))
	}
}
