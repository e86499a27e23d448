package wheel

import (
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"throughline/internal/mono"
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

// A list is the slow reference: every deadline, sorted whenever somebody asks.
type list map[*item]mono.Time

// arm reports whether due is the item's deadline now, and wasn't before.
func (l list) arm(i *item, due mono.Time) bool {
	if old, armed := l[i]; due == mono.Never || armed && due >= old {
		return false
	}
	l[i] = due
	return true
}

// first returns the earliest deadline, Never if there is none.
func (l list) first() mono.Time {
	due := slices.Sorted(maps.Values(l))
	if len(due) == 0 {
		return mono.Never
	}
	return due[0]
}

// The wheel gives back each item once, not before it is due and less than a tick after, whatever the order in which items
// are armed and removed and however far the clock jumps; and it asks to be turned in time for the first of them.
func TestWheelAgainstAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := mono.Time(rapid.Int64Range(1, int64(1000*time.Hour)).Draw(t, "origin"))
		w := New[*item](now)
		var items []*item
		for id := range 6 {
			items = append(items, newItem(id))
		}
		want := list{}
		far := map[*item]bool{} // armed for a time beyond the horizon, or close to it
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			i := rapid.SampledFrom(items).Draw(t, "item")
			span := int64(rapid.SampledFrom([]time.Duration{
				time.Millisecond, Tick, time.Second, time.Minute, Horizon, 3 * Horizon, 100 * time.Hour,
			}).Draw(t, "scale"))
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0, 1:
				due := now.Add(time.Duration(rapid.Int64Range(0, span).Draw(t, "due")))
				w.Arm(&i.Node, due)
				if want.arm(i, due) {
					far[i] = due.Sub(now) > Horizon-3*Tick
				}
			case 2: // what has passed, or what never comes
				due := rapid.SampledFrom([]mono.Time{1, now - 1, now, 1 << 62, mono.Never}).Draw(t, "due")
				w.Arm(&i.Node, due)
				if want.arm(i, due) {
					far[i] = due.Sub(now) > Horizon-3*Tick
				}
			case 3:
				w.Remove(&i.Node)
				delete(want, i)
			case 4, 5: // the clock goes on, by a little or a lot
				before := now
				now = now.Add(time.Duration(rapid.Int64Range(0, span).Draw(t, "on")))
				due, next := w.turn(now, nil)
				for _, i := range due {
					at, armed := want[i]
					switch {
					case !armed:
						t.Fatalf("item %d came twice, or after it was removed", i.id)
					case at > now:
						t.Fatalf("item %d came %v early", i.id, at.Sub(now))
					}
					delete(want, i)
				}
				for i, at := range want {
					// What was armed when it had passed already is due with the tick that follows.
					if max(at, before).Add(Tick) <= now {
						t.Fatalf("item %d, due %v ago, didn't come", i.id, now.Sub(at))
					}
				}
				first := want.first()
				if next < first && !slices.ContainsFunc(slices.Collect(maps.Keys(want)), func(i *item) bool { return far[i] }) {
					t.Fatalf("the first is due in %v, and the wheel is to be turned for nothing in %v", first.Sub(now), next.Sub(now))
				}
				if next != mono.Never && len(want) == 0 {
					t.Fatalf("an empty wheel asks to be turned in %v", next.Sub(now))
				} else if len(want) > 0 && (next <= now || next >= max(first, now).Add(Tick) && next.Sub(now) > Tick) {
					t.Fatalf("the first is due in %v, and the wheel is to be turned in %v", first.Sub(now), next.Sub(now))
				}
			}
		}
		for i := range want {
			if i.due.Load() != int64(want[i]) {
				t.Fatalf("item %d, due at %d, stands in the wheel for %d", i.id, want[i], i.due.Load())
			}
		}
	})
}
