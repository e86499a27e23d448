package index

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// entry is a value that knows which index it was given, so that a wrong answer shows.
type entry struct{ index atomic.Uint32 }

func slotsOf[V any](t *Table[V]) int {
	if p := t.slots.Load(); p != nil {
		return len(*p)
	}
	return 0
}

// wellFormed checks what the table promises to itself: the counts, the bounds of its size, and a free slot to end on.
func wellFormed[V any](t *Table[V]) string {
	inUse, keys, n := 0, 0, slotsOf(t)
	for i := range n {
		s := &(*t.slots.Load())[i]
		if s.key.Load() != 0 {
			keys++
		}
		if s.value.Load() != nil {
			inUse++
		}
	}
	switch {
	case inUse != t.inUse || keys != t.keys:
		return "the counts are wrong"
	case n > 0 && (n < minSlots || n&(n-1) != 0):
		return "the number of slots is no power of two"
	case n > 0 && tooFull(keys, n):
		return "the table is crowded"
	case n > max(minSlots, sparse*inUse) || inUse == 0 && n != 0:
		return "the table is larger than its entries deserve"
	}
	return ""
}

func counting(from uint32) func() uint32 { return func() uint32 { from++; return from - 1 } }

func TestZeroTable(t *testing.T) {
	var tab Table[entry]
	if tab.Lookup(0) != nil || tab.Lookup(7) != nil || tab.Len() != 0 {
		t.Error("the zero table holds something")
	}
	if tab.Replace(7, new(entry)) || tab.Delete(7, new(entry)) || tab.Delete(0, nil) {
		t.Error("the zero table replaced or deleted something")
	}
}

func TestInsertReplaceDelete(t *testing.T) {
	var tab Table[entry]
	a, b := new(entry), new(entry)
	i := tab.Insert(a, counting(100))
	if i != 100 || tab.Lookup(100) != a || tab.Len() != 1 {
		t.Fatalf("Insert gave %d, Lookup %p, Len %d", i, tab.Lookup(100), tab.Len())
	}
	if tab.Delete(i, b) || tab.Lookup(i) != a {
		t.Error("Delete took another's index")
	}
	if tab.Replace(101, b) || tab.Lookup(101) != nil {
		t.Error("Replace made an index")
	}
	if !tab.Replace(i, b) || tab.Lookup(i) != b || tab.Len() != 1 {
		t.Error("Replace didn't replace")
	}
	if tab.Delete(i, a) || tab.Lookup(i) != b {
		t.Error("Delete took the index from its new owner")
	}
	if !tab.Delete(i, b) || tab.Lookup(i) != nil || tab.Len() != 0 {
		t.Error("Delete didn't delete")
	}
	if tab.Delete(i, b) || tab.Delete(i, nil) || tab.Replace(i, a) || tab.Lookup(i) != nil {
		t.Error("a deleted index came back")
	}
	if tab.Insert(a, counting(100)) != 100 || tab.Lookup(100) != a {
		t.Error("a deleted index can't be drawn again")
	}
}

// Zero and indices in use are drawn again.
func TestInsertDrawsAgain(t *testing.T) {
	var tab Table[entry]
	tab.Insert(new(entry), counting(5))
	draws := []uint32{0, 5, 0, 5, 6}
	v := new(entry)
	if i := tab.Insert(v, func() uint32 { d := draws[0]; draws = draws[1:]; return d }); i != 6 || tab.Lookup(6) != v {
		t.Errorf("Insert gave %d, want 6", i)
	}
	if tab.Lookup(0) != nil || tab.Len() != 2 {
		t.Error("the table holds what was refused")
	}
}

func TestMisuse(t *testing.T) {
	var tab Table[entry]
	tab.Insert(new(entry), counting(1))
	for want, f := range map[string]func(){
		"index: BUG: Insert of nil":                           func() { tab.Insert(nil, counting(1)) },
		"index: BUG: Replace by nil":                          func() { tab.Replace(1, nil) },
		"index: BUG: the source of randomness repeats itself": func() { tab.Insert(new(entry), func() uint32 { return 1 }) },
	} {
		func() {
			defer func() {
				if r := recover(); r != want {
					t.Errorf("recovered %v, want %q", r, want)
				}
			}()
			f()
		}()
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tab Table[entry]
		model := map[uint32]*entry{}
		values := []*entry{new(entry), new(entry), new(entry)}
		// Indices from a small space meet each other and their own graves; some share all their low or high bits.
		draw := rapid.Custom(func(t *rapid.T) uint32 {
			return rapid.Uint32Max(40).Draw(t, "i") << rapid.SampledFrom([]int{0, 0, 26}).Draw(t, "shift")
		})
		value := rapid.SampledFrom(values)
		t.Repeat(map[string]func(*rapid.T){
			"insert": func(t *rapid.T) {
				v, used := value.Draw(t, "v"), []uint32(nil)
				i := tab.Insert(v, func() uint32 {
					if len(used) == 8 { // enough of collisions
						return rapid.Uint32Min(1<<31).Draw(t, "far")
					}
					used = append(used, draw.Draw(t, "draw"))
					return used[len(used)-1]
				})
				if i == 0 || model[i] != nil {
					t.Fatalf("Insert gave %d, in use: %v", i, model[i] != nil)
				}
				model[i] = v
			},
			"insert many": func(t *rapid.T) {
				v, from := value.Draw(t, "v"), rapid.Uint32().Draw(t, "from")
				for next := counting(from); rapid.IntRange(0, 20).Draw(t, "more") > 0; {
					model[tab.Insert(v, next)] = v
				}
			},
			"replace": func(t *rapid.T) {
				i, v := draw.Draw(t, "i"), value.Draw(t, "v")
				if got, want := tab.Replace(i, v), model[i] != nil; got != want {
					t.Fatalf("Replace(%d) = %v, want %v", i, got, want)
				} else if got {
					model[i] = v
				}
			},
			"delete": func(t *rapid.T) {
				i, v := draw.Draw(t, "i"), value.Draw(t, "v")
				if got, want := tab.Delete(i, v), model[i] == v; got != want {
					t.Fatalf("Delete(%d) = %v, want %v", i, got, want)
				} else if got {
					delete(model, i)
				}
			},
			"delete most": func(t *rapid.T) {
				keep := rapid.Uint32Range(1, 5).Draw(t, "keep")
				for i, v := range model {
					if i%keep == 0 {
						if !tab.Delete(i, v) {
							t.Fatalf("Delete(%d) didn't find it", i)
						}
						delete(model, i)
					}
				}
			},
			"lookup": func(t *rapid.T) {
				i := draw.Draw(t, "i")
				if got := tab.Lookup(i); got != model[i] {
					t.Fatalf("Lookup(%d) = %p, want %p", i, got, model[i])
				}
			},
			"": func(t *rapid.T) {
				if tab.Len() != len(model) {
					t.Fatalf("Len = %d, want %d", tab.Len(), len(model))
				}
				if bad := wellFormed(&tab); bad != "" {
					t.Fatalf("%s: %d slots, %d with a key, %d in use", bad, slotsOf(&tab), tab.keys, tab.inUse)
				}
			},
		})
		for i, v := range model {
			if tab.Lookup(i) != v {
				t.Fatalf("Lookup(%d) lost its value", i)
			}
		}
	})
}

// A deleted value is not kept alive by the table.
func TestDeletedIsFreed(t *testing.T) {
	var tab Table[entry]
	rng := rand.New(rand.NewPCG(1, 2))
	tab.Insert(new(entry), rng.Uint32) // so that the table stays
	freed := make(chan struct{})
	func() {
		v := new(entry)
		runtime.AddCleanup(v, func(int) { close(freed) }, 0)
		tab.Delete(tab.Insert(v, rng.Uint32), v)
	}()
	for range 20 {
		runtime.GC()
		select {
		case <-freed:
			return
		default:
			runtime.Gosched()
		}
	}
	t.Error("a deleted value is still reachable")
}

// Indices that have bits in common, low or high, don't end up in one long search.
func TestSteeredIndices(t *testing.T) {
	for _, shift := range []int{0, 8, 16} {
		rng := rand.New(rand.NewPCG(1, uint64(shift)))
		var tab Table[entry]
		for range 4000 {
			tab.Insert(new(entry), func() uint32 { return rng.Uint32N(1<<16)<<shift | 0x5a&(1<<shift-1) })
		}
		if got := longest(&tab); got > 100 {
			t.Errorf("shift %d: a search passes %d slots", shift, got)
		}
	}
}

// longest returns the longest run of slots with a key, which bounds a search.
func longest[V any](t *Table[V]) (most int) {
	run := 0
	for range 2 {
		for i := range slotsOf(t) {
			if (*t.slots.Load())[i].key.Load() == 0 {
				run = 0
			} else {
				run++
				most = max(most, run)
			}
		}
	}
	return most
}

// Readers beside a writer that inserts, deletes, draws deleted indices again, replaces, grows and shrinks: what is there
// all the time is always found, and an index never gives a value that didn't have it.
func TestLookupBesideWrites(t *testing.T) {
	var tab Table[entry]
	rng := rand.New(rand.NewPCG(1, 3))
	insert := func(random func() uint32) (*entry, uint32) {
		v := new(entry)
		i := tab.Insert(v, func() uint32 {
			i := random()
			v.index.Store(i) // before it is published
			return i
		})
		return v, i
	}
	var stay []uint32
	for range 16 {
		_, i := insert(rng.Uint32)
		stay = append(stay, i)
	}
	// What comes and goes is of few indices, so that graves are used again and readers meet them.
	few := func() uint32 { return 1 + rng.Uint32N(600) }

	var wg sync.WaitGroup
	var done atomic.Bool
	for r := range 3 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(2, uint64(r)))
			for n := 0; !done.Load() || n < 1000; n++ {
				i := 1 + rng.Uint32N(600)
				if v := tab.Lookup(i); v != nil && v.index.Load() != i {
					t.Errorf("Lookup(%d) gave the value of %d", i, v.index.Load())
					return
				}
				if v := tab.Lookup(0); v != nil {
					t.Errorf("Lookup(0) gave the value of %d", v.index.Load())
					return
				}
				i = stay[n%len(stay)]
				if v := tab.Lookup(i); v == nil || v.index.Load() != i {
					t.Errorf("Lookup(%d), which stays, gave %v", i, v)
					return
				}
			}
		})
	}
	type owned struct {
		v *entry
		i uint32
	}
	var come []owned
	for n := range 40_000 {
		grow := n/500%2 == 0
		switch {
		case len(come) < 300 && (grow || len(come) == 0):
			v, i := insert(few)
			come = append(come, owned{v, i})
		case n%5 == 0:
			at := rng.IntN(len(come))
			v := new(entry)
			v.index.Store(come[at].i)
			if !tab.Replace(come[at].i, v) {
				t.Fatal("Replace didn't find what is there")
			}
			come[at].v = v
		default:
			at := rng.IntN(len(come))
			if !tab.Delete(come[at].i, come[at].v) {
				t.Fatal("Delete didn't find what is there")
			}
			come = slices.Delete(come, at, at+1)
		}
	}
	done.Store(true)
	wg.Wait()
	if bad := wellFormed(&tab); bad != "" {
		t.Error(bad)
	}
}

func TestNoAllocations(t *testing.T) {
	var tab, empty Table[entry]
	rng := rand.New(rand.NewPCG(1, 4))
	var i uint32
	for range 1000 {
		i = tab.Insert(new(entry), rng.Uint32)
	}
	if n := testing.AllocsPerRun(100, func() { tab.Lookup(i); tab.Lookup(i + 1); tab.Lookup(0); empty.Lookup(i) }); n != 0 {
		t.Errorf("Lookup allocates %v times", n)
	}
}
