package staging

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"throughline/internal/wire"
	"throughline/packet"
)

func always(int) bool { return true }

// A waiting packet of the slow reference: whose it is, and its bytes, in the order in which they came.
type waiting struct {
	queue int
	bytes string
}

// Queues behave as one list of all packets, in which each queue's oldest gives way beyond its bound, and the oldest of all
// beyond the budget, as many as lie in one segment; and nothing else does.
func TestQueuesAreAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New(4 * segmentSize)
		defer s.Close()
		queues := make([]Queue, 6)
		var model []waiting
		count := func(q int) (n int) {
			for _, w := range model {
				if w.queue == q {
					n++
				}
			}
			return n
		}
		remove := func(q, n int) {
			kept := model[:0:0]
			for _, w := range model {
				if w.queue != q || n == 0 {
					kept = append(kept, w)
				} else {
					n--
				}
			}
			model = kept
		}
		batch := packet.NewSize(80<<10, wire.MaxStaged)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		for range rapid.IntRange(0, 150).Draw(t, "steps") {
			q := rapid.IntRange(0, len(queues)-1).Draw(t, "queue")
			switch rapid.IntRange(0, 20).Draw(t, "step") {
			default:
				p := make([]byte, rapid.SampledFrom([]int{0, 1, 20, 1420, 9000, 20000}).Draw(t, "size"))
				for i := 0; i+8 <= len(p); i += 8 {
					binary.LittleEndian.PutUint64(p[i:], rng.Uint64())
				}
				want := string(p)
				before := s.used
				dropped := s.Push(&queues[q], p)
				clear(p) // it must have been copied
				if count(q) == wire.MaxStaged {
					remove(q, 1)
					dropped--
				}
				if dropped < 0 || dropped > len(model) {
					t.Fatalf("%d packets gave way beyond the queue's own, of %d", dropped, len(model))
				}
				if dropped > 0 && before < s.limit {
					t.Fatalf("%d packets gave way while %d of %d segments were used", dropped, before, s.limit)
				}
				model = append(model[dropped:], waiting{q, want})
			case 0, 1:
				batch.Reset()
				told := 0
				keep := rapid.Bool().Draw(t, "refuse")
				moved := s.MoveTo(&queues[q], batch, func(n int) bool { told = n; return !keep })
				if had := count(q) > 0; moved != (had && !keep) || (told > 0) != had {
					t.Fatalf("moved: %v, %d packets, of %d", moved, told, count(q))
				}
				if told != len(batch.Packets) {
					t.Fatalf("told of %d packets, and %d came", told, len(batch.Packets))
				}
				i := 0
				for _, w := range model {
					if w.queue == q && i < len(batch.Packets) {
						if string(batch.Bytes(i)) != w.bytes {
							t.Fatalf("packet %d differs", i)
						}
						i++
					}
				}
				if moved {
					remove(q, told)
				}
			case 2:
				if n := s.Clear(&queues[q]); n != count(q) {
					t.Fatalf("Clear removed %d of %d", n, count(q))
				}
				remove(q, len(model))
			}
			for i := range queues {
				if queues[i].Len() != count(i) {
					t.Fatalf("%d packets wait in queue %d, want %d", queues[i].Len(), i, count(i))
				}
			}
			used := 0
			for _, seg := range s.segments {
				if seg != nil {
					used++
				}
			}
			if used != s.used || used > s.limit {
				t.Fatalf("%d segments are used, %d counted, %d allowed", used, s.used, s.limit)
			}
		}
	})
}

// Peers that never answer, however many: the budget holds, and who has waited longest gives way.
func TestBudget(t *testing.T) {
	const budget, peers, each, size = 4 << 20, 3000, wire.MaxStaged, 1420
	s := New(budget)
	defer s.Close()
	queues := make([]Queue, peers)
	p := bytes.Repeat([]byte{7}, size)
	dropped := 0
	for i := range queues {
		for range each {
			dropped += s.Push(&queues[i], p)
		}
	}
	left := 0
	for i := range queues {
		left += queues[i].Len()
		if i > 0 && queues[i].Len() < queues[i-1].Len() {
			t.Fatalf("queue %d, which came later, has %d packets, the one before %d", i, queues[i].Len(), queues[i-1].Len())
		}
	}
	if left+dropped != peers*each {
		t.Errorf("%d packets wait and %d gave way, of %d", left, dropped, peers*each)
	}
	// Each segment holds 91 packets.
	if most := budget / segmentSize * (segmentSize / (size + headerSize)); left > most || left < most*9/10 {
		t.Errorf("%d packets wait in %d bytes, want %d or a few less", left, budget, most)
	}
	if n := queues[peers-1].Len(); n != wire.MaxStaged {
		t.Errorf("the last queue has %d packets", n)
	}
}

// A peer that is about to answer isn't kept out by those that don't.
func TestLateQueueIsKept(t *testing.T) {
	s := New(1 << 20)
	defer s.Close()
	dead := make([]Queue, 100)
	p := make([]byte, 1420)
	for round := range 10 {
		for i := range dead {
			s.Push(&dead[i], p)
		}
		var live Queue
		s.Push(&live, []byte{byte(round)})
		for i := range 50 {
			s.Push(&dead[i], p)
		}
		b := packet.NewSize(80<<10, wire.MaxStaged)
		if !s.MoveTo(&live, b, always) || len(b.Packets) != 1 || b.Bytes(0)[0] != byte(round) {
			t.Fatalf("round %d: the live peer's packet is gone", round)
		}
	}
}

// When nothing is staged, nothing is held but what the next packet may use; and one that stays doesn't make the list of
// segments grow for ever.
func TestMemoryIsGivenBack(t *testing.T) {
	s := New(0)
	queues := make([]Queue, 300)
	p := make([]byte, 1420)
	for i := range queues {
		for range wire.MaxStaged {
			s.Push(&queues[i], p)
		}
	}
	if s.used < 300 {
		t.Fatalf("%d segments", s.used)
	}
	for i := range queues {
		s.Clear(&queues[i])
	}
	if s.used > 1 || len(s.segments) > 1 || s.owners != nil || s.free != nil {
		t.Errorf("%d segments in a list of %d, %d owners, when nothing is staged", s.used, len(s.segments), len(s.owners))
	}
	s.Close()
	if s.used != 0 || len(s.segments) > 0 || s.spare != nil {
		t.Error("a closed store has memory")
	}

	s = New(minSegments * segmentSize)
	defer s.Close()
	var stays, passes Queue
	s.Push(&stays, p)
	for range 100_000 {
		s.Push(&passes, p)
		if len(s.segments) > 16*minSegments+1 {
			t.Fatalf("the list has %d segments", len(s.segments))
		}
	}
}

// Nothing is allocated for a packet once there are segments.
func TestAllocs(t *testing.T) {
	s := New(minSegments * segmentSize)
	defer s.Close()
	queues := make([]Queue, 10)
	p := make([]byte, 1420)
	b := packet.NewSize(80<<10, wire.MaxStaged)
	use := func() {
		for i := range queues {
			for range 20 {
				s.Push(&queues[i], p)
			}
		}
		b.Reset()
		s.MoveTo(&queues[9], b, always)
	}
	use()
	if n := testing.AllocsPerRun(100, use); n > 10 { // a segment's descriptor for each 128 KiB, of 200 packets
		t.Errorf("%v allocations for 200 packets", n)
	}
}

// All methods beside each other, for the race detector.
func TestConcurrent(t *testing.T) {
	s := New(minSegments * segmentSize)
	queues := make([]Queue, 8)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			b := packet.NewSize(80<<10, wire.MaxStaged)
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			for range 3000 {
				q := &queues[rng.IntN(len(queues))]
				switch rng.IntN(10) {
				default:
					s.Push(q, make([]byte, rng.IntN(9000)))
				case 0:
					b.Reset()
					s.MoveTo(q, b, always)
				case 1:
					s.Clear(q)
				}
				if n := q.Len(); n < 0 || n > wire.MaxStaged {
					t.Errorf("%d packets wait", n)
				}
			}
		})
	}
	wg.Wait()
	s.Close()
	for i := range queues {
		if queues[i].Len() != 0 {
			t.Error("a closed store has packets")
		}
	}
}
