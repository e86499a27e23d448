package allowedips

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// list is the slow reference: every prefix, looked through from end to end.
type list[V comparable] []struct {
	p netip.Prefix
	v V
}

func (l list[V]) lookup(a netip.Addr) (v V, ok bool) {
	bits := -1
	for _, e := range l {
		if e.p.Contains(a.WithZone("")) && e.p.Bits() > bits {
			v, ok, bits = e.v, true, e.p.Bits()
		}
	}
	return v, ok
}

// plain does slowly, bit by bit, what the table does to a prefix.
func plain(p netip.Prefix) netip.Prefix {
	if s := p.Addr().As16(); p.Addr().Is6() && p.Bits() >= 96 && [12]byte(s[:12]) == [12]byte{10: 0xff, 11: 0xff} {
		p = netip.PrefixFrom(netip.AddrFrom4([4]byte(s[12:])), p.Bits()-96)
	}
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] &^= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, p.Bits())
}

func (l *list[V]) insert(p netip.Prefix, v V) (old V, had bool) {
	p = plain(p)
	for i, e := range *l {
		if e.p == p {
			(*l)[i].v = v
			return e.v, true
		}
	}
	*l = append(*l, struct {
		p netip.Prefix
		v V
	}{p, v})
	return old, false
}

func (l *list[V]) delete(p netip.Prefix, v V) bool {
	p = plain(p)
	for i, e := range *l {
		if e.p == p && e.v == v {
			*l = slices.Delete(*l, i, i+1)
			return true
		}
	}
	return false
}

func TestLookup(t *testing.T) {
	tests := []struct {
		name    string
		entries []string // prefix i goes to peer i+1
		want    map[string]int
	}{
		{"empty", nil, map[string]int{"10.0.0.1": 0, "fd00::1": 0, "0.0.0.0": 0, "::": 0}},
		{"the longest wins, whatever the order", []string{"10.0.0.0/8", "10.1.2.0/24", "10.1.0.0/16", "10.1.2.3/32"}, map[string]int{
			"10.1.2.3": 4, "10.1.2.4": 2, "10.1.3.3": 3, "10.2.0.0": 1, "11.0.0.0": 0, "9.255.255.255": 0,
		}},
		{"default routes are of one family", []string{"0.0.0.0/0"}, map[string]int{"1.2.3.4": 1, "255.255.255.255": 1, "::1": 0, "::ffff:1.2.3.4": 0}},
		{"default routes of both", []string{"0.0.0.0/0", "::/0"}, map[string]int{"1.2.3.4": 1, "::1": 2, "::ffff:1.2.3.4": 2, "::": 2}},
		{"halves of everything", []string{"0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"}, map[string]int{
			"127.255.255.255": 1, "128.0.0.0": 2, "7fff:ffff::": 3, "8000::": 4,
		}},
		{"one bit apart", []string{"192.168.4.4/32", "192.168.4.5/32", "192.168.4.6/31"}, map[string]int{
			"192.168.4.3": 0, "192.168.4.4": 1, "192.168.4.5": 2, "192.168.4.6": 3, "192.168.4.7": 3, "192.168.4.8": 0,
		}},
		{"odd lengths", []string{"64.15.112.0/20", "64.15.123.211/25", "10.0.0.0/25", "10.0.0.128/25"}, map[string]int{
			"64.15.127.255": 1, "64.15.123.127": 1, "64.15.123.128": 2, "64.15.123.255": 2, "64.15.128.0": 0, "10.0.0.127": 3, "10.0.0.128": 4,
		}},
		{"IPv6", []string{"2607:5300:6006:3b0::/64", "2607:5300:6006:3b0:1::/80", "2607:5300:6006:3b0::1/128", "2600::/12"}, map[string]int{
			"2607:5300:6006:3b0::1": 3, "2607:5300:6006:3b0::2": 1, "2607:5300:6006:3b0:1::1": 2, "2607:5300:6006:3b1::": 4, "25ff::": 0, "2610::": 0,
		}},
		{"host bits are masked away", []string{"10.1.2.3/8", "fd00::1234/16"}, map[string]int{"10.9.9.9": 1, "fd00:1::": 2, "fd01::": 0}},
		{"mapped prefixes are IPv4", []string{"::ffff:1.2.3.0/120", "::ffff:9.9.9.9/128", "::ffff:0.0.0.0/96"}, map[string]int{
			"1.2.3.4": 1, "::ffff:1.2.3.4": 0, "1.2.4.0": 3, "9.9.9.9": 2, "::1": 0,
		}},
		{"a prefix around the mapped ones is IPv6", []string{"::/64", "::ffff:1.2.3.4/95"}, map[string]int{"1.2.3.4": 0, "::ffff:1.2.3.4": 2, "::1": 1, "::fffe:0:1": 2}},
		{"a zone is not looked at", []string{"fe80::/10", "fe80::1/128"}, map[string]int{"fe80::1%eth0": 2, "fe80::2%eth0": 1, "fe80::2": 1}},
		{"the last owner has it", []string{"10.0.0.0/24", "10.0.0.0/24", "10.0.0.77/24"}, map[string]int{"10.0.0.1": 3}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var tab Table[int]
			e := tab.Begin()
			for i, s := range tt.entries {
				e.Insert(netip.MustParsePrefix(s), i+1)
			}
			e.Commit()
			for s, want := range tt.want {
				if got, ok := tab.Lookup(netip.MustParseAddr(s)); got != want || ok != (want != 0) {
					t.Errorf("Lookup(%s) = %d, %v; want %d", s, got, ok, want)
				}
			}
		})
	}
}

func TestInvalid(t *testing.T) {
	var tab Table[int]
	e := tab.Begin()
	for _, p := range []netip.Prefix{{}, netip.PrefixFrom(netip.MustParseAddr("1.2.3.4"), 33), netip.PrefixFrom(netip.Addr{}, 0)} {
		if old, had := e.Insert(p, 1); old != 0 || had {
			t.Errorf("Insert(%v) = %d, %v", p, old, had)
		}
		if e.Delete(p, 1) || e.Delete(p, 0) {
			t.Errorf("Delete(%v) found it", p)
		}
	}
	e.Insert(netip.MustParsePrefix("0.0.0.0/0"), 1)
	e.Insert(netip.MustParsePrefix("::/0"), 1)
	e.Commit()
	if v, ok := tab.Lookup(netip.Addr{}); ok || v != 0 {
		t.Errorf("Lookup of no address = %d, %v", v, ok)
	}
}

// What an Edit's methods return, and that nothing is seen before Commit.
func TestEdit(t *testing.T) {
	var tab Table[int]
	p, a := netip.MustParsePrefix("10.0.0.0/24"), netip.MustParseAddr("10.0.0.9")
	mapped := netip.MustParsePrefix("::ffff:10.0.0.7/120")
	lookup := func(want int) {
		t.Helper()
		if got, ok := tab.Lookup(a); got != want || ok != (want != 0) {
			t.Errorf("Lookup = %d, %v; want %d", got, ok, want)
		}
	}
	e := tab.Begin()
	if old, had := e.Insert(p, 1); had || old != 0 {
		t.Errorf("first Insert = %d, %v", old, had)
	}
	if old, had := e.Insert(mapped, 2); !had || old != 1 {
		t.Errorf("second Insert = %d, %v; want 1, true", old, had)
	}
	if old, had := e.Insert(p, 2); !had || old != 2 {
		t.Errorf("Insert of what is there = %d, %v; want 2, true", old, had)
	}
	lookup(0)
	e.Commit()
	lookup(2)

	e = tab.Begin()
	if e.Delete(p, 1) {
		t.Error("Delete took another's prefix")
	}
	if e.Delete(netip.MustParsePrefix("10.0.0.0/25"), 2) || e.Delete(netip.MustParsePrefix("10.0.0.0/23"), 2) {
		t.Error("Delete took a prefix of another length")
	}
	if !e.Delete(mapped, 2) {
		t.Error("Delete didn't find the prefix")
	}
	if e.Delete(p, 2) {
		t.Error("Delete found it twice")
	}
	lookup(2)
	tab.Begin().Insert(p, 9) // dropped: changes nothing, and is not in the way
	e.Commit()
	lookup(0)
	if tab.trie.Load() != nil {
		t.Error("an empty table holds on to its memory")
	}
	tab.Begin().Commit()
	lookup(0)
}

func TestMisuse(t *testing.T) {
	p := netip.MustParsePrefix("10.0.0.0/24")
	bug := func(name string, f func()) {
		t.Helper()
		defer func() {
			if r := recover(); r == nil || !slices.Contains([]any{
				"allowedips: BUG: an Edit is used after Commit", "allowedips: BUG: two Edits at a time",
			}, r) {
				t.Errorf("%s: recovered %v", name, r)
			}
		}()
		f()
	}
	var tab Table[int]
	e := tab.Begin()
	e.Insert(p, 1)
	e.Commit()
	bug("Commit twice", e.Commit)
	bug("Insert after Commit", func() { e.Insert(p, 1) })
	bug("Delete after Commit", func() { e.Delete(p, 1) })
	one, two := tab.Begin(), tab.Begin()
	one.Insert(p, 2)
	two.Insert(p, 3)
	two.Commit()
	bug("two Edits", one.Commit)
	if v, _ := tab.Lookup(p.Addr()); v != 3 {
		t.Errorf("Lookup = %d, want the committed 3", v)
	}
}

// A value with methods of bart's choosing is left alone: peers are compared and kept by identity.
type cloner struct{ n int }

func (c *cloner) Clone() *cloner     { return &cloner{c.n} }
func (c *cloner) Equal(*cloner) bool { return true }

func TestValuesAreNotCloned(t *testing.T) {
	var tab Table[*cloner]
	v := &cloner{1}
	for i := range 600 { // far enough to copy paths and to copy the whole
		e := tab.Begin()
		e.Insert(netip.PrefixFrom(v4(uint32(i)), 32), v)
		e.Commit()
	}
	for i := range 600 {
		if got, _ := tab.Lookup(v4(uint32(i))); got != v {
			t.Fatalf("Lookup of %v gives another value", v4(uint32(i)))
		}
	}
}

// drawPrefix draws from few bits, so that prefixes meet, nest and touch, in both families and mapped.
func drawPrefix(t *rapid.T) netip.Prefix {
	var b [16]byte
	for _, i := range rapid.SliceOfN(rapid.IntRange(0, 15), 0, 5).Draw(t, "places") {
		b[i] = rapid.SampledFrom([]byte{0, 1, 2, 127, 128, 255}).Draw(t, "byte")
	}
	switch rapid.SampledFrom([]int{4, 6, 46}).Draw(t, "family") {
	case 4:
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(b[:4])), rapid.IntRange(0, 32).Draw(t, "bits"))
	case 46:
		copy(b[:12], "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff")
	}
	return netip.PrefixFrom(netip.AddrFrom16(b), rapid.IntRange(0, 128).Draw(t, "bits"))
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tab Table[int]
		var committed list[int]
		e, edited := tab.Begin(), list[int](nil)
		probe := func(t *rapid.T, a netip.Addr) {
			got, ok := tab.Lookup(a)
			if want, wantOK := committed.lookup(a); got != want || ok != wantOK {
				t.Fatalf("Lookup(%v) = %d, %v; want %d, %v of %v", a, got, ok, want, wantOK, committed)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"insert": func(t *rapid.T) {
				p, v := drawPrefix(t), rapid.IntRange(1, 4).Draw(t, "v")
				old, had := e.Insert(p, v)
				if wantOld, wantHad := edited.insert(p, v); old != wantOld || had != wantHad {
					t.Fatalf("Insert(%v, %d) = %d, %v; want %d, %v", p, v, old, had, wantOld, wantHad)
				}
			},
			"delete": func(t *rapid.T) {
				p, v := drawPrefix(t), rapid.IntRange(1, 4).Draw(t, "v")
				if len(edited) > 0 && rapid.Bool().Draw(t, "one that is there") {
					p = rapid.SampledFrom(edited).Draw(t, "entry").p
				}
				got := e.Delete(p, v)
				if want := edited.delete(p, v); got != want {
					t.Fatalf("Delete(%v, %d) = %v, want %v", p, v, got, want)
				}
			},
			"commit": func(*rapid.T) {
				e.Commit()
				committed = edited
				e, edited = tab.Begin(), slices.Clone(committed)
			},
			"drop the edit": func(*rapid.T) { e, edited = tab.Begin(), slices.Clone(committed) },
			"lookup":        func(t *rapid.T) { probe(t, drawPrefix(t).Addr()) },
			"":              func(t *rapid.T) { probe(t, netip.AddrFrom4([4]byte{})); probe(t, netip.IPv6Unspecified()) },
		})
		e.Commit()
		committed = edited
		for _, entry := range committed {
			probe(t, entry.p.Addr())
		}
	})
}

// The model above stays small; this one passes from copying paths to copying the whole, in edits of all lengths, and
// checks that a table once published never changes.
func TestRandomAgainstList(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var tab Table[int]
	var l list[int]
	addr := func() netip.Addr {
		if rng.IntN(2) == 0 {
			return v4(10<<24 | rng.Uint32N(2048)<<uint(rng.IntN(3)))
		}
		return netip.AddrFrom16([16]byte{0: 0xfd, 7: byte(rng.IntN(3)), 14: byte(rng.IntN(4)), 15: byte(rng.IntN(256))})
	}
	var paths, copies int
	for round := range 60 {
		old, oldTrie := slices.Clone(l), tab.trie.Load()
		e := tab.Begin()
		for range []int{1, 2, 20, 200}[round%4] {
			a := addr()
			p := netip.PrefixFrom(a, a.BitLen()-rng.IntN(12)*rng.IntN(2))
			if v := rng.IntN(5) + 1; rng.IntN(3) > 0 {
				gotOld, gotHad := e.Insert(p, v)
				if wantOld, wantHad := l.insert(p, v); gotOld != wantOld || gotHad != wantHad {
					t.Fatalf("Insert(%v, %d) = %d, %v; want %d, %v", p, v, gotOld, gotHad, wantOld, wantHad)
				}
			} else if got, want := e.Delete(p, v), l.delete(p, v); got != want {
				t.Fatalf("Delete(%v, %d) = %v, want %v", p, v, got, want)
			}
		}
		if e.private {
			copies++
		} else {
			paths++
		}
		e.Commit()
		if oldTrie != nil {
			if oldTrie.Size() != len(old) {
				t.Fatalf("round %d: a published table has %d entries, had %d", round, oldTrie.Size(), len(old))
			}
			for _, entry := range old {
				if c, ok := oldTrie.Get(entry.p); !ok || c.v != entry.v {
					t.Fatalf("round %d: a published table changed at %v", round, entry.p)
				}
			}
		}
		for range 100 {
			a := addr()
			got, ok := tab.Lookup(a)
			if want, wantOK := l.lookup(a); got != want || ok != wantOK {
				t.Fatalf("round %d: Lookup(%v) = %d, %v; want %d, %v", round, a, got, ok, want, wantOK)
			}
		}
	}
	if paths < 10 || copies < 10 {
		t.Errorf("%d edits by paths and %d by a copy: the test is to see both", paths, copies)
	}
}

// Readers run beside commits that move prefixes to and fro between two peers: each always has one of the two.
func TestLookupBesideCommits(t *testing.T) {
	var tab Table[*int]
	peers := [2]*int{new(int), new(int)}
	for i := range peers {
		*peers[i] = i
	}
	ps := hosts(shapes[0].at, 500)
	set := func(v *int) {
		e := tab.Begin()
		for i := range ps {
			if i%100 == 0 {
				e.Insert(ps[i], v)
			}
		}
		e.Commit()
	}
	e := tab.Begin()
	for _, p := range ps {
		e.Insert(p, peers[0])
	}
	e.Commit()

	var wg sync.WaitGroup
	var done atomic.Bool
	for range 3 {
		wg.Go(func() {
			for i := 0; !done.Load() || i < 100; i++ {
				if v, ok := tab.Lookup(ps[i%len(ps)].Addr()); !ok || v != peers[*v] {
					t.Errorf("Lookup(%v) = %v, %v", ps[i%len(ps)], v, ok)
					return
				}
			}
		})
	}
	for i := range 300 {
		set(peers[i%2])
		e := tab.Begin()
		p := netip.MustParsePrefix(fmt.Sprintf("10.9.%d.0/24", i%7))
		if i%14 < 7 {
			e.Insert(p, peers[0])
		} else {
			e.Delete(p, peers[0])
		}
		e.Commit()
	}
	done.Store(true)
	wg.Wait()
}

func TestNoAllocations(t *testing.T) {
	ps := hosts(shapes[2].at, 100)
	tab := filled(ps, new(int))
	var empty Table[*int]
	mapped := netip.MustParseAddr("::ffff:10.0.0.1")
	if n := testing.AllocsPerRun(100, func() {
		for _, p := range ps {
			tab.Lookup(p.Addr())
		}
		tab.Lookup(mapped)
		empty.Lookup(mapped)
	}); n != 0 {
		t.Errorf("Lookup allocates %v times", n)
	}
}

// FuzzEdit runs a tape of inserts, deletes and commits, and compares with the list.
func FuzzEdit(f *testing.F) {
	f.Add([]byte("\x00\x20\x0a\x00\x00\x01\x01\x18\x0a\x00\x00\x01\x03\x00\x00\x00\x00\x00\x02\x20\x0a\x00\x00\x01"))
	f.Add([]byte("\x04\x80\xfd\x00\x00\x01\x05\x78\xfd\xff\x00\x01\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, tape []byte) {
		var tab Table[int]
		var l list[int]
		e := tab.Begin()
		for ; len(tape) >= 6; tape = tape[6:] {
			a := netip.AddrFrom4([4]byte(tape[2:]))
			if tape[0]&4 != 0 {
				b := [16]byte{0: tape[2], 10: tape[3], 11: tape[3], 14: tape[4], 15: tape[5]}
				a = netip.AddrFrom16(b)
			}
			p, v := netip.PrefixFrom(a, int(tape[1])%(a.BitLen()+1)), int(tape[0]>>3&3)+1
			switch tape[0] & 3 {
			case 0, 1:
				old, had := e.Insert(p, v)
				if wantOld, wantHad := l.insert(p, v); old != wantOld || had != wantHad {
					t.Fatalf("Insert(%v, %d) = %d, %v; want %d, %v", p, v, old, had, wantOld, wantHad)
				}
			case 2:
				got := e.Delete(p, v)
				if want := l.delete(p, v); got != want {
					t.Fatalf("Delete(%v, %d) = %v, want %v", p, v, got, want)
				}
			case 3:
				e.Commit()
				got, ok := tab.Lookup(a)
				if want, wantOK := l.lookup(a); got != want || ok != wantOK {
					t.Fatalf("Lookup(%v) = %d, %v; want %d, %v", a, got, ok, want, wantOK)
				}
				e = tab.Begin()
			}
		}
	})
}
