package engine

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"throughline/internal/mono"
)

// The wheel gives back each peer once, not before it is due and no more than a tick after, whatever the order in which
// peers are armed and removed and however far the clock jumps.
func TestWheelAgainstAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := &Engine{}
		now := mono.Time(rapid.Int64Range(1, int64(1000*time.Hour)).Draw(t, "origin"))
		e.wheel.init(now)
		peers := make([]*Peer, 6)
		want := map[*Peer]mono.Time{}
		for i := range peers {
			peers[i] = &Peer{id: uint32(i)}
			peers[i].due.Store(int64(mono.Never))
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			p := peers[rapid.IntRange(0, len(peers)-1).Draw(t, "peer")]
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1: // arm: the earliest holds
				due := now.Add(time.Duration(rapid.Int64Range(0, int64(10*time.Minute)).Draw(t, "due")))
				e.arm(p, due)
				if old, ok := want[p]; !ok || due < old {
					want[p] = due
				}
			case 2:
				e.arm(p, mono.Never)
			case 3:
				e.wheel.remove(p)
				delete(want, p)
			case 4: // the clock goes on, by a little or a lot
				now = now.Add(time.Duration(rapid.Int64Range(0, int64(rapid.SampledFrom([]time.Duration{
					time.Millisecond, time.Second, time.Minute, time.Hour,
				}).Draw(t, "scale"))).Draw(t, "step")))
				due, _ := e.wheel.turn(now, nil)
				for _, p := range due {
					if w, ok := want[p]; !ok {
						t.Fatalf("peer %d came twice, or after it was removed", p.id)
					} else if w > now { // it was due beyond the horizon: it is looked at, and put back
						e.arm(p, w)
						due = slices.DeleteFunc(slices.Clone(due), func(q *Peer) bool { return q == p })
						continue
					}
					delete(want, p)
				}
				_, alarm := e.wheel.turn(now, nil)
				for p, w := range want {
					if w.Add(wheelTick) <= now {
						t.Fatalf("peer %d, due %v ago, didn't come", p.id, now.Sub(w))
					}
					if alarm > w.Add(wheelTick) {
						t.Fatalf("peer %d is due in %v and the alarm is in %v", p.id, w.Sub(now), alarm.Sub(now))
					}
				}
				if len(want) == 0 && alarm != mono.Never {
					t.Fatalf("an empty wheel wakes in %v", alarm.Sub(now))
				}
			}
		}
	})
}

func TestArmingIsCheap(t *testing.T) {
	e := &Engine{}
	e.wheel.init(1)
	p := &Peer{}
	p.due.Store(int64(mono.Never))
	e.arm(p, mono.Time(time.Minute))
	if n := testing.AllocsPerRun(100, func() {
		e.arm(p, mono.Time(2*time.Minute)) // it is in the wheel, earlier
		e.arm(p, mono.Time(time.Second))
		e.wheel.remove(p)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
