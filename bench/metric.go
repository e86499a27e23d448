package main

import (
	"fmt"
	"strconv"
)

// A metric is one row of the table.
type metric struct {
	ID     string `json:"id"`               // the test, a dot, and what is measured
	Name   string `json:"name"`             // with the unit
	Higher bool   `json:"higher_is_better"` // higher is better
	Digits int    `json:"digits"`           // after the decimal point
	Count  bool   `json:"count"`            // a count of losses or the like, which should be zero and isn't plotted
}

// metrics returns the metrics that a test measures.
func (t test) metrics() []metric {
	id := func(what string) string { return string(t) + "." + what }
	if n, ok := t.number("tcp"); ok {
		name := fmt.Sprintf("TCP, %d streams", n)
		if n == 1 {
			name = "TCP, 1 stream"
		}
		return []metric{
			{ID: id("forward"), Name: name + ", Gbit/s", Higher: true, Digits: 2},
			{ID: id("reverse"), Name: name + ", reverse, Gbit/s", Higher: true, Digits: 2},
			{ID: id("cpu"), Name: name + ", CPU seconds per GB", Digits: 2},
			{ID: id("retransmits"), Name: name + ", retransmits", Count: true},
		}
	}
	if n, ok := t.number("udp"); ok || t == testMix {
		name := fmt.Sprintf("UDP %d B", n)
		if t == testMix {
			name = "UDP mix of sizes"
		}
		return []metric{
			{ID: id("delivered"), Name: name + ", delivered, 1000/s", Higher: true, Digits: 1},
			{ID: id("lost"), Name: name + ", lost, %", Digits: 1, Count: true},
			{ID: id("reordered"), Name: name + ", reordered", Count: true},
			{ID: id("duplicates"), Name: name + ", duplicates", Count: true},
		}
	}
	name := "ping, idle"
	if t == testLoad {
		name = "ping under TCP"
	}
	return []metric{
		{ID: id("mean"), Name: name + ", mean, ms", Digits: 3},
		{ID: id("p99"), Name: name + ", p99, ms", Digits: 3},
		{ID: id("lost"), Name: name + ", lost, %", Digits: 1, Count: true},
	}
}

// metrics returns the rows of a plan's table.
func (p plan) metrics() []metric {
	var all []metric
	for _, t := range p.Tests {
		all = append(all, t.metrics()...)
	}
	return append(all,
		metric{ID: "memory.peak", Name: "memory, peak, MiB", Digits: 1},
		metric{ID: "memory.rest", Name: "memory, before load, MiB", Digits: 1},
	)
}

// format returns a value with the metric's number of digits.
func (m metric) format(v float64) string { return strconv.FormatFloat(v, 'f', m.Digits, 64) }

// better says which values are better.
func (m metric) better() string {
	if m.Higher {
		return "higher"
	}
	return "lower"
}
