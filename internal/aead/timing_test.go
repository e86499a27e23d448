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

// Whether the time that a way takes depends on a secret, by the method of "Dude, is my code constant time?" (Reparaz,
// Balasch, Verbauwhede, 2017): two classes of input, drawn at random one after the other and measured each by itself,
// and Welch's t-test over their times, with the slowest measurements cropped at several percentiles. What else runs on
// the machine slows both classes alike.
//
//	THROUGHLINE_TIMING=1 go test -run Timing -v ./internal/aead
//
// measures every way, for a minute or two. Otherwise only the method is checked: that it finds a comparison of tags that
// ends at the first byte that differs, and clears one that doesn't.

// suspect is the |t| beyond which a difference is taken for one. With the same sign in each of several runs, for the same
// percentile, chance alone doesn't come near it.
const suspect = 5

var croppings = []float64{0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1}

// An experiment is two classes of input and what is done with them.
type experiment struct {
	name string
	// prepare makes an input of a class (false or true), at random within that class. All that is done with a class must
	// also be done with the other, or the caches know them apart.
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
		// Clocks that tick slowly may show no variance; then a difference is one for certain.
		if ma == mb {
			return 0, 0
		}
		return mb - ma, math.Copysign(math.Inf(1), mb-ma)
	}
	return mb - ma, (mb - ma) / math.Sqrt(va+vb)
}

// sample measures n times, and returns the difference and its t for each cropping.
func (e *experiment) sample(rng *rand.Rand, n int) (slower, t []float64) {
	const batch = 50 // prepared together, so that preparing one leaves nothing special in the caches for it
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

// leaks runs the experiment several times and reports whether the classes differ in all of them alike, for one cropping
// at least, and what was seen: of each run the largest |t|, and the difference there.
func (e *experiment) leaks(rng *rand.Rand, runs, n int) (leak bool, seen string) {
	up, down := make([]int, len(croppings)), make([]int, len(croppings))
	for range runs {
		slower, t := e.sample(rng, n)
		worst := 0
		for i, v := range t {
			if v > suspect {
				up[i]++
			}
			if v < -suspect {
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
			return p
		},
		run: func(input any) {
			p := input.(*pair)
			for range 20 { // so that the clock's own ticks matter less
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

// The method finds what leaks, and doesn't cry at what doesn't.
func TestTimingMethod(t *testing.T) {
	rng := random(40)
	n := fullOrShort(4000, 1000)
	found, seen := false, ""
	for range 10 { // a machine that is busy enough hides anything for a while
		if found, seen = tags(equalLeaky).leaks(rng, 2, n); found {
			break
		}
	}
	if !found {
		t.Errorf("a comparison that ends at the first difference was not found:%s", seen)
	}
	if found, seen := tags(equalConstant).leaks(rng, 5, n); found {
		t.Errorf("a comparison that always takes the same time is said to leak:%s", seen)
	}
}

// shapes are trains that go different ways through the code.
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

// A measured is a train that is worked on in a place that both classes share, as their own places might differ.
type measured struct {
	key   *Key
	slab  []byte
	train []packet.Packet
}

func (m *measured) load(from *measured) {
	m.key = from.key
	copy(m.slab, from.slab)
	copy(m.train, from.train)
}

// experiments are all that is asked of a way: whether its time depends on the key, on the text, or on where a tag is
// wrong. Whether a tag is wrong shows anyway, for the packet is dropped; how nearly right it was must not.
func experiments(impl *Implementation, lengths []int) []*experiment {
	rng := random(41)
	slab, train := newTrain(rng, 1<<35, lengths...)
	place := &measured{slab: slices.Clone(slab), train: slices.Clone(train)}
	sealed, sealedTrain := slices.Clone(slab), slices.Clone(train)
	impl.NewKey(&testKey).Seal(sealed, sealedTrain)

	load := func(input any) { place.load(input.(*measured)) }
	seal := func(any) { place.key.Seal(place.slab, place.train) }
	open := func(any) { place.key.Open(place.slab, place.train) }

	// text makes all packets zeros, or random.
	text := func(rng *rand.Rand, random bool) *measured {
		m := &measured{impl.NewKey(&testKey), slices.Clone(slab), slices.Clone(train)}
		for _, p := range m.train {
			b := m.slab[p.Off : p.Off+p.Len]
			if fill(rng, b); !random {
				clear(b)
			}
		}
		return m
	}
	// forge spoils one packet of the sealed train, whichever.
	forge := func(spoil func(rng *rand.Rand, text, tag []byte, class bool)) func(rng *rand.Rand, class bool) any {
		return func(rng *rand.Rand, class bool) any {
			m := &measured{impl.NewKey(&testKey), slices.Clone(sealed), slices.Clone(sealedTrain)}
			p := m.train[0]
			for range 1 + rng.IntN(20) {
				if q := m.train[rng.IntN(len(m.train))]; q.Len > 16 {
					p = q
				}
			}
			b := m.slab[p.Off : p.Off+p.Len]
			spoil(rng, b[:p.Len-16], b[p.Len-16:], class)
			return m
		}
	}
	wrong := func(rng *rand.Rand) byte { return byte(1 + rng.UintN(255)) }

	return []*experiment{{
		name: "seal: the key, one or any",
		prepare: func(rng *rand.Rand, class bool) any {
			var key [32]byte
			if fill(rng, key[:]); !class {
				key = testKey
			}
			return &measured{impl.NewKey(&key), slab, train}
		},
		load: load, run: seal,
	}, {
		name:    "seal: the text, zeros or any",
		prepare: func(rng *rand.Rand, class bool) any { return text(rng, class) },
		load:    load, run: seal,
	}, {
		name: "open: the text, zeros or any, and with it the right tag",
		prepare: func(rng *rand.Rand, class bool) any {
			m := text(rng, class)
			m.key.Seal(m.slab, m.train)
			return m
		},
		load: load, run: open,
	}, {
		name: "open: a tag's first byte wrong or its last",
		prepare: forge(func(rng *rand.Rand, _, tag []byte, class bool) {
			at := 0
			if class {
				at = 15
			}
			tag[at] ^= wrong(rng)
		}),
		load: load, run: open,
	}, {
		name: "open: a tag wrong in its last bit or all over",
		prepare: forge(func(rng *rand.Rand, _, tag []byte, class bool) {
			right := [16]byte(tag)
			if fill(rng, tag); !class {
				copy(tag, right[:])
				tag[15] ^= 0x80
			}
		}),
		load: load, run: open,
	}, {
		name: "open: a text wrong or its tag",
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

// careless is a way as one might write it who doesn't know better: it compares tags byte by byte until two differ, and
// does a little more for every second key. An experiment that doesn't find that says nothing about the others.
var careless = &Implementation{
	name: "careless",
	seal: func(k *Key, slab []byte, train []packet.Packet) {
		portable.seal(k, slab, train)
		if k.raw[5]&1 == 1 {
			spent += spend()
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

var spent int

//go:noinline
func spend() (n int) {
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
				t.Errorf("%s: a leak was not found; this machine is too busy to tell:%s", e.name, seen)
			}
			t.Logf("%s: leaks %v:%s", e.name, leak, seen)
		}
	})
	eachImplementation(t, func(t *testing.T, impl *Implementation) {
		for _, s := range shapes {
			for _, e := range experiments(impl, s.lengths) {
				n := samples
				if s.name == "10x112" { // the short packets of a train: the first thing that one would measure
					n *= 3
				}
				leak, seen := e.leaks(rng, runs, n)
				if leak {
					t.Errorf("%s, %s: the time tells one from the other:%s", s.name, e.name, seen)
				} else {
					t.Logf("%s, %s:%s", s.name, e.name, seen)
				}
			}
		}
	})
}
