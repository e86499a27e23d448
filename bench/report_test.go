package main

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (if the new text is right, go test -update writes it):\n%s", file, got)
	}
}

// aReport has everything that can be in one: three programs, metrics both ways, an even number of rounds, one that
// failed, zeros, and a program that never came up on the second bed.
func aReport() *report {
	r := &report{
		When:    time.Date(2026, 11, 22, 18, 30, 0, 0, time.UTC),
		Machine: machine{CPU: "Example 9000 (avx2)", Cores: 2, Kernel: "6.18.1", Load: "0.10 0.20 0.30"},
		Commit:  "0123456789ab",
		Plan: plan{
			Programs: []program{{Name: "throughline", Go: "go1.26.8"}, {Name: "wireguard-go", Version: "v0.0.1", Go: "go1.26.8"}, {Name: "<other>"}},
			Beds:     []string{bedVeth, bedSegmenting},
			Tests:    []test{"tcp1", "udp128", testRTT},
			Rounds:   2, Secs: 4, MTU: 1420,
		},
	}
	add := func(bed, prog string, round int, v values) {
		r.add(event{Sample: &sample{Bed: bed, Program: prog, Round: round, Values: v}})
	}
	for round, x := range []float64{1, 1.1} {
		for _, bed := range r.Plan.Beds {
			add(bed, "throughline", round, values{"tcp1.forward": 3.6 * x, "tcp1.reverse": 3.5 * x, "tcp1.cpu": 3 * x, "tcp1.retransmits": 0,
				"udp128.delivered": 290 * x, "udp128.lost": 0, "udp128.reordered": 0, "udp128.duplicates": 0,
				"rtt.mean": 0.1 * x, "rtt.p99": 0.2 * x, "rtt.lost": 0, "memory.rest": 7, "memory.peak": 18 * x})
			add(bed, "wireguard-go", round, values{"tcp1.forward": 2.4 * x, "tcp1.reverse": 2.3 * x, "tcp1.cpu": 6 * x, "tcp1.retransmits": float64(round) * 10,
				"udp128.delivered": 60, "udp128.lost": 80, "udp128.reordered": 0, "udp128.duplicates": 0,
				"rtt.mean": 0.25, "rtt.p99": 0.5, "rtt.lost": 0, "memory.rest": 8, "memory.peak": 300 * x})
		}
	}
	add(bedVeth, "<other>", 1, values{"tcp1.forward": 3, "tcp1.reverse": 3, "tcp1.cpu": 4, "tcp1.retransmits": 0})
	r.add(event{Failure: "round 1 of 2, veth, <other>: coming up: no"})
	r.summarise()
	return r
}

func TestTable(t *testing.T) { golden(t, "report.txt", aReport().text()) }

func TestPlot(t *testing.T) {
	svg := aReport().plot(bedVeth)
	golden(t, "plot.svg", svg)
	for dec := xml.NewDecoder(strings.NewReader(svg)); ; {
		_, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(svg, "%!") {
		t.Error("a format got the wrong arguments")
	}
}

func TestPlotOfNothing(t *testing.T) {
	r := aReport()
	r.samples = nil
	r.summarise()
	if svg := r.plot(bedVeth); strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
		t.Errorf("a plot of nothing: %s", svg)
	}
}

func TestTicks(t *testing.T) {
	for _, longest := range []float64{1, 1.05, 1.3, 2.9, 5, 12, 80, 3000} {
		ticks := ticksTo(longest)
		if len(ticks) > 10 || ticks[len(ticks)-1] != 1 {
			t.Errorf("ticks to %v: %v", longest, ticks)
		}
		for _, x := range ticks {
			if x > longest {
				t.Errorf("ticks to %v: %v", longest, ticks)
			}
		}
	}
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	r := aReport()
	for range 2 {
		written, err := r.write(dir)
		if err != nil || len(written) != 3 {
			t.Fatal(written, err)
		}
		r.When = r.When.Add(time.Hour)
	}
	text, err := os.ReadFile(filepath.Join(dir, "RESULTS.md"))
	if err != nil {
		t.Fatal(err)
	}
	s := string(text)
	if strings.Count(s, "# Results\n") != 1 || strings.Count(s, "\n## 2026-11-22 ") != 2 || strings.Count(s, "\n### Bed: ") != 4 {
		t.Errorf("RESULTS.md after two runs:\n%s", s)
	}
	for _, name := range []string{"20261122-183000-veth", "20261122-193000-segmenting"} {
		if _, err := os.Stat(filepath.Join(dir, "results", name+".svg")); err != nil {
			t.Error(err)
		}
		if !strings.Contains(s, "(results/"+name+".svg)") {
			t.Errorf("RESULTS.md doesn't show %s", name)
		}
	}
}

func TestSummarise(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   summary
	}{
		{nil, summary{}},
		{[]float64{3}, summary{1, 3, 3, 3}},
		{[]float64{9, 1}, summary{2, 5, 1, 9}},
		{[]float64{5, 1, 100}, summary{3, 5, 1, 100}},
		{[]float64{4, 1, 3, 2}, summary{4, 2.5, 1, 4}},
	} {
		if got := summarise(c.values); got != c.want {
			t.Errorf("summarise(%v) = %+v, want %+v", c.values, got, c.want)
		}
	}
}

func TestPercentile(t *testing.T) {
	var hundred []float64
	for i := range 100 {
		hundred = append(hundred, float64(100-i))
	}
	for _, c := range []struct {
		values []float64
		share  float64
		want   float64
	}{
		{hundred, 0.99, 99}, {hundred, 1, 100}, {hundred, 0.5, 50}, {hundred, 0, 1}, {[]float64{7}, 0.99, 7}, {[]float64{1, 2}, 0.99, 2},
	} {
		if got := percentile(c.values, c.share); got != c.want {
			t.Errorf("percentile %v of %d values = %v, want %v", c.share, len(c.values), got, c.want)
		}
	}
}

func TestCPUModel(t *testing.T) {
	const amd64 = "processor\t: 0\nmodel name\t: AMD EPYC 9B14\nflags\t\t: fpu avx2 avx512f sha_ni\n\nprocessor\t: 1\nmodel name\t: AMD EPYC 9B14\nflags\t\t: fpu avx2 avx512f sha_ni\n"
	if got := cpuModel(amd64); got != "AMD EPYC 9B14 (avx2, avx512f)" {
		t.Errorf("got %q", got)
	}
	if got := cpuModel("processor\t: 0\nFeatures\t: fp asimd aes\nCPU part\t: 0xd40\n"); !strings.HasSuffix(got, " (asimd)") {
		t.Errorf("got %q", got)
	}
	if cpuModel("") == "" {
		t.Error("a machine without a name")
	}
}
