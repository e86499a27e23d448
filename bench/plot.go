package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Sizes and positions in the plot, in pixels.
const (
	plotWidth = 1000
	plotLeft  = 270 // where the bars begin; the names of the metrics are to the left
	plotRight = 840 // where the longest bar ends; the figures are to the right
	barHeight = 13
	groupGap  = 12
)

// colours are those of the programs, in order; they also differ in lightness.
var colours = []string{"#0b6e4f", "#e08e45", "#7a9cc6", "#b5446e", "#8d8d8d"}

// plot returns a bed's results as an SVG picture. Each metric has a bar for each program, whose length is its median divided by
// that of the first peer, with a line from the least to the greatest value. Counts of losses and the like aren't drawn.
func (r *report) plot(bed string) string {
	programs := r.Plan.Programs
	norm := programs[min(1, len(programs)-1)].Name
	var up, down []result
	for _, res := range r.resultsOn(bed) {
		switch {
		case res.Metric.Count || res.By[norm].N == 0 || res.By[norm].Median == 0:
		case res.Metric.Higher:
			up = append(up, res)
		default:
			down = append(down, res)
		}
	}
	var b strings.Builder
	y := 64
	draw := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	text := func(x, y int, attributes, s string) {
		draw(`<text x="%d" y="%d"%s>%s</text>`, x, y, attributes, html.EscapeString(s))
	}
	text(16, 28, ` font-size="17" font-weight="bold"`, "Userspace WireGuard, bed: "+bedDescriptions[bed])
	text(16, 48, ` fill="#555"`, fmt.Sprintf("%s · %s, %d cores · commit %s · medians of %s · MTU %d",
		r.When.Format("2006-01-02"), r.Machine.CPU, r.Machine.Cores, r.Commit, count(r.Plan.Rounds, "round"), r.Plan.MTU))
	x := plotLeft
	for i, p := range programs {
		draw(`<rect x="%d" y="%d" width="12" height="12" fill="%s"/>`, x, y, colour(i))
		text(x+18, y+11, "", p.Name)
		x += 18 + 8*len(p.Name) + 24
	}
	y += 30
	for _, panel := range []struct {
		title   string
		results []result
	}{{"higher is better", up}, {"lower is better", down}} {
		if len(panel.results) == 0 {
			continue
		}
		longest := 1.0
		for _, res := range panel.results {
			for _, p := range programs {
				longest = max(longest, res.By[p.Name].Median/res.By[norm].Median)
			}
		}
		longest *= 1.05
		at := func(ratio float64) int { // where a bar of that length ends
			return plotLeft + int(math.Round(min(ratio, longest)/longest*(plotRight-plotLeft)))
		}
		text(16, y+14, ` font-size="15" font-weight="bold"`, panel.title)
		text(plotLeft, y+14, ` fill="#555"`, "each metric as a multiple of "+norm+"'s")
		y += 40
		bottom := y + len(panel.results)*(len(programs)*barHeight+groupGap)
		for _, tick := range ticksTo(longest) {
			shade := "#e4e4e4"
			if tick == 1 {
				shade = "#777"
			}
			draw(`<line x1="%[1]d" y1="%[2]d" x2="%[1]d" y2="%[3]d" stroke="%[4]s"/>`, at(tick), y-6, bottom-groupGap, shade)
			text(at(tick), y-10, ` text-anchor="middle" fill="#555"`, fmt.Sprintf("%g×", tick))
		}
		for _, res := range panel.results {
			text(plotLeft-12, y+(len(programs)*barHeight)/2+4, ` text-anchor="end"`, res.Metric.Name)
			for i, p := range programs {
				s, unit := res.By[p.Name], res.By[norm].Median
				if s.N > 0 {
					end := at(s.Median / unit)
					draw(`<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`, plotLeft, y, max(end-plotLeft, 1), barHeight-2, colour(i))
					if s.Min != s.Max {
						draw(`<line x1="%[1]d" y1="%[3]d" x2="%[2]d" y2="%[3]d" stroke="#222"/>`, at(s.Min/unit), at(s.Max/unit), y+barHeight/2-1)
					}
					text(max(end, at(s.Max/unit))+6, y+10, ` font-size="11" stroke="#fff" stroke-width="3" paint-order="stroke"`, fmt.Sprintf("%s  (%.2f×)", res.Metric.format(s.Median), s.Median/unit))
				}
				y += barHeight
			}
			y += groupGap
		}
		y += 16
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="DejaVu Sans, Verdana, sans-serif" font-size="12" fill="#222">
<rect width="%[1]d" height="%[2]d" fill="#fff"/>
%[3]s</svg>
`, plotWidth, y, b.String())
}

// colour returns the colour of program i.
func colour(i int) string { return colours[i%len(colours)] }

// ticksTo returns round multiples up to the longest, at most eight. The one at 1 comes last: its line is drawn over the others.
func ticksTo(longest float64) []float64 {
	step := 0.25
	for _, s := range []float64{0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000} {
		if longest/step <= 8 {
			break
		}
		step = s
	}
	var ticks []float64
	for i := 0; float64(i)*step <= longest; i++ {
		if t := float64(i) * step; t != 1 && math.Abs(t-1) >= step/2 {
			ticks = append(ticks, t)
		}
	}
	return append(ticks, 1)
}
