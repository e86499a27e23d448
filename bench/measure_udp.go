package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// udp measures one flow of datagrams from a to b, sent as fast as possible. The datagrams carry numbers, by which the
// receiver counts loss, reordering and duplicates: nothing else crosses the tunnel, so an overloaded one can't stall the
// measurement.
func (b *bed) udp(ctx context.Context, t test, secs int) (values, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	sizes := strings.Trim(strings.ReplaceAll(fmt.Sprint(t.sizes(b.mtu)), " ", ","), "[]")
	to := b.b.inner + ":9000"
	span := func(secs int) string { return (time.Duration(secs) * time.Second).String() }

	server, err := b.serve(ctx, sinkReady, self, cmdSink, "-listen", to, "-for", span(secs+2))
	if err != nil {
		return nil, err
	}
	defer server.end()
	out, err := b.a.in(ctx, self, cmdSend, "-to", to, "-sizes", sizes, "-for", span(secs)).Output()
	if err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	var s sent
	if err := json.Unmarshal(out, &s); err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	var r received
	if err := json.NewDecoder(server.out).Decode(&r); err != nil {
		return nil, fmt.Errorf("sink: %w", err)
	}
	return r.values(t, s)
}

const (
	minDatagram = 16      // bytes of payload: the number takes 8
	sinkReady   = "ready" // what sink prints when it listens
)

// sent is what the sender prints.
type sent struct{ Packets uint64 }

// received is what the sink prints.
type received struct {
	Packets    uint64  // all, duplicates too
	Seconds    float64 // from the first to the last
	Reordered  uint64  // those that arrived after one that was sent later
	Duplicates uint64
}

// values returns the metrics of test t.
func (r received) values(t test, s sent) (values, error) {
	if r.Packets < 2 || r.Seconds <= 0 {
		return nil, fmt.Errorf("%d datagrams were sent, %d arrived", s.Packets, r.Packets)
	}
	once := r.Packets - r.Duplicates
	if once > s.Packets {
		return nil, errors.New("more datagrams arrived than were sent")
	}
	return values{
		string(t) + ".delivered":  float64(r.Packets) / r.Seconds / 1000,
		string(t) + ".reordered":  float64(r.Reordered),
		string(t) + ".duplicates": float64(r.Duplicates),
		string(t) + ".lost":       100 * float64(s.Packets-once) / float64(s.Packets),
	}, nil
}

// An order counts reordered and duplicate packets of one flow by their numbers. It remembers which of the last numbers
// arrived; memory is bounded, and a packet costs a few operations however many were lost before it. Not for concurrent use.
type order struct {
	next                  uint64 // one more than the highest number that arrived
	arrived               [remembered / 64]uint64
	reordered, duplicates uint64
}

// remembered is how many numbers an order remembers. A packet that arrives so late that it may be a duplicate or not counts
// as reordered.
const remembered = 1 << 17

// add counts the packet with number n.
func (o *order) add(n uint64) {
	switch {
	case n >= o.next:
		o.forget(o.next, n)
		o.next = n + 1
	case o.next-n > remembered:
		o.reordered++
		return
	case o.arrived[n%remembered/64]&(1<<(n%64)) != 0:
		o.duplicates++
		return
	default:
		o.reordered++
	}
	o.arrived[n%remembered/64] |= 1 << (n % 64)
}

// forget records that the numbers from low to high, both included, have not arrived.
func (o *order) forget(low, high uint64) {
	if high-low >= remembered {
		clear(o.arrived[:])
		return
	}
	for n := low; n <= high; {
		if n%64 == 0 && high-n >= 63 {
			o.arrived[n%remembered/64] = 0
			n += 64
			continue
		}
		o.arrived[n%remembered/64] &^= 1 << (n % 64)
		n++
	}
}
