package wheel

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"throughline/internal/mono"
)

// A loop runs a wheel in the fake time of synctest, and records when which item was looked at.
type loop struct {
	*Wheel[*item]
	origin time.Time
	asleep atomic.Int64 // how long the machine slept: the tunnel's clock counts that, the runtime's doesn't
	do     func(*item, mono.Time)

	mu    sync.Mutex
	looks []look
}

type look struct {
	id int
	at mono.Time
}

// newLoop starts a loop, which ends with the test.
func newLoop(t *testing.T) *loop {
	l := &loop{origin: time.Now()}
	l.Wheel = New[*item](l.now())
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		l.Run(done, l.now, func(i *item, now mono.Time) {
			l.mu.Lock()
			l.looks = append(l.looks, look{i.id, now})
			l.mu.Unlock()
			if l.do != nil {
				l.do(i, now)
			}
		})
	}()
	t.Cleanup(func() { close(done); <-ended })
	return l
}

// now begins at an hour and an odd bit, which is on no tick.
func (l *loop) now() mono.Time {
	return mono.Time(time.Since(l.origin) + time.Duration(l.asleep.Load()) + time.Hour + 7*time.Millisecond)
}

// taken waits until Run sleeps, and returns the looks since the last call.
func (l *loop) taken() []look {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	looks := l.looks
	l.looks = nil
	return looks
}

// wants checks which items were looked at since the last call, and when: at due or up to a tick later.
func (l *loop) wants(t *testing.T, want ...look) {
	t.Helper()
	looks := l.taken()
	if len(looks) != len(want) {
		t.Fatalf("looks %v, want %v", looks, want)
	}
	for i, w := range want {
		if got := looks[i]; got.id != w.id || got.at < w.at || got.at.Sub(w.at) >= Tick {
			t.Fatalf("looks %v, want %v", looks, want)
		}
	}
}

func TestRunLooksWhenDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoop(t)
		a, b, c := newItem(1), newItem(2), newItem(3)
		begin := l.now()
		l.Arm(&a.Node, begin.Add(time.Minute))
		l.Arm(&b.Node, begin.Add(time.Second)) // Run sleeps for the minute: it has to be woken
		l.Arm(&c.Node, begin.Add(3*Horizon))
		l.wants(t)
		time.Sleep(2 * time.Second)
		l.wants(t, look{2, begin.Add(time.Second)})
		time.Sleep(time.Minute)
		l.wants(t, look{1, begin.Add(time.Minute)})
		time.Sleep(3*Horizon - 2*time.Minute)
		l.wants(t)
		time.Sleep(time.Minute)
		l.wants(t, look{3, begin.Add(3 * Horizon)})
		time.Sleep(time.Hour)
		l.wants(t)
	})
}

// What is due at once, or was, is looked at without waiting for anything else.
func TestRunLooksAtThePast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoop(t)
		a, b := newItem(1), newItem(2)
		now := l.now()
		l.Arm(&a.Node, now)
		l.Arm(&b.Node, now.Add(-time.Minute))
		time.Sleep(Tick)
		if looks := l.taken(); len(looks) != 2 {
			t.Fatalf("looks %v, want two", looks)
		}
	})
}

func TestAnEarlierDeadlineWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoop(t)
		a := newItem(1)
		begin := l.now()
		l.Arm(&a.Node, begin.Add(10*time.Second))
		l.Arm(&a.Node, begin.Add(20*time.Second)) // later: nothing new
		l.Arm(&a.Node, begin.Add(5*time.Second))
		l.Arm(&a.Node, mono.Never)
		time.Sleep(time.Minute)
		l.wants(t, look{1, begin.Add(5 * time.Second)})
	})
}

func TestRemovedIsNotLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoop(t)
		a, b, c := newItem(1), newItem(2), newItem(3)
		begin := l.now()
		for _, i := range []*item{a, b, c} { // one slot: the first, the middle and the last of a list
			l.Arm(&i.Node, begin.Add(time.Second))
		}
		l.Remove(&b.Node)
		l.Remove(&a.Node)
		if a.Armed() || b.Armed() || !c.Armed() {
			t.Errorf("armed are %v %v %v, want only the last", a.Armed(), b.Armed(), c.Armed())
		}
		l.Remove(&a.Node) // it isn't in the wheel
		time.Sleep(2 * time.Second)
		l.wants(t, look{3, begin.Add(time.Second)})
		l.Arm(&a.Node, l.now().Add(time.Second))
		at := l.now().Add(time.Second)
		time.Sleep(2 * time.Second)
		l.wants(t, look{1, at})
	})
}

// An item may be armed again while it is looked at, even for what has passed.
func TestArmWhileLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoop(t)
		a := newItem(1)
		begin := l.now()
		left := 3
		l.do = func(i *item, now mono.Time) {
			if left--; left > 0 {
				l.Arm(&i.Node, now)
			}
		}
		l.Arm(&a.Node, begin.Add(time.Second))
		time.Sleep(time.Minute)
		looks := l.taken()
		if len(looks) != 3 {
			t.Fatalf("looks %v, want three", looks)
		}
		for i := 1; i < len(looks); i++ {
			if d := looks[i].at.Sub(looks[i-1].at); d > Tick {
				t.Errorf("look %d came %v after the one before", i, d)
			}
		}
	})
}

// After the machine slept, Run sleeps on, since its timer's clock stood still; WakeIfLate wakes it, and only then.
func TestWakeIfLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoop(t)
		a := newItem(1)
		due := l.now().Add(time.Minute)
		l.Arm(&a.Node, due)
		synctest.Wait()

		l.WakeIfLate(l.now())
		l.wants(t)
		l.asleep.Store(int64(time.Hour))
		l.wants(t) // nothing says so: it sleeps on
		l.WakeIfLate(l.now())
		if looks := l.taken(); len(looks) != 1 || looks[0].at != l.now() {
			t.Fatalf("looks %v, want one at %v", looks, l.now())
		}
		l.WakeIfLate(l.now().Add(time.Hour)) // nothing is armed: nothing is late
		if len(l.Wheel.wake) != 0 {
			t.Error("an empty wheel was woken")
		}
	})
}

// Run ends when done is closed, whether it waits for a deadline or for none.
func TestRunEnds(t *testing.T) {
	for _, armed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l := newLoop(t) // its Cleanup waits for the end
			if armed {
				l.Arm(&newItem(1).Node, l.now().Add(time.Hour))
			}
			synctest.Wait()
		})
	}
}

// Many goroutines arm and remove while Run looks. What is armed is looked at; else this test would wait for ever.
func TestConcurrentUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoop(t)
		seen := make([]chan mono.Time, 8)
		l.do = func(i *item, now mono.Time) {
			select {
			case seen[i.id] <- now:
			default:
			}
		}
		var all sync.WaitGroup
		for id := range seen {
			seen[id] = make(chan mono.Time, 1)
			i := newItem(id)
			all.Go(func() {
				for k := range 200 {
					l.Arm(&i.Node, l.now().Add(time.Hour))
					l.Remove(&i.Node)
					due := l.now().Add(time.Duration(k*id) * time.Millisecond)
					l.Arm(&i.Node, due)
					l.WakeIfLate(due)
					if at := <-seen[id]; at < due || at.Sub(due) > 2*Tick {
						t.Errorf("item %d was looked at %v after its deadline", id, at.Sub(due))
					}
				}
			})
		}
		all.Wait()
	})
}

func TestNothingIsAllocated(t *testing.T) {
	w := New[*item](1)
	i := newItem(1)
	if n := testing.AllocsPerRun(100, func() {
		w.Arm(&i.Node, mono.Time(time.Minute))
		w.Arm(&i.Node, mono.Time(2*time.Minute)) // it is in the wheel, earlier
		w.Arm(&i.Node, mono.Time(time.Second))
		w.WakeIfLate(2)
		w.Remove(&i.Node)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkArm(b *testing.B) {
	for name, due := range map[string]mono.Time{"armed": mono.Never - 1, "earlier": 1} {
		b.Run(name, func(b *testing.B) {
			w := New[*item](1)
			i := newItem(1)
			w.Arm(&i.Node, mono.Time(time.Minute))
			for b.Loop() {
				w.Arm(&i.Node, due)
				if name == "earlier" {
					w.Remove(&i.Node)
				}
			}
		})
	}
}
