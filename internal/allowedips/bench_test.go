package allowedips

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"

	"github.com/gaissmai/bart"
)

// Three shapes of a table of host routes: a gateway that numbers its peers from one block, peers scattered over all of
// IPv4, and a /128 for each peer in one /64.
var shapes = []struct {
	name string
	at   func(rng *rand.Rand, i int) netip.Addr
}{
	{"dense4", func(_ *rand.Rand, i int) netip.Addr { return v4(10<<24 | uint32(i)) }},
	{"sparse4", func(rng *rand.Rand, _ int) netip.Addr { return v4(rng.Uint32()) }},
	{"dense6", func(_ *rand.Rand, i int) netip.Addr {
		a := [16]byte{0: 0xfd, 1: 0x12}
		binary.BigEndian.PutUint64(a[8:], uint64(i))
		return netip.AddrFrom16(a)
	}},
}

func v4(u uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(u >> 24), byte(u >> 16), byte(u >> 8), byte(u)})
}

func hosts(at func(*rand.Rand, int) netip.Addr, n int) []netip.Prefix {
	rng := rand.New(rand.NewPCG(1, 9))
	ps := make([]netip.Prefix, n)
	for i := range ps {
		a := at(rng, i)
		ps[i] = netip.PrefixFrom(a, a.BitLen())
	}
	return ps
}

func filled(ps []netip.Prefix, v *int) *Table[*int] {
	t := new(Table[*int])
	e := t.Begin()
	for _, p := range ps {
		e.Insert(p, v)
	}
	e.Commit()
	return t
}

func BenchmarkLookup(b *testing.B) {
	for _, shape := range shapes {
		for _, n := range []int{10, 1000, 100_000} {
			b.Run(fmt.Sprintf("%s/%d", shape.name, n), func(b *testing.B) {
				ps := hosts(shape.at, n)
				t := filled(ps, new(int))
				rand.New(rand.NewPCG(1, 1)).Shuffle(n, func(i, j int) { ps[i], ps[j] = ps[j], ps[i] })
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if _, ok := t.Lookup(ps[i].Addr()); !ok {
						b.Fatal("not found")
					}
					if i++; i == n {
						i = 0
					}
				}
			})
		}
	}
}

// One prefix goes in or out of a table of 100,000.
func BenchmarkEditOne(b *testing.B) {
	for _, shape := range shapes {
		b.Run(shape.name, func(b *testing.B) {
			ps, v := hosts(shape.at, 100_000), new(int)
			t := filled(ps, v)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				p := ps[i/2*7919%len(ps)]
				e := t.Begin()
				if i%2 == 0 {
					e.Delete(p, v)
				} else {
					e.Insert(p, v)
				}
				e.Commit()
				i++
			}
		})
	}
}

// n prefixes go at once into a table of 100,000: by copying paths alone, in place on a copy alone, and as an Edit does.
func BenchmarkEditMany(b *testing.B) {
	for _, shape := range shapes {
		for _, n := range []int{10, 100, 1000, 10_000, 100_000} {
			ps, v := hosts(shape.at, 100_000+n), new(int)
			rand.New(rand.NewPCG(1, 1)).Shuffle(len(ps), func(i, j int) { ps[i], ps[j] = ps[j], ps[i] })
			t, more := filled(ps[n:], v), ps[:n]
			base := t.trie.Load()
			run := func(name string, f func() *trie[*int]) {
				b.Run(fmt.Sprintf("%s/%d/%s", shape.name, n, name), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if got := f().Size(); got < 100_000 {
							b.Fatal(got)
						}
					}
				})
			}
			if n <= 10_000 {
				run("paths", func() *trie[*int] {
					now := base
					for _, p := range more {
						now = now.InsertPersist(p, cell[*int]{v})
					}
					return now
				})
			}
			run("copy", func() *trie[*int] {
				now := base.Clone()
				for _, p := range more {
					now.Insert(p, cell[*int]{v})
				}
				return now
			})
			run("edit", func() *trie[*int] {
				e := t.Begin() // and never committed
				for _, p := range more {
					e.Insert(p, v)
				}
				return e.now
			})
		}
	}
}

// Bytes for each host route of a table of 1,000 to 100,000, as an Edit from nothing leaves it, and as bart's
// smaller and slower variant would.
func BenchmarkMemory(b *testing.B) {
	for _, shape := range shapes {
		for _, n := range []int{1000, 10_000, 100_000} {
			ps, v := hosts(shape.at, n), new(int)
			measure := func(name string, make func() any) {
				b.Run(fmt.Sprintf("%s/%d/%s", shape.name, n, name), func(b *testing.B) {
					var before, after runtime.MemStats
					var keep any
					for b.Loop() {
						keep = nil
						runtime.GC()
						runtime.ReadMemStats(&before)
						keep = make()
						runtime.GC()
						runtime.ReadMemStats(&after)
					}
					runtime.KeepAlive(keep)
					b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/prefix")
				})
			}
			measure("edit", func() any { return filled(ps, v) })
			measure("cloned", func() any { return filled(ps, v).trie.Load().Clone() })
			measure("compact", func() any {
				f := new(bart.Table[cell[*int]])
				for _, p := range ps {
					f.Insert(p, cell[*int]{v})
				}
				return f
			})
		}
	}
}

// The variant of bart that was not taken.
func BenchmarkLookupCompact(b *testing.B) {
	for _, shape := range shapes {
		for _, n := range []int{10, 1000, 100_000} {
			b.Run(fmt.Sprintf("%s/%d", shape.name, n), func(b *testing.B) {
				ps := hosts(shape.at, n)
				f := new(bart.Table[cell[*int]])
				for _, p := range ps {
					f.Insert(p, cell[*int]{new(int)})
				}
				rand.New(rand.NewPCG(1, 1)).Shuffle(n, func(i, j int) { ps[i], ps[j] = ps[j], ps[i] })
				i := 0
				for b.Loop() {
					if _, ok := f.Lookup(ps[i].Addr()); !ok {
						b.Fatal("not found")
					}
					if i++; i == n {
						i = 0
					}
				}
			})
		}
	}
}
