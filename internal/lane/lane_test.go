package lane

import (
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// A job is one batch of a timed stream.
type job struct {
	input
	take, work, emit time.Duration
}

// A timed stream runs in the fake time of synctest.
type timed struct {
	jobs            []job
	next            int
	out             []int
	taking, working atomic.Int32
	emitting, most  atomic.Int32
	faults          atomic.Int32
}

func (s *timed) Take(b *batch) (int, bool, error) {
	if s.taking.Add(1) != 1 {
		s.faults.Add(1)
	}
	defer s.taking.Add(-1)
	b.id = s.next
	if b.id == len(s.jobs) {
		return 0, false, errClosed
	}
	time.Sleep(s.jobs[b.id].take)
	s.next++
	return s.jobs[b.id].size, s.jobs[b.id].more, nil
}

func (s *timed) Work(b *batch) {
	s.most.Store(max(s.most.Load(), s.working.Add(1)))
	time.Sleep(s.jobs[b.id].work)
	s.working.Add(-1)
}

func (s *timed) Emit(b *batch) {
	if s.emitting.Add(1) != 1 {
		s.faults.Add(1)
	}
	time.Sleep(s.jobs[b.id].emit)
	s.out = append(s.out, b.id)
	s.emitting.Add(-1)
}

// run runs s in a bubble and returns how long it took there.
func (s *timed) run(t *testing.T, workers, ring int) (took time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		if err := New[*batch](s, workers, ring, func() *batch { return new(batch) }).Run(); err != errClosed {
			t.Errorf("Run returned %v", err)
		}
		took = time.Since(begin)
	})
	return took
}

func TestOrderAndCompleteness(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dur := rapid.Custom(func(rt *rapid.T) time.Duration {
			return time.Duration(rapid.SampledFrom([]int{0, 0, 1, 2, 5, 40}).Draw(rt, "us")) * time.Microsecond
		})
		s := &timed{jobs: rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) job {
			return job{input{rapid.IntRange(0, 2*HandOver).Draw(rt, "size"), rapid.Bool().Draw(rt, "more")},
				dur.Draw(rt, "take"), dur.Draw(rt, "work"), dur.Draw(rt, "emit")}
		}), 0, 60).Draw(rt, "jobs")}
		workers, ring := rapid.IntRange(1, 6).Draw(rt, "workers"), rapid.IntRange(1, 8).Draw(rt, "ring")
		took := s.run(t, workers, ring)
		var alone time.Duration
		for i, j := range s.jobs {
			alone += j.take + j.work + j.emit
			if i >= len(s.out) || s.out[i] != i {
				rt.Fatalf("emitted %v", s.out)
			}
		}
		if len(s.out) != len(s.jobs) || s.faults.Load() != 0 {
			rt.Fatalf("%d of %d emitted, %d faults", len(s.out), len(s.jobs), s.faults.Load())
		}
		if took > alone || int(s.most.Load()) > min(workers, ring) {
			rt.Fatalf("%v with %d workers at once; one alone needs %v", took, s.most.Load(), alone)
		}
	})
}

// TestWorkersAreUsed: what can be done at once is.
func TestWorkersAreUsed(t *testing.T) {
	us := time.Microsecond
	for _, c := range []struct {
		workers, ring int
		jobs          []job
		want          time.Duration
	}{
		{1, 8, slices.Repeat([]job{{large, 0, 10 * us, 0}}, 8), 80 * us},
		{2, 8, slices.Repeat([]job{{large, 0, 10 * us, 0}}, 8), 40 * us},
		{4, 8, slices.Repeat([]job{{large, 0, 10 * us, 0}}, 8), 20 * us},
		{4, 2, slices.Repeat([]job{{large, 0, 10 * us, 0}}, 8), 40 * us}, // bounded by the ring
		{2, 2, slices.Repeat([]job{{large, 0, 10 * us, 0}}, 8), 40 * us}, // the slot that gets free is read to at once
		{4, 8, slices.Repeat([]job{{small, 0, 10 * us, 0}}, 8), 80 * us}, // not worth it
		// The first batch takes long; the others fill the ring and are emitted behind it, and while they are, the read
		// side isn't left alone: 100, then 7 x 5 for the batches behind it, in which the last two are read and done.
		{2, 6, append([]job{{large, 0, 100 * us, 5 * us}}, slices.Repeat([]job{{large, 0, 10 * us, 5 * us}}, 7)...), 140 * us},
	} {
		s := &timed{jobs: c.jobs}
		if took := s.run(t, c.workers, c.ring); took != c.want || len(s.out) != len(c.jobs) {
			t.Errorf("%d workers, ring %d: %v, want %v", c.workers, c.ring, took, c.want)
		}
	}
}

// TestErrorWhileOthersWork: Run returns after what was taken before the error has been emitted, in order, and no
// goroutine outlives it.
func TestErrorWhileOthersWork(t *testing.T) {
	s := &timed{jobs: []job{
		{large, 0, 90 * time.Millisecond, time.Millisecond},
		{large, 0, 30 * time.Millisecond, time.Millisecond},
		{large, 0, 60 * time.Millisecond, time.Millisecond},
	}}
	if took := s.run(t, 4, 4); took != 93*time.Millisecond || !slices.Equal(s.out, []int{0, 1, 2}) {
		t.Errorf("emitted %v after %v", s.out, took)
	}
}

// TestErrorAtOnce: a source that is closed already ends the lane without a batch worked on.
func TestErrorAtOnce(t *testing.T) {
	if s := (&timed{}); s.run(t, 3, 3) != 0 || s.out != nil {
		t.Errorf("emitted %v", s.out)
	}
}

// TestOneIsWokenAtATime: a worker on its way to the read side is enough, however often it is given away meanwhile.
func TestOneIsWokenAtATime(t *testing.T) {
	l := New[*batch](&timed{}, 4, 4, nil)
	l.mu.Lock() // the worker that is started gets no further than here
	l.started, l.err = 1, errClosed
	l.wake()
	l.wake()
	if l.started != 2 {
		t.Errorf("%d workers started, want 1", l.started-1)
	}
	l.mu.Unlock()
	l.others.Wait()
}

func TestMisuse(t *testing.T) {
	panics := func(name string, f func()) {
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", name)
			}
		}()
		f()
	}
	panics("no worker", func() { New[*batch](&timed{}, 0, 1, nil) })
	panics("no ring", func() { New[*batch](&timed{}, 1, 0, nil) })
	l := New[*batch](&timed{}, 1, 1, func() *batch { return new(batch) })
	l.Run()
	panics("second Run", func() { l.Run() })
}

// A counted stream has next to no work, so that the lane itself is what runs.
type counted struct {
	in       input
	n        int // batches to take
	next     int
	out      int
	wrong    int
	at       func(n int) // called in Take
	busyWork int
}

type counter struct {
	id  int
	sum [8]int // written by Work and read by Emit, for the race detector
}

func (s *counted) Take(b *counter) (int, bool, error) {
	if s.at != nil {
		s.at(s.next)
	}
	if s.next == s.n {
		return 0, false, errClosed
	}
	b.id = s.next
	s.next++
	return s.in.size, s.in.more, nil
}

func (s *counted) Work(b *counter) {
	for range b.id % 5 * s.busyWork {
		b.sum[b.id%8]++
	}
	if b.id%7 == 0 && s.busyWork != 0 {
		runtime.Gosched()
	}
	b.sum[0] = b.id
}

func (s *counted) Emit(b *counter) {
	if b.id != s.out || b.sum[0] != b.id {
		s.wrong++
	}
	s.out++
}

// TestStress is for the race detector, which sees any two steps of one batch, any two takes and any two emits that
// nothing orders.
func TestStress(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	for _, workers := range []int{2, 3, 8} {
		for _, ring := range []int{2, 3, 16} {
			s := &counted{in: large, n: 5000, busyWork: 50}
			New[*counter](s, workers, ring, func() *counter { return new(counter) }).Run()
			if s.out != s.n || s.wrong != 0 {
				t.Errorf("%d workers, ring %d: %d of %d emitted, %d wrong", workers, ring, s.out, s.n, s.wrong)
			}
		}
	}
}

func TestNoAllocations(t *testing.T) {
	for _, c := range []struct {
		in      input
		workers int
		bound   uint64 // mallocs in 50000 batches; a few may be the runtime's own
	}{{small, 4, 20}, {large, 1, 20}, {large, 3, 500}} {
		var before, after runtime.MemStats
		s := &counted{in: c.in, n: 60000}
		s.at = func(n int) {
			switch n {
			case 10000:
				runtime.ReadMemStats(&before)
			case 60000:
				runtime.ReadMemStats(&after)
			}
		}
		New[*counter](s, c.workers, 4, func() *counter { return new(counter) }).Run()
		if n := after.Mallocs - before.Mallocs; n > c.bound {
			t.Errorf("%v, %d workers: %d allocations in 50000 batches", c.in, c.workers, n)
		}
	}
}

// BenchmarkAlone is what the lane itself costs a worker that stays alone, a batch.
func BenchmarkAlone(b *testing.B) {
	s := &counted{in: small, n: b.N}
	b.ReportAllocs()
	New[*counter](s, 4, 4, func() *counter { return new(counter) }).Run()
}

// BenchmarkHandOver is what it costs at worst: every batch handed over, with nothing to do for anybody.
func BenchmarkHandOver(b *testing.B) {
	for _, workers := range []int{2, 4} {
		b.Run(fmt.Sprint(workers), func(b *testing.B) {
			s := &counted{in: large, n: b.N}
			b.ReportAllocs()
			New[*counter](s, workers, 8, func() *counter { return new(counter) }).Run()
		})
	}
}
