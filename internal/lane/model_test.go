package lane

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

var errClosed = errors.New("source closed")

// An input is what one Take brings.
type input struct {
	size int
	more bool
}

var (
	large = input{HandOver, true}
	small = input{HandOver - 1, true}
	last  = input{HandOver, false}
)

// A batch of the tests: the number of its Take.
type batch struct{ id int }

// A desk holds every call of a stage until the test releases it, so that the test decides what happens next.
type desk struct {
	inputs []input

	mu      sync.Mutex
	takes   []*call // calls that wait; takes and emits must never be more than one
	works   []*call
	emits   []*call
	worked  []bool
	emitted int
	faults  []string
	freed   chan struct{} // closed when something went wrong: nothing is held any more
}

type call struct {
	b  *batch
	on chan int // for a Take: the number of the batch it brings, len(inputs) for the end
}

func (d *desk) fault(format string, a ...any) { d.faults = append(d.faults, fmt.Sprintf(format, a...)) }

func (d *desk) wait(list *[]*call, b *batch) int {
	c := &call{b, make(chan int)}
	d.mu.Lock()
	*list = append(*list, c)
	if len(d.takes) > 1 || len(d.emits) > 1 {
		d.fault("%d takes and %d emits at once", len(d.takes), len(d.emits))
	}
	d.mu.Unlock()
	id := len(d.inputs)
	select {
	case id = <-c.on:
	case <-d.freed:
	}
	d.mu.Lock()
	*list = slices.DeleteFunc(*list, func(o *call) bool { return o == c })
	d.mu.Unlock()
	return id
}

func (d *desk) Take(b *batch) (int, bool, error) {
	b.id = d.wait(&d.takes, b)
	if b.id == len(d.inputs) {
		return 0, false, errClosed
	}
	in := d.inputs[b.id]
	return in.size, in.more, nil
}

func (d *desk) Work(b *batch) {
	d.wait(&d.works, b)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.worked[b.id] {
		d.fault("batch %d worked on twice", b.id)
	}
	d.worked[b.id] = true
}

func (d *desk) Emit(b *batch) {
	d.wait(&d.emits, b)
	d.mu.Lock()
	defer d.mu.Unlock()
	if b.id != d.emitted {
		d.fault("batch %d emitted as number %d", b.id, d.emitted)
	} else if !d.worked[b.id] {
		d.fault("batch %d emitted before it was worked on", b.id)
	}
	d.emitted++
}

// play runs one lane over inputs. Whenever every goroutine of the lane stands still, choose picks which of n waiting
// calls goes on. It returns what went wrong, and how many workers there were in the end.
func play(t *testing.T, workers, ring int, inputs []input, choose func(n int) int) (fault string, started int) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{inputs: inputs, worked: make([]bool, len(inputs)), freed: make(chan struct{})}
		made := 0
		l := New[*batch](d, workers, ring, func() *batch { made++; return new(batch) })
		var err error
		ended := make(chan struct{})
		go func() { err = l.Run(); close(ended) }()
		taken, over := 0, false
		for {
			synctest.Wait()
			d.mu.Lock()
			if isClosed(ended) {
				switch {
				case !over || err != errClosed:
					d.fault("Run returned %v", err)
				case d.emitted != len(inputs):
					d.fault("%d of %d batches emitted at the end", d.emitted, len(inputs))
				case made > ring:
					d.fault("%d batches made for a ring of %d", made, ring)
				}
				if len(d.faults) != 0 {
					fault = d.faults[0]
				}
				d.mu.Unlock()
				started = l.started
				return
			}
			waiting := slices.Concat(d.takes, d.works, d.emits)
			flying, busy := taken-d.emitted, len(waiting)
			switch {
			case busy == 0:
				d.fault("everybody waits with %d of %d batches emitted", d.emitted, taken)
			case busy > workers:
				d.fault("%d workers at once", busy)
			case flying+len(d.takes) > ring:
				d.fault("%d batches in flight, reading: %d", flying, len(d.takes))
			case d.emitted < taken && d.worked[d.emitted] && len(d.emits) == 0:
				d.fault("batch %d is done, it's its turn and nobody emits it", d.emitted)
			case over && len(d.takes) != 0:
				d.fault("Take called after an error")
			case !over && len(d.takes) == 0 && flying < ring && busy < workers &&
				(inputs[taken-1] == large && workers > 1 || d.emitted == taken):
				d.fault("nobody reads: %d in flight, %d of %d workers busy", flying, busy, workers)
			case taken > 0 && !over && inputs[taken-1] != large && len(d.takes) != 0 &&
				slices.ContainsFunc(d.works, func(c *call) bool { return c.b.id == taken-1 }):
				d.fault("batch %d was no reason to hand the read side over", taken-1)
			}
			if len(d.faults) != 0 {
				fault = d.faults[0]
				d.mu.Unlock()
				close(d.freed)
				if synctest.Wait(); !isClosed(ended) {
					panic("the lane hangs: " + fault)
				}
				return
			}
			c, id := waiting[choose(len(waiting))], taken
			if slices.Contains(d.takes, c) {
				if over = taken == len(inputs); !over {
					taken++
				}
			}
			d.mu.Unlock()
			c.on <- id
		}
	})
	return fault, started
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// everyOrder calls f with every choice function there is, until f returns false or limit runs were made.
func everyOrder(limit int, f func(choose func(n int) int) bool) (runs int, complete bool) {
	var path, width []int // the choices of this run, and of how many
	for runs < limit {
		at := 0
		ok := f(func(n int) int {
			if at == len(path) {
				path, width = append(path, 0), append(width, n)
			}
			width[at] = n
			at++
			return path[at-1]
		})
		runs++
		if !ok {
			return runs, false
		}
		i := at - 1
		for ; i >= 0 && path[i] == width[i]-1; i-- {
		}
		if i < 0 {
			return runs, true
		}
		path, width = path[:i+1], width[:i+1]
		path[i]++
	}
	return runs, false
}

// TestEveryOrder tries every order in which the calls of the steps can return.
func TestEveryOrder(t *testing.T) {
	for _, c := range []struct {
		workers, ring int
		inputs        []input
	}{
		{1, 1, []input{large, large, large}},
		{1, 3, []input{large, small, large}},
		{2, 1, []input{large, large, large}},
		{2, 2, []input{large, large, large, large}},
		{2, 3, []input{large, large, large, large}},
		{2, 4, []input{large, small, last, large, large}},
		{3, 2, []input{large, large, large, large}},
		{3, 3, []input{large, large, small, large}},
		{4, 4, []input{large, large, large}},
		{3, 4, []input{large, large, large, large}},
		{4, 4, []input{large, large, large, large}},
	} {
		t.Run(fmt.Sprintf("%d workers, ring %d, %v", c.workers, c.ring, c.inputs), func(t *testing.T) {
			runs, complete := everyOrder(200000, func(choose func(int) int) bool {
				var taken []int
				fault, _ := play(t, c.workers, c.ring, c.inputs, func(n int) int {
					i := choose(n)
					taken = append(taken, i)
					return i
				})
				if fault != "" {
					t.Errorf("choices %v: %s", taken, fault)
				}
				return fault == ""
			})
			if t.Logf("%d orders", runs); !complete && !t.Failed() {
				t.Errorf("not all orders tried")
			}
		})
	}
}

// TestRandomOrders tries longer streams in orders picked at random.
func TestRandomOrders(t *testing.T) {
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 1))
		workers, ring := 1+r.IntN(5), 1+r.IntN(6)
		inputs := make([]input, 1+r.IntN(24))
		for i := range inputs {
			inputs[i] = []input{large, large, large, small, last}[r.IntN(5)]
		}
		if fault, _ := play(t, workers, ring, inputs, r.IntN); fault != "" {
			t.Fatalf("seed %d, %d workers, ring %d, %v: %s", seed, workers, ring, inputs, fault)
		}
	}
}

// TestAlone: batches that are small, or the last there is, never wake a second worker; nor does a ring of one, nor a
// lane of one worker.
func TestAlone(t *testing.T) {
	for _, c := range []struct {
		workers, ring int
		inputs        []input
		want          int
	}{
		{4, 4, []input{small, small, last, small}, 1},
		{4, 1, []input{large, large, large}, 1},
		{1, 4, []input{large, large, large}, 1},
		{4, 4, []input{small, large, small}, 2},
		{4, 4, []input{large, large, large, large, large}, 4},
	} {
		choose := func(int) int { return 0 } // a Take goes on first: as many are in flight as can be
		if fault, started := play(t, c.workers, c.ring, c.inputs, choose); fault != "" || started != c.want {
			t.Errorf("%d workers, ring %d, %v: %d workers started, want %d; %s", c.workers, c.ring, c.inputs, started, c.want, fault)
		}
	}
}
