package demo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"throughline/packet"
)

// A Plan is what [Demo.Once] does: it carries Bytes down and up in one stream, then the same in Streams streams, and then
// sends so many Pings.
type Plan struct {
	Bytes   int64
	Streams int
	Pings   int
}

// A Result is what [Demo.Once] measured. Every byte arrived intact; else there is an error.
type Result struct {
	Version    string                 `json:"version"`
	System     string                 `json:"system"`
	CPUs       int                    `json:"cpus"`
	TUN        bool                   `json:"tun"` // with the kernel's TUNs
	Intact     bool                   `json:"intact"`
	FirstPing  float64                `json:"first_ping"` // µs, with the handshake that it waited for
	Loads      []LoadResult           `json:"runs"`
	RTT        RTT                    `json:"rtt"` // of an idle tunnel
	Handshakes uint64                 `json:"handshakes"`
	Datagrams  uint64                 `json:"datagrams"` // bytes of them, in both directions
	Drops      map[packet.Drop]uint64 `json:"drops"`
	Offloads   packet.OffloadStates   `json:"offloads"`
	Walk       Walks                  `json:"walk"` // under the loads
}

// Once carries out a plan. progress is nil, or it is called about ten times a second with what is being done and how much
// of it, from any goroutine, one call at a time.
func (d *Demo) Once(ctx context.Context, p Plan, progress func(what string, done, total int64)) (*Result, error) {
	first, err := d.Ping(ctx)
	if err != nil {
		return nil, explain(ctx, "first round trip", err)
	}
	r := &Result{Intact: true, FirstPing: micros(first)}
	for _, l := range []Load{{false, 1, p.Bytes}, {true, 1, p.Bytes}, {false, p.Streams, p.Bytes}, {true, p.Streams, p.Bytes}} {
		result, err := d.Run(ctx, l, throttle(100*time.Millisecond, l.String(), l.Bytes, progress))
		if err != nil {
			return nil, explain(ctx, l.String(), err)
		}
		r.Loads = append(r.Loads, result)
	}
	loaded := d.Snapshot()
	r.Walk = loaded.WalkAll

	var rtts []time.Duration
	report := throttle(100*time.Millisecond, fmt.Sprintf("%d pings", p.Pings), int64(p.Pings), progress)
	for range p.Pings {
		one, cancel := context.WithTimeout(ctx, time.Second)
		rtt, err := d.Ping(one)
		lost := one.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case lost:
			rtt = -1
		case err != nil:
			return nil, explain(ctx, "pings", err)
		}
		rtts = append(rtts, rtt)
		report(1)
	}
	r.RTT = sumUp(rtts)
	if r.RTT.Lost == r.RTT.Sent && p.Pings > 0 {
		return nil, errors.New("no ping was answered")
	}

	s := d.Snapshot()
	r.Version, r.System, r.CPUs, r.TUN, r.Handshakes = s.Version, s.System, s.CPUs, s.TUN, s.Handshakes
	r.Datagrams = s.Near.RxBytes + s.Near.TxBytes
	r.Drops, r.Offloads = s.Drops(), s.Near.Offloads
	return r, nil
}

// ErrTime is wrapped by the error of a plan that was ended by its context's deadline.
var ErrTime = errors.New("the time was over before everything was carried")

// explain returns err, or, if the deadline or the end of ctx caused it, an error that says so and what was being done.
func explain(ctx context.Context, what string, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", what, ErrTime)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: ended before everything was carried", what)
	}
	return err
}

// throttle returns a function that adds up its arguments, and calls report with the sum, at most once in an interval.
func throttle(interval time.Duration, what string, total int64, report func(string, int64, int64)) func(int) {
	if report == nil {
		return func(int) {}
	}
	var done atomic.Int64
	var mu sync.Mutex
	var next time.Duration // guarded by mu
	return func(n int) {
		sum := done.Add(int64(n))
		if !mu.TryLock() { // another goroutine reports
			return
		}
		defer mu.Unlock()
		if now := clock(); now >= next {
			next = now + interval
			report(what, sum, total)
		}
	}
}
