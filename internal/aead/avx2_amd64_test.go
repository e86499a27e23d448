package aead

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"throughline/packet"
)

func needAVX2(t testing.TB) {
	t.Helper()
	if !hasAVX2() {
		t.Skip("this CPU lacks AVX2 or BMI2")
	}
}

// gen/avx2 has these offsets as numbers, as it can't import this package.
func TestAVX2Workspace(t *testing.T) {
	var (
		w avx2Work
		g avx2Group
		j avx2Job
	)
	for _, f := range []struct {
		name      string
		got, want uintptr
	}{
		{"workRows", unsafe.Offsetof(w.rows), 0},
		{"workKey", unsafe.Offsetof(w.key), 128},
		{"workLane", unsafe.Offsetof(w.lane), 384},
		{"workHash", unsafe.Offsetof(w.hash), 480},
		{"workS1", unsafe.Offsetof(w.s1), 520},
		{"workJob", unsafe.Offsetof(w.job), 528},
		{"workEnd", unsafe.Offsetof(w.end), 536},
		{"workActive", unsafe.Offsetof(w.active), 544},
		{"workRounds", unsafe.Offsetof(w.rounds), 552},
		{"workPass", unsafe.Offsetof(w.pass), 560},
		{"workDone", unsafe.Offsetof(w.done), 568},
		{"workGroups", unsafe.Offsetof(w.groups), avx2Groups},
		{"groupBlock", unsafe.Offsetof(g.block), 0},
		{"groupLow", unsafe.Offsetof(g.low), 576},
		{"groupHigh", unsafe.Offsetof(g.high), 1152},
		{"groupReady", unsafe.Offsetof(g.ready), 1728},
		{"groupStream", unsafe.Offsetof(g.stream), avx2Stream},
		{"groupStream", unsafe.Offsetof(g.stream), 1984},
		{"groupJobs", unsafe.Offsetof(g.jobs), avx2Jobs},
		{"groupJobs", unsafe.Offsetof(g.jobs), 10176},
		{"a group's size", unsafe.Sizeof(g), avx2GroupSize},
		{"jobOff", unsafe.Offsetof(j.off), 0},
		{"jobLen", unsafe.Offsetof(j.n), 8},
		{"jobStream", unsafe.Offsetof(j.stream), 16},
		{"jobWrong", unsafe.Offsetof(j.wrong), 24},
		{"jobTail", unsafe.Offsetof(j.tail), 32},
		{"jobLength", unsafe.Offsetof(j.length), 48},
		{"jobR", unsafe.Offsetof(j.r), 64},
		{"jobNext", unsafe.Offsetof(j.next), 88},
		{"jobS", unsafe.Offsetof(j.s), 96},
		{"a job's size", unsafe.Sizeof(j), avx2JobSize},
	} {
		if f.got != f.want {
			t.Errorf("%s is %d, the assembly takes it to be %d", f.name, f.got, f.want)
		}
	}
}

// forceAVX2 uses AVX2 wherever it can, even where x/crypto would cost less.
func forceAVX2(k *Key, slab []byte, train []packet.Packet, open int) {
	r := avx2Train{k: k, slab: slab, train: train, w: avx2Works.Get().(*avx2Work), longest: avx2Max, open: open}
	r.run()
}

// checkAVX2 seals a train, forges the packets of which forge(i) is true, and opens it: the whole slab and the whole train
// must be the same as with x/crypto.
func checkAVX2(t *testing.T, rng *rand.Rand, slab []byte, train []packet.Packet, forge func(i int) bool) {
	t.Helper()
	var key [32]byte
	fill(rng, key[:])
	k, lib := avx2.NewKey(&key), xcrypto.NewKey(&key)
	compare := func(what string, wantSlab []byte, wantTrain []packet.Packet) {
		t.Helper()
		for i, p := range wantTrain {
			if train[i] != p {
				t.Fatalf("%s: packet %d of %d is %+v, want %+v", what, i, len(train), train[i], p)
			}
		}
		for i := range wantSlab {
			if slab[i] != wantSlab[i] {
				t.Fatalf("%s: byte %d of the slab differs; train of %d: %v", what, i, len(train), train)
			}
		}
	}
	wantSlab, wantTrain := bytes.Clone(slab), slices.Clone(train)
	sealXCrypto(lib, wantSlab, wantTrain)
	forceAVX2(k, slab, train, 0)
	compare("seal", wantSlab, wantTrain)
	for i, p := range train {
		if p.Drop == 0 && forge(i) {
			slab[p.Off+rng.IntN(p.Len)] ^= 1 << rng.IntN(8)
			if rng.IntN(4) == 0 {
				train[i].Len = rng.IntN(p.Len + 1)
			}
		}
	}
	wantSlab, wantTrain = bytes.Clone(slab), slices.Clone(train)
	openXCrypto(lib, wantSlab, wantTrain)
	forceAVX2(k, slab, train, 1)
	compare("open", wantSlab, wantTrain)
}

// Trains of packets of one length, so that all lanes of a pass and all passes of a group are filled or not.
func TestAVX2Shapes(t *testing.T) {
	needAVX2(t)
	rng := random(20)
	for _, size := range []int{0, 1, 15, 16, 17, 31, 48, 63, 64, 65, 96, 127, 128, 129, 224, 500, 512, 1420,
		avx2Max/2 - 63, avx2Max / 2, avx2Max - 64, avx2Max - 1, avx2Max, avx2Max + 1} {
		for n := range fullOrShort(70, 12) {
			if n*size > 100_000 {
				break
			}
			slab, train := newTrain(rng, rng.Uint64(), slices.Repeat([]int{size}, n+1)...)
			checkAVX2(t, rng, slab, train, func(i int) bool { return n%3 == 1 && i%5 == n%5 })
		}
	}
}

// Random trains. Long packets between short ones let Poly1305 lag behind ChaCha20, so that it is still in one group when
// the next but one is to reuse it.
func TestAVX2Trains(t *testing.T) {
	needAVX2(t)
	rng := random(21)
	for range fullOrShort(4000, 150) {
		most := []int{20, 130, 300, 1500, avx2Max + 200}[rng.IntN(5)]
		lengths := make([]int, 1+rng.IntN([]int{3, 20, 70, 512}[rng.IntN(4)]*200/(200+most)+1))
		for i := range lengths {
			lengths[i] = rng.IntN(most)
			if rng.IntN(2) == 0 {
				lengths[i] &^= 15
			}
			if rng.IntN(8) == 0 {
				lengths[i] = rng.IntN(avx2Max + 100)
			}
		}
		slab, train := newTrain(rng, rng.Uint64(), lengths...)
		for i := range train {
			if rng.IntN(20) == 0 {
				train[i].Drop = packet.DropNoPeer
			}
		}
		often := 1 + rng.IntN(20)
		checkAVX2(t, rng, slab, train, func(int) bool { return rng.IntN(often) == 0 })
	}
}

// No secret is left in the workspace, whatever happened to the packets.
func TestAVX2Wipes(t *testing.T) {
	needAVX2(t)
	w := new(avx2Work)
	avx2Works = sync.Pool{New: func() any { return w }}
	defer func() { avx2Works = sync.Pool{New: func() any { return new(avx2Work) }} }()
	rng := random(22)
	for _, lengths := range [][]int{{0, 0}, {100, 17}, slices.Repeat([]int{96}, 200), slices.Repeat([]int{3000, 5}, 20), slices.Repeat([]int{1420}, 7)} {
		clean := func(what string) {
			if w.avx2Secrets != (avx2Secrets{}) {
				t.Errorf("%s of %d leaves the key or the state: %x", what, len(lengths), w.avx2Secrets)
			}
			for i := range w.groups {
				g := &w.groups[i]
				if g.stream != [avx2Lanes][64]byte{} || g.jobs != [avx2Lanes]avx2Job{} {
					t.Errorf("%s of %d leaves key stream or one-time keys in group %d", what, len(lengths), i)
				}
			}
		}
		slab, train := newTrain(rng, 1, lengths...)
		k := avx2.NewKey(&testKey)
		k.lib = nil // a call of x/crypto would panic
		forceAVX2(k, slab, train, 0)
		if w.pass == 0 {
			t.Fatal("the workspace wasn't used")
		}
		clean("Seal")
		slab[train[0].Off]++
		w.pass = 0
		forceAVX2(k, slab, train, 1)
		if w.pass == 0 || train[0].Drop != packet.DropTag || train[1].Drop != 0 {
			t.Fatal("the train wasn't opened")
		}
		clean("Open")
	}
}

// A negative length is a bug of ours, and must not reach the assembly: adding the tag's 16 bytes could hide it.
func TestAVX2NegativeLength(t *testing.T) {
	needAVX2(t)
	for n := -1; n >= -20; n-- {
		slab, train := newTrain(random(25), 0, slices.Repeat([]int{100}, 8)...)
		train[5].Len = n
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a packet of %d bytes was sealed: %+v", n, train[5])
				}
			}()
			avx2.NewKey(&testKey).Seal(slab, train)
		}()
	}
}

// A choice is whether a train of n packets of one size pays, or is to be left to x/crypto.
type choice struct {
	n, size int
	want    bool
}

// checkChoices compares pays with choices. pays gets a train and the size of its tags.
func checkChoices(t *testing.T, pays func(train []packet.Packet, tag int) bool, choices []choice) {
	for _, c := range choices {
		_, train := newTrain(random(23), 0, slices.Repeat([]int{c.size}, c.n)...)
		if got := pays(train, 0); got != c.want {
			t.Errorf("%dx%d: %v, want %v", c.n, c.size, got, c.want)
		}
		for i := range train {
			train[i].Len += 16
		}
		if got := pays(train, 16); got != c.want {
			t.Errorf("%dx%d to open: %v, want %v", c.n, c.size, got, c.want)
		}
		for i := range train {
			train[i].Drop = packet.DropNoPeer
		}
		if pays(train, 0) {
			t.Errorf("%dx%d, all dropped: true, want false", c.n, c.size)
		}
	}
}

func TestAVX2Pays(t *testing.T) {
	checkChoices(t, avx2Pays, []choice{
		{0, 0, false}, {1, 0, false}, {1, 128, false}, {1, 1420, false}, {1, avx2Longest, false},
		{2, 64, false}, {2, 128, false}, {2, 448, false}, {3, 64, true}, {3, 128, false}, {3, 448, true}, {4, 128, true}, {4, 448, true},
		{3, 1420, false}, {4, 1420, true}, {8, 96, true}, {8, 224, true}, {8, 448, true}, {8, 1420, true}, {16, 1420, true}, {45, 1420, true}, {64, 0, true}, {64, 512, true},
		{64, avx2Longest, true}, {64, avx2Longest + 1, false},
	})
	if _, train := newTrain(random(23), 0, make([]int, 50)...); avx2Pays(train, 16) {
		t.Error("packets shorter than a tag pay")
	}
}

// TestAVX2Ratios prints what AVX2 and x/crypto cost, measured alternately; the constants of avx2Pays come from it. It
// needs a quiet machine.
func TestAVX2Ratios(t *testing.T) {
	if needAVX2(t); os.Getenv("THROUGHLINE_RATIOS") == "" {
		t.Skip("a measurement: set THROUGHLINE_RATIOS=1")
	}
	k, lib := avx2.NewKey(&testKey), xcrypto.NewKey(&testKey)
	for _, size := range []int{0, 32, 64, 96, 128, 160, 224, 320, 448, 512, 768, 1024, 1420, 2800, avx2Max} {
		for _, n := range []int{1, 2, 3, 4, 8, 16, 64} {
			slab, train := newTrain(random(24), 0, slices.Repeat([]int{size}, n)...)
			work := slices.Clone(train)
			times := func(f func()) float64 {
				begin := time.Now()
				f()
				return float64(time.Since(begin).Nanoseconds()) / float64(n)
			}
			var took [4][]float64
			for range 30_000_000 / (n * (500 + size)) {
				for i, f := range []func(*Key, []byte, []packet.Packet){
					func(_ *Key, slab []byte, train []packet.Packet) { forceAVX2(k, slab, train, 0) },
					func(_ *Key, slab []byte, train []packet.Packet) { forceAVX2(k, slab, train, 1) },
					sealXCrypto, openXCrypto,
				} {
					if i%2 == 0 {
						copy(work, train)
					}
					took[i] = append(took[i], times(func() { f(lib, slab, work) }))
				}
			}
			for i := range took {
				slices.Sort(took[i])
			}
			at := func(i, percent int) float64 { return took[i][len(took[i])*percent/100] }
			pays := map[bool]string{true: "avx2", false: "xcrypto"}[avx2Pays(train, 0)]
			fmt.Printf("%2dx%-4d %-7s  median: seal %5.0f ns a packet, %.2f times as fast; open %5.0f, %.2f   10%%: %5.0f, %.2f; %5.0f, %.2f\n", n, size, pays,
				at(0, 50), at(2, 50)/at(0, 50), at(1, 50), at(3, 50)/at(1, 50), at(0, 10), at(2, 10)/at(0, 10), at(1, 10), at(3, 10)/at(1, 10))
		}
	}
}
