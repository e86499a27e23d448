package ratelimit

import (
	"sync"
	"testing"
	"time"

	"throughline/internal/mono"
)

// A burst goes at once, the rest at the rate; idleness earns another burst and no more.
func TestPace(t *testing.T) {
	const start, rate = mono.Time(time.Hour), 100
	var p Pace
	for round := range 3 {
		now := start.Add(time.Duration(round) * time.Hour)
		for i := range 5 * rate {
			want := now
			if i > rate {
				want = now.Add(time.Duration(i-rate) * time.Second / rate)
			}
			if got := p.Reserve(now, rate); got != want {
				t.Fatalf("round %d: turn %d is after %v, want %v", round, i, got.Sub(now), want.Sub(now))
			}
		}
	}
}

// No turn is given twice.
func TestPaceIsShared(t *testing.T) {
	const start, rate, each = mono.Time(time.Hour), 10, 1000
	var p Pace
	p.Reserve(start, 1) // a second's turns at once
	var mu sync.Mutex
	seen := map[mono.Time]int{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range each {
				at := p.Reserve(start, rate)
				mu.Lock()
				seen[at]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for at, n := range seen {
		if n > 1 && at != start {
			t.Errorf("%d have the turn after %v", n, at.Sub(start))
		}
	}
	if len(seen) != 4*each {
		t.Errorf("%d turns for %d", len(seen), 4*each)
	}
}

// A crowd of others doesn't hold up the known, and a turn that has come is used once.
func TestTurns(t *testing.T) {
	now := mono.Time(time.Hour)
	var turns Turns
	var first mono.Time
	for range ToOthers + 1 {
		if turns.Take(now, &first, false) != now || first != 0 {
			t.Fatal("a turn of the burst isn't now, or wasn't used")
		}
	}
	var mine mono.Time
	at := turns.Take(now, &mine, false)
	if at <= now || mine != at {
		t.Fatalf("the next turn is after %v, and mine after %v", at.Sub(now), mine.Sub(now))
	}
	if again := turns.Take(now, &mine, false); again != at {
		t.Errorf("asked again, the turn is %v later", again.Sub(at))
	}
	var known mono.Time
	if turns.Take(now, &known, true) != now {
		t.Error("a known peer waits behind the others")
	}
	if turns.Take(at, &mine, false) != at || mine != 0 {
		t.Error("the turn that has come isn't used")
	}
}
