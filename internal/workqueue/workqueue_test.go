package workqueue

import (
	"hash/maphash"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"
)

// An item of the tests.
type item struct {
	Node[*item]
	id int
}

func newItem(id int) *item {
	i := &item{id: id}
	i.Init(i)
	return i
}

// A handler of the tests does what the test says.
type handler struct {
	message func(m int)
	item    func(i *item, bits uint32)
}

func (h handler) HandleMessages(ms []int) {
	for _, m := range ms {
		h.message(m)
	}
}

func (h handler) HandleItem(i *item, todo uint32) { h.item(i, todo) }

// A wish is one entry of the slow reference: a list of every item that has a bit, in order of the first.
type wish struct {
	i    *item
	bits uint32
}

// A queue does what plain lists do: items come in the order of their first bit, with all bits since they were taken last,
// each once; posted messages come in order, and those that found the queue full never; those of sources as list does.
// The three take turns.
func TestQueueAgainstLists(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.IntRange(1, 20).Draw(t, "capacity")
		batch := rapid.IntRange(1, 4).Draw(t, "batch")
		q := New[int, *item](capacity, batch)
		items := []*item{newItem(0), newItem(1), newItem(2), newItem(3)}
		var wishes []wish
		var messages, sources turns
		skipped := [3]int{} // how often something else was served while this waited
		for step := range rapid.IntRange(1, 100).Draw(t, "steps") {
			switch rapid.IntRange(0, 6).Draw(t, "step") {
			case 0, 1:
				i := rapid.SampledFrom(items).Draw(t, "item")
				bits := uint32(rapid.IntRange(1, 15).Draw(t, "bits"))
				q.Add(&i.Node, bits)
				if at := slices.IndexFunc(wishes, func(w wish) bool { return w.i == i }); at >= 0 {
					wishes[at].bits |= bits
				} else {
					wishes = append(wishes, wish{i, bits})
				}
			case 2, 3, 4:
				source, first := rapid.Uint64Range(0, 3).Draw(t, "source"), rapid.Bool().Draw(t, "first")
				kept := q.Post(&step, source, first)
				line, f := &messages, &q.others
				if first {
					line, f = &sources, &q.first
				}
				if want := line.push(bucketOf(f, source), step, capacity); kept != want {
					t.Fatalf("Post reports %v, want %v; waiting %v", kept, want, *line)
				}
			default:
				ms := make([]int, batch)
				waiting := [3]bool{sources.len() > 0, len(wishes) > 0, messages.len() > 0}
				n, node, bits := q.take(ms)
				served := -1
				switch {
				case node != nil:
					if served = 1; len(wishes) == 0 || node.item != wishes[0].i || bits != wishes[0].bits || n != 0 {
						t.Fatalf("took %v with bits %b, and %d messages; wishes %v", node, bits, n, wishes)
					}
					wishes = wishes[1:]
				case n > 0 && messages.len() > 0 && ms[0] == messages[0].messages[0]:
					served = 2
					if n > 1+messages.len()/8 || n > batch {
						t.Fatalf("took %v of %v", ms[:n], messages)
					}
					for _, m := range ms[:n] {
						if want, _ := messages.pop(); m != want {
							t.Fatalf("took %d, want %d", m, want)
						}
					}
				case n > 0:
					served = 0
					if want, ok := sources.pop(); !ok || n != 1 || ms[0] != want {
						t.Fatalf("took %v, want %d", ms[:n], want)
					}
				}
				for i := range waiting {
					if !waiting[i] || served == i {
						skipped[i] = 0
					} else if skipped[i]++; skipped[i] > 2 {
						t.Fatalf("%d of the three has been passed over %d times", i, skipped[i])
					}
				}
				if served < 0 && waiting != [3]bool{} {
					t.Fatalf("nothing was taken of %v", waiting)
				}
			}
			if want := messages.len() + sources.len(); q.Messages() != want {
				t.Fatalf("%d messages wait, want %d", q.Messages(), want)
			}
			if (len(wishes) > 0 || q.Messages() > 0) && len(q.ready) == 0 {
				t.Fatalf("%d items and %d messages wait, and no worker is told", len(wishes), q.Messages())
			}
		}
	})
}

// turns is the slow reference of the fair queue: lists of messages, in the order of their turns.
type turns []line

type line struct {
	bucket   int
	messages []int
}

func bucketOf(f *fair[int], source uint64) int {
	return int(maphash.Comparable(f.seed, source) % fairBuckets)
}

func (l turns) len() (n int) {
	for _, s := range l {
		n += len(s.messages)
	}
	return n
}

func (l *turns) push(bucket, m, capacity int) (kept bool) {
	kept = true
	own := slices.IndexFunc(*l, func(s line) bool { return s.bucket == bucket })
	if l.len() == capacity {
		kept = false
		most := -1
		for i, s := range *l { // of several the one whose turn is first
			if most < 0 || len(s.messages) > len((*l)[most].messages) {
				most = i
			}
		}
		had := 0
		if own >= 0 {
			had = len((*l)[own].messages)
		}
		if len((*l)[most].messages) < had+2 {
			return false
		}
		(*l)[most].messages = (*l)[most].messages[1:]
	}
	if own < 0 {
		*l = append(*l, line{bucket, []int{m}})
	} else {
		(*l)[own].messages = append((*l)[own].messages, m)
	}
	return kept
}

func (l *turns) pop() (int, bool) {
	if len(*l) == 0 {
		return 0, false
	}
	s := (*l)[0]
	*l = slices.Clone((*l)[1:])
	m := s.messages[0]
	if s.messages = s.messages[1:]; len(s.messages) > 0 {
		*l = append(*l, s)
	}
	return m, true
}

// A source that sends as much as it can keeps none of the others' messages out, however late they come.
func TestGreedySourceGivesWay(t *testing.T) {
	const capacity = 128
	q := New[int, *item](capacity, 1)
	for m := range 10 * capacity {
		q.Post(&m, 1, true)
	}
	others := 0
	used := map[int]bool{bucketOf(&q.first, 1): true}
	for source := uint64(2); others < 32; source++ {
		if b := bucketOf(&q.first, source); used[b] {
			continue // it would share its fortune
		} else {
			used[b] = true
		}
		m := -int(source)
		q.Post(&m, source, true)
		others++
	}
	if n := q.Messages(); n != capacity {
		t.Fatalf("%d messages wait, want %d", n, capacity)
	}
	ms := make([]int, 1)
	for taken := range 2*others + 2 { // turn by turn, the greedy one's among them
		if n, _, _ := q.take(ms); n == 1 && ms[0] < 0 {
			if others--; others == 0 {
				t.Logf("all were served after %d messages", taken+1)
			}
		}
	}
	if others > 0 {
		t.Errorf("%d sources' only messages weren't served in their turn", others)
	}
}

// serve starts workers, which end with the test.
func serve(t *testing.T, q *Queue[int, *item], workers int, h handler) {
	done := make(chan struct{})
	var all sync.WaitGroup
	for range workers {
		all.Go(func() { q.Serve(done, h) })
	}
	t.Cleanup(func() { close(done); all.Wait() })
}

// Some goroutines, each with a bit of its own, add items; each waits for its bit before it adds it again. A bit that was
// lost would leave it waiting for ever, which synctest reports; a bit that came twice is one too many in the end.
func TestEachBitComesOnce(t *testing.T) {
	const producers, rounds, workers = 6, 300, 3
	synctest.Test(t, func(t *testing.T) {
		q := New[int, *item](1, 1)
		items := []*item{newItem(0), newItem(1), newItem(2)}
		var came [producers]chan *item
		for p := range came {
			came[p] = make(chan *item, 1)
		}
		var total atomic.Int64
		serve(t, q, workers, handler{item: func(i *item, todo uint32) {
			total.Add(int64(bits.OnesCount32(todo)))
			for p := range came {
				if todo&(1<<p) != 0 {
					came[p] <- i
				}
			}
		}})
		var all sync.WaitGroup
		for p := range came {
			all.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(p), 1))
				for range rounds {
					i := items[rng.IntN(len(items))]
					q.Add(&i.Node, 1<<p)
					if got := <-came[p]; got != i {
						t.Errorf("producer %d added item %d, and item %d came", p, i.id, got.id)
					}
				}
			})
		}
		all.Wait()
		synctest.Wait()
		if total.Load() != producers*rounds {
			t.Errorf("%d bits came, %d were added", total.Load(), producers*rounds)
		}
		if q.head != nil || q.tail != nil {
			t.Error("the list isn't empty in the end")
		}
	})
}

// An item that is added while it is served is served again.
func TestAddWhileServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New[int, *item](1, 1)
		i := newItem(1)
		var got []uint32
		serve(t, q, 1, handler{item: func(i *item, todo uint32) {
			if got = append(got, todo); len(got) < 3 {
				q.Add(&i.Node, todo<<1)
			}
		}})
		q.Add(&i.Node, 1)
		synctest.Wait()
		if !slices.Equal(got, []uint32{1, 2, 4}) {
			t.Errorf("bits %v, want 1, 2, 4", got)
		}
	})
}

// While one worker is busy another serves what waits behind it.
func TestAnotherWorkerGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New[int, *item](1, 1)
		hold := make(chan struct{})
		var served atomic.Int32
		serve(t, q, 2, handler{item: func(i *item, _ uint32) {
			if i.id == 0 {
				<-hold
			}
			served.Add(1)
		}})
		for id := range 5 {
			q.Add(&newItem(id).Node, 1)
		}
		synctest.Wait()
		if n := served.Load(); n != 4 {
			t.Errorf("%d items were served while one took its time, want 4", n)
		}
		close(hold)
		synctest.Wait()
		if n := served.Load(); n != 5 {
			t.Errorf("%d items were served in the end, want 5", n)
		}
	})
}

// Neither a flood of messages starves the items, nor items that always want something the messages.
func TestNeitherStarves(t *testing.T) {
	const flood = 1000
	synctest.Test(t, func(t *testing.T) {
		q := New[int, *item](flood, 1)
		i := newItem(1)
		messages, items, ended := 0, 0, false
		for m := range flood {
			if !q.Post(&m, 1, false) {
				t.Fatalf("the queue is full after %d messages", m)
			}
		}
		if m := flood; q.Post(&m, 1, false) {
			t.Error("a full queue took another message")
		}
		q.Add(&i.Node, 1)
		serve(t, q, 1, handler{
			message: func(m int) {
				if m != messages {
					t.Errorf("message %d came as number %d", m, messages)
				}
				messages++
				ended = messages == flood
			},
			item: func(i *item, _ uint32) {
				items++
				if !ended {
					q.Add(&i.Node, 1)
				}
			},
		})
		synctest.Wait()
		if messages != flood {
			t.Errorf("%d of %d messages were handled", messages, flood)
		}
		// About as many as messages: they take turns.
		if items < flood/2 || items > 2*flood {
			t.Errorf("the item was served %d times beside %d messages", items, flood)
		}
	})
}

func TestAddWithoutBits(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("an item was added with nothing to do")
		}
	}()
	New[int, *item](1, 1).Add(&newItem(1).Node, 0)
}

func TestNothingIsAllocated(t *testing.T) {
	q := New[int, *item](1, 1)
	i, one, two := newItem(1), 1, 2
	ms := make([]int, 1)
	if n := testing.AllocsPerRun(100, func() {
		q.Add(&i.Node, 1)
		q.Add(&i.Node, 2)
		q.Post(&one, 1, false)
		q.Post(&two, 2, false)
		q.Post(&one, 1, true)
		q.Post(&two, 2, true)
		q.take(ms)
		q.take(ms)
		q.take(ms)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
