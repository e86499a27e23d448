package ratelimit

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"throughline/internal/mono"
)

const (
	ms    = mono.Time(time.Millisecond)
	start = 1000 * 1000 * ms
)

// The timed table: one step after another, each some milliseconds after the last.
func TestTimed(t *testing.T) {
	const a = "192.0.2.1"
	type step struct {
		after mono.Time // since the step before, in milliseconds
		from  string
		want  bool
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"a burst, and then one every 50 ms", []step{
			{0, a, true}, {0, a, true}, {0, a, true}, {0, a, true}, {0, a, true}, {0, a, false},
			{49, a, false}, {1, a, true}, {0, a, false}, {50, a, true}, {10, a, false}, {39, a, false}, {1, a, true},
		}},
		{"what is refused costs nothing", []step{
			{0, a, true}, {0, a, true}, {0, a, true}, {0, a, true}, {0, a, true},
			{10, a, false}, {10, a, false}, {10, a, false}, {10, a, false}, {10, a, true}, {0, a, false},
		}},
		{"tokens come back one by one", []step{
			{0, a, true}, {0, a, true}, {0, a, true}, {0, a, true}, {0, a, true}, {0, a, false},
			{100, a, true}, {0, a, true}, {0, a, false}, {150, a, true}, {0, a, true}, {0, a, true}, {0, a, false},
		}},
		{"never more than a burst, however long it was quiet", []step{
			{0, a, true}, {3_600_000, a, true}, {0, a, true}, {0, a, true}, {0, a, true}, {0, a, true}, {0, a, false},
		}},
		{"forgotten and come back at every moment", []step{
			{0, a, true}, {0, a, true}, {0, a, true}, {0, a, true}, {0, a, true}, {250, a, true}, {0, a, true}, {0, a, true}, {0, a, true},
			{0, a, true}, {0, a, false}, {1250, a, true}, {0, a, true}, {0, a, true}, {0, a, true}, {0, a, true}, {0, a, false},
			{249, a, true}, {0, a, true}, {0, a, true}, {0, a, true}, {0, a, false}, {1, a, true}, {0, a, false},
		}},
		{"at the lasting rate nothing is refused", func() (s []step) {
			for range 200 {
				s = append(s, step{50, a, true})
			}
			return s
		}()},
		{"neighbours in IPv4 are strangers", []step{
			{0, a, true}, {0, a, true}, {0, a, true}, {0, a, true}, {0, a, true}, {0, a, false},
			{0, "192.0.2.2", true}, {0, "192.0.2.0", true}, {0, "193.0.2.1", true}, {0, a, false},
		}},
		{"IPv4 in IPv6 is IPv4", []step{
			{0, a, true}, {0, "::ffff:192.0.2.1", true}, {0, a, true}, {0, "::ffff:192.0.2.1", true}, {0, a, true},
			{0, "::ffff:192.0.2.1", false}, {0, a, false}, {0, "::ffff:192.0.2.2", true}, {0, "::", true},
		}},
		{"a /64 is one source", []step{
			{0, "2001:db8:1:2::1", true}, {0, "2001:db8:1:2::2", true}, {0, "2001:db8:1:2:ffff:ffff:ffff:ffff", true},
			{0, "2001:db8:1:2:8000::", true}, {0, "2001:db8:1:2::", true}, {0, "2001:db8:1:2::9", false}, {0, "2001:db8:1:2::1", false},
			{0, "2001:db8:1:3::1", true}, {0, "2001:db8:1:1:ffff::1", true}, {0, "2001:db8:1:2::7", false},
			{50, "2001:db8:1:2::7", true}, {0, "2001:db8:1:2::1", false},
		}},
		{"a zone is not looked at", []step{
			{0, "fe80::1%eth0", true}, {0, "fe80::1%eth1", true}, {0, "fe80::1", true}, {0, "fe80::2%eth0", true}, {0, "fe80::1", true},
			{0, "fe80::1%eth0", false}, {0, "fe80::3%eth2", false},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var l Limiter
			now := start
			for i, s := range tt.steps {
				now += s.after * ms
				if got := l.Allow(now, netip.MustParseAddr(s.from)); got != s.want {
					t.Fatalf("step %d: Allow(%s) = %v, want %v", i+1, s.from, got, s.want)
				}
			}
		})
	}
}

func TestClockStandsStill(t *testing.T) {
	var l Limiter
	for _, now := range []mono.Time{0, 1, start, 1 << 62} {
		l = Limiter{}
		served := 0
		for range 1000 {
			if l.Allow(now, netip.MustParseAddr("192.0.2.1")) {
				served++
			}
		}
		if served != Burst {
			t.Errorf("at %d: %d served, want %d", now, served, Burst)
		}
	}
}

// An address that isn't one is a source like another: nothing panics.
func TestInvalidAddress(t *testing.T) {
	var l Limiter
	for i := range Burst + 1 {
		if got := l.Allow(start, netip.Addr{}); got != (i < Burst) {
			t.Errorf("call %d: Allow = %v", i+1, got)
		}
	}
}

// The slow reference counts tokens, in millionths, in a map that forgets nothing.
type model map[netip.Prefix]*struct {
	tokens int64
	at     mono.Time
}

func (m model) allow(now mono.Time, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	p, _ := a.Prefix(map[bool]int{true: 32, false: 64}[a.Is4()])
	b := m[p]
	if b == nil {
		b = &struct {
			tokens int64
			at     mono.Time
		}{Burst * 1e6, now}
		m[p] = b
	}
	b.tokens = min(Burst*1e6, b.tokens+int64(now-b.at)*PerSecond/1000)
	b.at = now
	if b.tokens < 1e6 {
		return false
	}
	b.tokens -= 1e6
	return true
}

func TestModel(t *testing.T) {
	addrs := []netip.Addr{}
	for _, s := range []string{"192.0.2.1", "192.0.2.2", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "::1"} {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	rapid.Check(t, func(t *rapid.T) {
		var l Limiter
		m, now := model{}, start
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now += mono.Time(rapid.OneOf(rapid.Just(0), rapid.IntRange(0, 60), rapid.IntRange(0, 2000)).Draw(t, "ms")) * ms
			a := rapid.SampledFrom(addrs).Draw(t, "a")
			if got, want := l.Allow(now, a), m.allow(now, a); got != want {
				t.Fatalf("Allow(%v) = %v at %v, want %v", a, got, now.Sub(start), want)
			}
		}
	})
}

func random(rng *rand.Rand) netip.Addr {
	if rng.IntN(2) == 0 {
		u := rng.Uint32()
		return netip.AddrFrom4([4]byte{byte(u >> 24), byte(u >> 16), byte(u >> 8), byte(u)})
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], rng.Uint64()>>3|1<<61)
	return netip.AddrFrom16(b)
}

// A flood from ever new sources, each with a single message: memory stays, whoever asks as a peer does gets through, and
// the greedy one is still held down. Twenty thousand a second is more than the engine can answer.
func TestFlood(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var l Limiter
	known, newcomers := netip.MustParseAddr("198.51.100.7"), 0
	greedy := netip.MustParseAddr("203.0.113.9")
	greedyServed, knownServed, newServed := 0, 0, 0
	const seconds, perMS = 20, 20
	now := start
	for i := range seconds * 1000 {
		now += ms
		for range perMS {
			l.Allow(now, random(rng))
		}
		if l.Allow(now, greedy) { // a thousand a second
			greedyServed++
		}
		if i%5000 == 0 { // as often as a handshake is retried
			if l.Allow(now, known) {
				knownServed++
			}
		}
		if i%10 == 0 {
			newcomers++
			if l.Allow(now, random(rng)) {
				newServed++
			}
		}
	}
	if len(l.buckets) != MaxSources {
		t.Errorf("%d buckets, want %d", len(l.buckets), MaxSources)
	}
	if want := seconds * 1000 / 5000; knownServed != want {
		t.Errorf("the known source was served %d times of %d", knownServed, want)
	}
	if newServed != newcomers {
		t.Errorf("%d newcomers of %d were served", newServed, newcomers)
	}
	if most := seconds*PerSecond + 2*Burst; greedyServed > most {
		t.Errorf("the greedy source was served %d times, want %d at most", greedyServed, most)
	}
}

// The same with more than all buckets can bear: no address tricks make more tokens than MaxSources buckets have, and
// newcomers still get their share.
func TestFloodBeyondAll(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var l Limiter
	const steps, perMS = 500, 400
	served, newServed := 0, 0
	now := start
	for range steps {
		now += ms
		for range perMS {
			if l.Allow(now, random(rng)) {
				served++
			}
		}
		if l.Allow(now, random(rng)) {
			newServed++
		}
	}
	bound := MaxSources*Burst + MaxSources*PerSecond*steps/1000
	if served+newServed > bound {
		t.Errorf("%d were served, want %d at most", served+newServed, bound)
	}
	if served < bound*8/10 {
		t.Errorf("%d were served: less than the buckets hold, %d", served, bound)
	}
	if newServed < steps/5 {
		t.Errorf("%d newcomers of %d were served", newServed, steps)
	}
}

// As many sources as half the buckets: nearly none of them feels another.
func TestManySources(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	var l Limiter
	sources := make([]netip.Addr, MaxSources/2)
	for i := range sources {
		sources[i] = random(rng)
	}
	served := 0
	for range Burst + 1 {
		for _, a := range sources {
			if l.Allow(start, a) {
				served++
			}
		}
	}
	if want := len(sources) * Burst; served > want || served < want*97/100 {
		t.Errorf("%d were served, want nearly %d", served, want)
	}
}

func TestNoAllocations(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 4))
	var l Limiter
	now := start
	l.Allow(now, random(rng))
	if n := testing.AllocsPerRun(1000, func() { l.Allow(now, random(rng)); now += ms }); n != 0 {
		t.Errorf("Allow allocates %v times", n)
	}
}

func BenchmarkAllow(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 5))
	addrs := make([]netip.Addr, 1<<16)
	for i := range addrs {
		addrs[i] = random(rng)
	}
	for _, c := range []struct {
		name string
		mask int
	}{{"one source", 0}, {"1024 sources", 1<<10 - 1}, {"flood", 1<<16 - 1}} {
		b.Run(c.name, func(b *testing.B) {
			var l Limiter
			now, i := start, 0
			b.ReportAllocs()
			for b.Loop() {
				l.Allow(now, addrs[i&c.mask])
				now += 1000
				i++
			}
		})
	}
}
