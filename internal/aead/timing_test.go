package aead

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"throughline/packet"
)

// Whether an implementation's time depends on a secret, by the method of "Dude, is my code constant time?" (Reparaz,
// Balasch, Verbauwhede, 2017): two classes of input, drawn at random one after the other and measured each by itself,
// and Welch's t-test over their times, with the slowest measurements cropped at several percentiles. Other load on the
// machine slows both classes equally.
//
//	THROUGHLINE_TIMING=1 go test -run Timing -v ./internal/aead
//
// measures every implementation, for a minute or two. Otherwise only the method is tested: that it detects a comparison of
// tags that ends at the first different byte, and accepts one that doesn't.

// threshold is the |t| from which on times are taken to differ. Chance alone doesn't come near it with the same sign, for
// the same percentile, in each of several runs.
const threshold = 5

var croppings = []float64{0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1}

// An experiment is two classes of input and what is done with them.
type experiment struct {
	name string
	// prepare makes a random input of a class (false or true). Both classes must be prepared by the same memory accesses, or
	// the caches' state differs.
	prepare func(rng *rand.Rand, class bool) (input any)
	load    func(input any) // before the clock starts
	run     func(input any)
}

// welch returns by how many nanoseconds the second class is slower, and the t of that.
func welch(a, b []float64) (slower, t float64) {
	moments := func(x []float64) (mean, squareOfError float64) {
		for _, v := range x {
			mean += v
		}
		mean /= float64(len(x))
		for _, v := range x {
			squareOfError += (v - mean) * (v - mean)
		}
		return mean, squareOfError / float64(len(x)-1) / float64(len(x))
	}
	if len(a) < 2 || len(b) < 2 {
		return 0, 0
	}
	ma, va := moments(a)
	mb, vb := moments(b)
	if va+vb == 0 {
		// A coarse clock may give no variance; then any difference is significant.
		if ma == mb {
			return 0, 0
		}
		return mb - ma, math.Copysign(math.Inf(1), mb-ma)
	}
	return mb - ma, (mb - ma) / math.Sqrt(va+vb)
}

// sample measures n times, and returns the difference and its t for each cropping.
func (e *experiment) sample(rng *rand.Rand, n int) (slower, t []float64) {
	const batch = 50 // prepared together, so that a measurement doesn't directly follow its own preparation
	var times [2][]float64
	var all []float64
	classes, inputs := make([]bool, batch), make([]any, batch)
	for done := -batch; done < n; done += batch { // the first batch only warms up
		for i := range batch {
			classes[i] = rng.Uint32()&1 == 1
			inputs[i] = e.prepare(rng, classes[i])
		}
		for i, input := range inputs {
			if e.load != nil {
				e.load(input)
			}
			start := time.Now()
			e.run(input)
			took := float64(time.Since(start).Nanoseconds())
			if done < 0 {
				continue
			}
			class := 0
			if classes[i] {
				class = 1
			}
			times[class], all = append(times[class], took), append(all, took)
		}
	}
	slices.Sort(all)
	for _, part := range croppings {
		limit := all[int(part*float64(len(all)-1))]
		var cropped [2][]float64
		for class := range times {
			for _, v := range times[class] {
				if v <= limit {
					cropped[class] = append(cropped[class], v)
				}
			}
		}
		d, v := welch(cropped[0], cropped[1])
		slower, t = append(slower, d), append(t, v)
	}
	return slower, t
}

// leaks runs the experiment several times and reports whether the classes differ in the same direction in all runs, for at
// least one cropping, and describes each run: the largest |t|, and the difference in time there.
func (e *experiment) leaks(rng *rand.Rand, runs, n int) (leak bool, seen string) {
	up, down := make([]int, len(croppings)), make([]int, len(croppings))
	for range runs {
		slower, t := e.sample(rng, n)
		worst := 0
		for i, v := range t {
			if v > threshold {
				up[i]++
			}
			if v < -threshold {
				down[i]++
			}
			if math.Abs(v) > math.Abs(t[worst]) {
				worst = i
			}
		}
		seen += fmt.Sprintf("  t %+.1f (%+.2f ns, fastest %v%%)", t[worst], slower[worst], 100*croppings[worst])
	}
	return slices.Contains(up, runs) || slices.Contains(down, runs), seen
}

// tags is an experiment on a comparison of tags: class false differs in the first byte, class true in the last.
func tags(equal func(a, b *[16]byte) bool) *experiment {
	type pair struct{ a, b [16]byte }
	result := 0
	return &experiment{
		prepare: func(rng *rand.Rand, class bool) any {
			p := new(pair)
			fill(rng, p.a[:])
			p.b = p.a
			at := 0
			if class {
				at = 15
			}
			p.b[at] ^= byte(1 + rng.UintN(255))
			// A copy: the race detector remembers which byte was written last, and takes longer over it.
			fresh := new(pair)
			*fresh = *p
			return fresh
		},
		run: func(input any) {
			p := input.(*pair)
			for range 20 { // so that the clock's resolution matters less
				if equal(&p.a, &p.b) {
					result++
				}
			}
		},
	}
}

//go:noinline
func equalLeaky(a, b *[16]byte) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

//go:noinline
func equalConstant(a, b *[16]byte) bool {
	differ := byte(0)
	for i := range a {
		differ |= a[i] ^ b[i]
	}
	return differ == 0
}

// The method detects a leak, and reports none where there is none.
func TestTimingMethod(t *testing.T) {
	rng := random(40)
	n := fullOrShort(4000, 1000)
	found, seen := false, ""
	for range 10 { // a busy machine may hide the leak for a while
		if found, seen = tags(equalLeaky).leaks(rng, 2, n); found {
			break
		}
	}
	if !found {
		t.Errorf("a comparison that ends at the first difference was not detected:%s", seen)
	}
	if found, seen := tags(equalConstant).leaks(rng, 5, n); found {
		t.Errorf("a constant-time comparison is reported to leak:%s", seen)
	}
}

// shapes are trains that take different paths through the code.
var shapes = []struct {
	name    string
	lengths []int
}{
	{"1x64", []int{64}},
	{"1x1420", []int{1420}},
	{"4x1420", []int{1420, 1420, 1420, 1420}},
	{"9x1420", slices.Repeat([]int{1420}, 9)}, // long enough for AVX2, too
	{"10x112", slices.Repeat([]int{112}, 10)},
	{"mixed", []int{1420, 40, 700, 0, 96, 96, 1300, 17}},
}

// A timedTrain is an input. It is copied into one that both classes share, as their own addresses would differ.
type timedTrain struct {
	key   *Key
	slab  []byte
	train []packet.Packet
}

func (m *timedTrain) load(from *timedTrain) {
	m.key = from.key
	copy(m.slab, from.slab)
	copy(m.train, from.train)
}

// experiments test whether an implementation's time depends on the key, on the text, or on where a tag is wrong. That a
// tag is wrong is no secret, as the packet is dropped; how nearly right it was is one.
func experiments(impl *Implementation, lengths []int) []*experiment {
	rng := random(41)
	slab, train := newTrain(rng, 1<<35, lengths...)
	place := &timedTrain{slab: slices.Clone(slab), train: slices.Clone(train)}
	sealed, sealedTrain := slices.Clone(slab), slices.Clone(train)
	impl.NewKey(&testKey).Seal(sealed, sealedTrain)

	load := func(input any) { place.load(input.(*timedTrain)) }
	seal := func(any) { place.key.Seal(place.slab, place.train) }
	open := func(any) { place.key.Open(place.slab, place.train) }

	// text makes all packets zeros, or random.
	text := func(rng *rand.Rand, random bool) *timedTrain {
		m := &timedTrain{impl.NewKey(&testKey), slices.Clone(slab), slices.Clone(train)}
		for _, p := range m.train {
			b := m.slab[p.Off : p.Off+p.Len]
			if fill(rng, b); !random {
				clear(b)
			}
		}
		return m
	}
	// forge changes one random packet of the sealed train.
	forge := func(change func(rng *rand.Rand, text, tag []byte, class bool)) func(rng *rand.Rand, class bool) any {
		return func(rng *rand.Rand, class bool) any {
			m := &timedTrain{impl.NewKey(&testKey), slices.Clone(sealed), slices.Clone(sealedTrain)}
			p := m.train[0]
			for range 1 + rng.IntN(20) {
				if q := m.train[rng.IntN(len(m.train))]; q.Len > 16 {
					p = q
				}
			}
			b := m.slab[p.Off : p.Off+p.Len]
			change(rng, b[:p.Len-16], b[p.Len-16:], class)
			return m
		}
	}
	wrong := func(rng *rand.Rand) byte { return byte(1 + rng.UintN(255)) }

	return []*experiment{{
		name: "seal: the key, fixed or random",
		prepare: func(rng *rand.Rand, class bool) any {
			var key [32]byte
			if fill(rng, key[:]); !class {
				key = testKey
			}
			return &timedTrain{impl.NewKey(&key), slab, train}
		},
		load: load, run: seal,
	}, {
		name:    "seal: the text, zeros or random",
		prepare: func(rng *rand.Rand, class bool) any { return text(rng, class) },
		load:    load, run: seal,
	}, {
		name: "open: the text, zeros or random, with its right tag",
		prepare: func(rng *rand.Rand, class bool) any {
			m := text(rng, class)
			m.key.Seal(m.slab, m.train)
			return m
		},
		load: load, run: open,
	}, {
		name: "open: a tag wrong in its first byte or its last",
		prepare: forge(func(rng *rand.Rand, _, tag []byte, class bool) {
			at := 0
			if class {
				at = 15
			}
			tag[at] ^= wrong(rng)
		}),
		load: load, run: open,
	}, {
		name: "open: a tag wrong in its last bit or random",
		prepare: forge(func(rng *rand.Rand, _, tag []byte, class bool) {
			right := [16]byte(tag)
			if fill(rng, tag); !class {
				copy(tag, right[:])
				tag[15] ^= 0x80
			}
		}),
		load: load, run: open,
	}, {
		name: "open: a wrong text or a wrong tag",
		prepare: forge(func(rng *rand.Rand, text, tag []byte, class bool) {
			if class {
				tag[15] ^= wrong(rng)
			} else {
				text[rng.IntN(len(text))] ^= wrong(rng)
			}
		}),
		load: load, run: open,
	}}
}

// careless is an implementation that isn't constant-time: it compares tags byte by byte until two differ, and does some
// extra work for every second key. If the experiments don't detect that, their other results mean nothing.
var careless = &Implementation{
	name: "careless",
	seal: func(k *Key, slab []byte, train []packet.Packet) {
		portable.seal(k, slab, train)
		if k.raw[5]&1 == 1 {
			extra += extraWork()
		}
	},
	open: func(k *Key, slab []byte, train []packet.Packet) {
		for _, p := range train {
			var s secrets
			s.cipher.init(&k.raw)
			s.begin(p.Counter())
			text, tag := slab[p.Off:p.Off+p.Len-16], slab[p.Off+p.Len-16:p.Off+p.Len]
			s.mac.write(text)
			want := s.mac.sum(0, uint64(len(text)))
			equalLeaky(&want, (*[16]byte)(tag))
		}
		portable.open(k, slab, train)
	},
}

var extra int

//go:noinline
func extraWork() (n int) {
	for i := range 30 {
		n = n*i + 1
	}
	return n
}

func TestTiming(t *testing.T) {
	if os.Getenv("THROUGHLINE_TIMING") == "" {
		t.Skip("THROUGHLINE_TIMING is not set: only the method is tested")
	}
	const runs, samples = 3, 20000
	rng := random(42)
	t.Run("careless", func(t *testing.T) {
		for i, e := range experiments(careless, []int{64}) {
			leak, seen := e.leaks(rng, runs, samples)
			if want := i == 0 || i == 3; want && !leak {
				t.Errorf("%s: a leak was not detected; this machine is too busy to tell:%s", e.name, seen)
			}
			t.Logf("%s: leaks %v:%s", e.name, leak, seen)
		}
	})
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		for _, s := range shapes {
			for _, e := range experiments(impl, s.lengths) {
				n := samples
				if s.name == "10x112" { // short packets, which one would measure first
					n *= 3
				}
				leak, seen := e.leaks(rng, runs, n)
				if leak {
					t.Errorf("%s, %s: the time differs:%s", s.name, e.name, seen)
				} else {
					t.Logf("%s, %s:%s", s.name, e.name, seen)
				}
			}
		}
	})
}
