package workqueue

import (
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

func (h handler) HandleMessage(m *int)            { h.message(*m) }
func (h handler) HandleItem(i *item, todo uint32) { h.item(i, todo) }

// A wish is one entry of the slow reference: a list of every item that has a bit, in order of the first.
type wish struct {
	i    *item
	bits uint32
}

// A queue does what two plain lists do: items come in the order of their first bit, with all bits since they were taken
// last, each once; messages come in order, and those that found the queue full never.
func TestQueueAgainstLists(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.IntRange(1, 4).Draw(t, "capacity")
		q := New[int, *item](capacity)
		items := []*item{newItem(0), newItem(1), newItem(2), newItem(3)}
		var wishes []wish
		var messages []int
		for step := range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1:
				i := rapid.SampledFrom(items).Draw(t, "item")
				bits := uint32(rapid.IntRange(1, 15).Draw(t, "bits"))
				q.Add(&i.Node, bits)
				if at := slices.IndexFunc(wishes, func(w wish) bool { return w.i == i }); at >= 0 {
					wishes[at].bits |= bits
				} else {
					wishes = append(wishes, wish{i, bits})
				}
			case 2:
				n, bits := q.take()
				switch {
				case len(wishes) == 0 && n != nil:
					t.Fatalf("item %d came out of an empty list", n.item.id)
				case len(wishes) > 0 && (n == nil || n.item != wishes[0].i || bits != wishes[0].bits):
					t.Fatalf("took %v with bits %b, want item %d with %b", n, bits, wishes[0].i.id, wishes[0].bits)
				case n != nil:
					wishes = wishes[1:]
				}
			case 3:
				posted := q.Post(step)
				if posted != (len(messages) < capacity) {
					t.Fatalf("with %d messages in a queue of %d, Post reports %v", len(messages), capacity, posted)
				}
				if posted {
					messages = append(messages, step)
				}
			case 4:
				if len(messages) > 0 {
					if m := <-q.messages; m != messages[0] {
						t.Fatalf("message %d, want %d", m, messages[0])
					}
					messages = messages[1:]
				}
			}
			if q.Messages() != len(messages) {
				t.Fatalf("%d messages wait, want %d", q.Messages(), len(messages))
			}
			if len(wishes) > 0 && len(q.ready) == 0 {
				t.Fatalf("%d items wait, and no worker is told", len(wishes))
			}
		}
	})
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
		q := New[int, *item](1)
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
		q := New[int, *item](1)
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
		q := New[int, *item](1)
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
		q := New[int, *item](flood)
		i := newItem(1)
		messages, items, ended := 0, 0, false
		for m := range flood {
			if !q.Post(m) {
				t.Fatalf("the queue is full after %d messages", m)
			}
		}
		if q.Post(flood) {
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
		// About as many as messages, by chance; this far off comes about never.
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
	New[int, *item](1).Add(&newItem(1).Node, 0)
}

func TestNothingIsAllocated(t *testing.T) {
	q := New[int, *item](1)
	i := newItem(1)
	if n := testing.AllocsPerRun(100, func() {
		q.Add(&i.Node, 1)
		q.Add(&i.Node, 2)
		q.Post(1)
		q.Post(2)
		q.take()
		<-q.messages
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
