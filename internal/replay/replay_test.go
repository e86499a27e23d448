package replay

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"unsafe"

	"pgregory.net/rapid"

	"throughline/internal/wire"
)

const (
	size  = wire.ReplayWindow
	limit = wire.RejectAfterMessages
)

// model is the slow reference: the set of all counters that ever came.
type model struct {
	last uint64
	seen map[uint64]bool
}

func (m *model) accept(c uint64) bool {
	if c >= limit || m.last >= size && c <= m.last-size || m.seen[c] {
		return false
	}
	if m.seen == nil {
		m.seen = make(map[uint64]bool)
	}
	m.seen[c] = true
	m.last = max(m.last, c)
	return true
}

// The numbered table of edges: each group begins with a new window and runs in order.
func TestEdges(t *testing.T) {
	type step struct {
		counter uint64
		want    bool
	}
	groups := []struct {
		name  string
		steps []step
	}{
		{"1 the first counters, each twice", []step{
			{0, true}, {0, false}, {1, true}, {1, false}, {0, false}, {2, true}, {1, false}, {2, false},
		}},
		{"2 zero may come late", []step{{9, true}, {0, true}, {0, false}, {9, false}, {8, true}, {1, true}, {1, false}}},
		{"3 one may be the first", []step{{1, true}, {1, false}, {0, true}, {0, false}, {2, true}}},
		{"4 the ends of a word", []step{
			{63, true}, {64, true}, {65, true}, {127, true}, {128, true}, {63, false}, {64, false}, {65, false},
			{127, false}, {128, false}, {62, true}, {66, true}, {126, true}, {129, true},
		}},
		{"5 the far edge of the window, first lap", []step{
			{size - 1, true}, {0, true}, {0, false}, {size, true}, {0, false}, {1, true}, {1, false},
			{size + 1, true}, {1, false}, {2, true}, {2, false},
		}},
		{"6 exactly too old", []step{{size, true}, {0, false}, {1, true}, {1, false}}},
		{"7 a jump of one window forgets all", []step{
			{5, true}, {5 + size, true}, {5, false}, {6, true}, {6, false}, {5 + size, false}, {4 + size, true},
		}},
		{"8 a jump of one less keeps one", []step{{5, true}, {4 + size, true}, {5, false}, {6, true}, {4, false}}},
		{"9 a jump far ahead", []step{
			{7, true}, {1 << 40, true}, {7, false}, {1<<40 - size, false}, {1<<40 - size + 1, true},
			{1<<40 - size + 1, false}, {1<<40 - 1, true}, {1 << 40, false}, {1<<40 + 1, true},
		}},
		{"10 a jump to the same bit of the next lap", []step{{100, true}, {100 + 2*size, true}, {100 + size, false}, {100 + size + 1, true}}},
		{"11 a jump within a word", []step{{64, true}, {70, true}, {65, true}, {69, true}, {70, false}, {64, false}, {65, false}}},
		{"12 a jump into the next word", []step{{60, true}, {70, true}, {61, true}, {64, true}, {69, true}, {60, false}, {70, false}}},
		{"13 the stale bits of an earlier lap", []step{
			{10, true}, {11, true}, {12, true}, {size + 9, true}, {10, false}, {size + 12, true},
			{size + 10, true}, {size + 11, true}, {size + 10, false}, {size + 11, false},
		}},
		{"14 in order through the bit of an earlier lap", []step{
			{3, true}, {4, true}, {size + 2, true}, {size + 3, true}, {size + 4, true}, {size + 3, false}, {size + 4, false}, {4, false},
		}},
		{"15 what is still in the window keeps its bit, beside a jump within its word", []step{
			{20, true}, {size + 1, true}, {size + 5, true}, {20, false}, {6, true}, {5, false}, {size + 4, true}, {size + 2, true},
		}},
		{"16 reject-after-messages", []step{
			{limit - 1, true}, {limit - 1, false}, {limit, false}, {limit + 1, false}, {1<<64 - 1, false},
			{limit - 2, true}, {limit - size, true}, {limit - size - 1, false}, {limit - size, false},
		}},
		{"17 a refused counter marks nothing", []step{
			{limit, false}, {1<<64 - 1, false}, {0, true}, {1, true}, {limit + 64, false}, {2, true}, {0, false},
		}},
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			var w Window
			for i, s := range g.steps {
				if got := w.Accept(s.counter); got != s.want {
					t.Fatalf("step %d: Accept(%d) = %v, want %v", i+1, s.counter, got, s.want)
				}
			}
		})
	}
}

// Whole windows forward and backward: all of it fits, none of it fits twice.
func TestWholeWindow(t *testing.T) {
	for _, start := range []uint64{0, 1, 63, 64, size - 1, size, 1<<32 - 100, limit - size} {
		var up, down Window
		for i := range uint64(size) {
			if !up.Accept(start + i) {
				t.Fatalf("from %d upwards: %d refused", start, start+i)
			}
		}
		for i := range uint64(size) {
			if up.Accept(start + i) {
				t.Fatalf("from %d upwards: %d accepted twice", start, start+i)
			}
		}
		for i := range uint64(size) {
			if !down.Accept(start + size - 1 - i) {
				t.Fatalf("to %d downwards: %d refused", start, start+size-1-i)
			}
		}
		if start > 0 && down.Accept(start-1) {
			t.Fatalf("to %d downwards: %d accepted, too old", start, start-1)
		}
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w Window
		var m model
		t.Repeat(map[string]func(*rapid.T){
			"near the head": func(t *rapid.T) { step(t, &w, &m, m.last+rapid.Uint64Max(130).Draw(t, "d")-65) },
			"in the window": func(t *rapid.T) { step(t, &w, &m, m.last-rapid.Uint64Max(size+64).Draw(t, "d")) },
			"a leap":        func(t *rapid.T) { step(t, &w, &m, m.last+rapid.Uint64Max(2*size+64).Draw(t, "d")) },
			"anywhere":      func(t *rapid.T) { step(t, &w, &m, rapid.Uint64().Draw(t, "c")) },
			"near the end":  func(t *rapid.T) { step(t, &w, &m, limit-rapid.Uint64Max(2*size).Draw(t, "d")) },
			"a run": func(t *rapid.T) {
				from := m.last - rapid.Uint64Max(300).Draw(t, "d")
				for i := range uint64(rapid.IntRange(1, 400).Draw(t, "n")) {
					step(t, &w, &m, from+i)
				}
			},
			"reset": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "really") == 0 {
					w.Reset()
					m = model{}
				}
			},
		})
	})
}

func step(t *rapid.T, w *Window, m *model, c uint64) {
	last := m.last
	if got, want := w.Accept(c), m.accept(c); got != want {
		t.Fatalf("Accept(%d) = %v after %d, want %v", c, got, last, want)
	}
}

// A dense walk: the window is nearly full all the time, and after every step of the head each counter it may hold, and
// a few on either side, is tried on a copy. A stale bit would refuse what is new, a lost one accept what came.
func TestEveryBit(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	for _, start := range []uint64{0, 1 << 32, limit - 40*size} {
		var w Window
		m := model{seen: map[uint64]bool{}}
		accept := func(c uint64) {
			if got, want := w.Accept(c), m.accept(c); got != want {
				t.Fatalf("Accept(%d) = %v after %d, want %v", c, got, m.last, want)
			}
		}
		accept(start)
		for range 60 {
			accept(m.last + 1 + rng.Uint64N([]uint64{2, 70, 200, size + 100}[rng.IntN(4)]))
			for c := m.last - min(m.last, size+70); c <= m.last+3; c++ {
				try := w
				if got, want := try.Accept(c), m.last < size+c && !m.seen[c]; got != want {
					t.Fatalf("Accept(%d) = %v after %d, want %v", c, got, m.last, want)
				}
			}
			for c := m.last - min(m.last, size-1); c < m.last; c++ { // fill it, but for a few
				if rng.IntN(50) > 0 {
					accept(c)
				}
			}
		}
	}
}

func TestReset(t *testing.T) {
	var w Window
	for _, c := range []uint64{0, 5, 5 * size, limit - 1} {
		w.Accept(c)
	}
	w.Reset()
	if w != (Window{}) {
		t.Error("a window that was reset differs from a new one")
	}
	if !w.Accept(5) || !w.Accept(0) {
		t.Error("a window that was reset refuses")
	}
}

// A window is a part of every session: a gateway has a hundred thousand.
func TestSize(t *testing.T) {
	if n := unsafe.Sizeof(Window{}); n != size/8+8 {
		t.Errorf("a window has %d bytes, want %d", n, size/8+8)
	}
}

func TestNoAllocations(t *testing.T) {
	var w Window
	c := uint64(0)
	if n := testing.AllocsPerRun(1000, func() { w.Accept(c); w.Accept(c - 7); c += 99 }); n != 0 {
		t.Errorf("Accept allocates %v times", n)
	}
}

// FuzzAccept reads counters as steps from the highest so far, so that mutations stay near the edges.
func FuzzAccept(f *testing.F) {
	for _, steps := range [][]int16{{0, 0, 1, 1, -1}, {size, -size, 1 - size, size - 1}, {32767, 64, -64, 63, -63}} {
		var b []byte
		for _, s := range steps {
			b = binary.LittleEndian.AppendUint16(b, uint16(s))
		}
		f.Add(uint64(0), b)
		f.Add(uint64(limit-size), b)
	}
	f.Fuzz(func(t *testing.T, start uint64, steps []byte) {
		var w Window
		var m model
		if got, want := w.Accept(start), m.accept(start); got != want {
			t.Fatalf("Accept(%d) = %v, want %v", start, got, want)
		}
		for ; len(steps) >= 2; steps = steps[2:] {
			last := m.last
			c := last + uint64(int16(binary.LittleEndian.Uint16(steps)))
			if got, want := w.Accept(c), m.accept(c); got != want {
				t.Fatalf("Accept(%d) = %v after %d, want %v", c, got, last, want)
			}
		}
	})
}

func BenchmarkAccept(b *testing.B) {
	b.Run("in order", func(b *testing.B) {
		var w Window
		var c uint64
		for b.Loop() {
			if !w.Accept(c) {
				b.Fatal("refused")
			}
			c++
		}
	})
	b.Run("reordered", func(b *testing.B) {
		// Blocks of 512, shuffled: what a batch at most can do.
		order := rand.New(rand.NewPCG(1, 1)).Perm(512)
		var w Window
		i, block := 0, uint64(0)
		for b.Loop() {
			if !w.Accept(block + uint64(order[i])) {
				b.Fatal("refused")
			}
			if i++; i == len(order) {
				i, block = 0, block+512
			}
		}
	})
	b.Run("replayed", func(b *testing.B) {
		var w Window
		w.Accept(1000)
		for b.Loop() {
			if w.Accept(1000) {
				b.Fatal("accepted")
			}
		}
	})
	b.Run("leaping", func(b *testing.B) {
		var w Window
		var c uint64
		for b.Loop() {
			if !w.Accept(c) {
				b.Fatal("refused")
			}
			c += size - 1
		}
	})
}
