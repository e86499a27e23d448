package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A report is the result of a whole measurement.
type report struct {
	When     time.Time  `json:"when"`
	Machine  machine    `json:"machine"`
	Commit   string     `json:"commit"`
	Plan     plan       `json:"plan"`
	Results  []result   `json:"results"` // a row for each bed and metric, in order
	Failures []string   `json:"failures,omitempty"`
	Profiles []*profile `json:"profiles,omitempty"`

	samples map[sampleKey][]float64 // one value for each round
}

// A sampleKey says what a value was measured of.
type sampleKey struct{ bed, program, metric string }

// A result is the values of one metric on one bed.
type result struct {
	Bed    string             `json:"bed"`
	Metric metric             `json:"metric"`
	By     map[string]summary `json:"by"`     // by program; N is 0 where nothing was measured
	Ratios map[string]float64 `json:"ratios"` // our median divided by that program's, unless that is zero or missing
}

// add adds an event of the inner half.
func (r *report) add(e event) {
	switch {
	case e.Sample != nil:
		if r.samples == nil {
			r.samples = map[sampleKey][]float64{}
		}
		for id, v := range e.Sample.Values {
			at := sampleKey{e.Sample.Bed, e.Sample.Program, id}
			r.samples[at] = append(r.samples[at], v)
		}
	case e.Failure != "":
		r.Failures = append(r.Failures, e.Failure)
	case e.Profile != nil:
		r.Profiles = append(r.Profiles, e.Profile)
	}
}

// summarise computes the results from the samples.
func (r *report) summarise() {
	r.Results = nil
	for _, bed := range r.Plan.Beds {
		for _, m := range r.Plan.metrics() {
			res := result{Bed: bed, Metric: m, By: map[string]summary{}, Ratios: map[string]float64{}}
			for _, p := range r.Plan.Programs {
				res.By[p.Name] = summarise(r.samples[sampleKey{bed, p.Name, m.ID}])
			}
			ours := res.By[r.Plan.Programs[0].Name]
			for _, p := range r.Plan.Programs[1:] {
				theirs := res.By[p.Name]
				if ours.N > 0 && theirs.N > 0 && theirs.Median != 0 {
					res.Ratios[p.Name] = ours.Median / theirs.Median
				}
			}
			r.Results = append(r.Results, res)
		}
	}
}

// resultsOn returns the results on one bed.
func (r *report) resultsOn(bed string) []result {
	var on []result
	for _, res := range r.Results {
		if res.Bed == bed {
			on = append(on, res)
		}
	}
	return on
}

// conditions returns what the figures depend on, as lines of Markdown.
func (r *report) conditions() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, "- "+format+"\n", args...) }
	line("machine: %s, %d cores, Linux %s, load %s before the start", r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Machine.Load)
	line("repository: commit %s", r.Commit)
	for _, p := range r.Plan.Programs {
		line("%s", strings.Join(slices.DeleteFunc([]string{p.Name, p.Version, p.Go}, func(s string) bool { return s == "" }), " "))
	}
	line("%s, %d s for each transfer, MTU %d", count(r.Plan.Rounds, "round"), r.Plan.Secs, r.Plan.MTU)
	return b.String()
}

// text returns the report as Markdown that is also readable as plain text.
func (r *report) text() string {
	var b strings.Builder
	b.WriteString(r.conditions())
	for _, bed := range r.Plan.Beds {
		fmt.Fprintf(&b, "\nBed: %s\n\n%s", bedDescriptions[bed], r.table(bed))
	}
	for _, p := range r.Profiles {
		b.WriteString("\n" + p.text())
	}
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "\nfailed: %s\n", f)
	}
	return b.String()
}

// count returns a number and a noun, in the plural if it must be.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// bedDescriptions are the kinds of bed in a few words.
var bedDescriptions = map[string]string{
	bedVeth:       "veth (super-packets cross whole)",
	bedSegmenting: "segmenting (every datagram crosses alone)",
}

// write appends a section to RESULTS.md in the folder, with a plot of each bed beside it, and returns the files written.
func (r *report) write(folder string) (written []string, err error) {
	if err := os.MkdirAll(filepath.Join(folder, "results"), 0o755); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "\n## %s\n\n%s", r.When.Format("2006-01-02 15:04 MST"), r.conditions())
	for _, bed := range r.Plan.Beds {
		plot := fmt.Sprintf("results/%s-%s.svg", r.When.Format("20060102-150405"), bed)
		if err := os.WriteFile(filepath.Join(folder, plot), []byte(r.plot(bed)), 0o644); err != nil {
			return written, err
		}
		written = append(written, plot)
		fmt.Fprintf(&b, "\n### Bed: %s\n\n%s\n![%s](%s)\n", bedDescriptions[bed], r.table(bed), "the table as bars", plot)
	}
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "\nFailed: %s\n", f)
	}

	name := filepath.Join(folder, "RESULTS.md")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return written, err
	}
	defer f.Close()
	text := b.Bytes()
	if st, err := f.Stat(); err == nil && st.Size() == 0 {
		text = append([]byte(resultsHead), text...)
	}
	if _, err := f.Write(text); err != nil {
		return written, err
	}
	return append([]string{name}, written...), f.Close()
}

// resultsHead is the head of RESULTS.md.
const resultsHead = `# Results

Each section is one run of the command in this folder: medians of its rounds, with the least and the greatest, and the
ratio of ours to each other program's. README.md says what is measured and how.
`
