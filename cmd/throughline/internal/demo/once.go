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

// A Plan is what [Demo.Once] does: Bytes down and up in one stream, the same in Streams streams, and Pings.
type Plan struct {
	Bytes   int64
	Streams int
	Pings   int
}

// A Result is what [Demo.Once] measured, every byte having arrived intact.
type Result struct {
	Version    string                 `json:"version"`
	System     string                 `json:"system"`
	CPUs       int                    `json:"cpus"`
	TUN        bool                   `json:"tun"` // with TUNs of the kernel's
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

// Once runs a plan. progress is nil, or is called a few times a second with what is done of how much, from any goroutine
// but from one at a time.
func (d *Demo) Once(ctx context.Context, p Plan, progress func(what string, done, total int64)) (*Result, error) {
	first, err := d.Ping(ctx)
	if err != nil {
		return nil, explain(ctx, "first round trip", err)
	}
	r := &Result{Intact: true, FirstPing: micros(first)}
	for _, l := range []Load{{false, 1, p.Bytes}, {true, 1, p.Bytes}, {false, p.Streams, p.Bytes}, {true, p.Streams, p.Bytes}} {
		result, err := d.Run(ctx, l, every(100*time.Millisecond, l.String(), l.Bytes, progress))
		if err != nil {
			return nil, explain(ctx, l.String(), err)
		}
		r.Loads = append(r.Loads, result)
	}
	loaded := d.Snapshot()
	r.Walk = loaded.WalkAll

	var rtts []time.Duration
	report := every(100*time.Millisecond, fmt.Sprintf("%d pings", p.Pings), int64(p.Pings), progress)
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

// ErrTime is what ends a plan whose context's deadline came.
var ErrTime = errors.New("the time was over before all was carried")

// explain adds to an error what was going on, and replaces it where the deadline or the context's end caused it.
func explain(ctx context.Context, what string, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", what, ErrTime)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: ended before all was carried", what)
	}
	return err
}

// every returns a function that adds up, and reports the sum at most once in an interval.
func every(interval time.Duration, what string, total int64, report func(string, int64, int64)) func(int) {
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
