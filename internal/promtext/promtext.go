// Package promtext writes metrics in Prometheus' text format, version 0.0.4:
// https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
//
// It escapes what stands in a label and in a help text; names of metrics and of labels are the caller's constants, and
// stand as they are. Values are whole numbers. A Text belongs to one goroutine.
//
// Limits: the whole text is built in memory before it is written.
package promtext

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// ContentType is the HTTP header's value for such a text.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// A Kind is the type of a metric.
type Kind string

// The kinds of metrics.
const (
	Counter Kind = "counter" // goes up, and to 0 when the program restarts
	Gauge   Kind = "gauge"
)

// A Text is metrics that are being written. The zero Text is empty.
type Text struct {
	b      []byte
	metric string
}

// Metric begins a metric. The samples that follow are its.
func (t *Text) Metric(name string, kind Kind, help string) {
	t.metric = name
	t.b = fmt.Appendf(t.b, "# HELP %s %s\n# TYPE %s %s\n", name, helpEscapes.Replace(valid(help)), name, kind)
}

// Sample writes one value of the metric, with labels, which are names and values in turn.
func (t *Text) Sample(value uint64, labels ...string) {
	if t.metric == "" || len(labels)%2 != 0 {
		panic("promtext: BUG: a sample without a metric, or a label without a value")
	}
	t.b = append(t.b, t.metric...)
	for i := 0; i < len(labels); i += 2 {
		before := byte(',')
		if i == 0 {
			before = '{'
		}
		t.b = append(t.b, before)
		t.b = append(t.b, labels[i]...)
		t.b = append(t.b, '=', '"')
		t.b = append(t.b, labelEscapes.Replace(valid(labels[i+1]))...)
		t.b = append(t.b, '"')
	}
	if len(labels) > 0 {
		t.b = append(t.b, '}')
	}
	t.b = append(t.b, ' ')
	t.b = strconv.AppendUint(t.b, value, 10)
	t.b = append(t.b, '\n')
}

// Bytes returns what was written, which is borrowed until the next call.
func (t *Text) Bytes() []byte { return t.b }

// Sorted returns the keys of a map in the order of their texts, in which samples stand that have no order of their own.
func Sorted[K interface {
	comparable
	fmt.Stringer
}, V any](m map[K]V) []K {
	return slices.SortedFunc(maps.Keys(m), func(a, b K) int { return strings.Compare(a.String(), b.String()) })
}

// In a help text a backslash and the end of a line are escaped, in a label's value the quote too.
var (
	helpEscapes  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// valid makes UTF-8 of s, which the format is.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
