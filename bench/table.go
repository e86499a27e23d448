package main

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// table returns a bed's results as a Markdown table whose columns are aligned, so that it is readable as plain text too.
func (r *report) table(bed string) string {
	programs := r.Plan.Programs
	head := []string{"", "better"}
	for _, p := range programs {
		head = append(head, p.Name)
	}
	for _, p := range programs[1:] {
		head = append(head, "ours ÷ "+p.Name)
	}
	rows := [][]string{head}
	for _, res := range r.resultsOn(bed) {
		row := []string{res.Metric.Name, res.Metric.better()}
		for _, p := range programs {
			row = append(row, res.Metric.cell(res.By[p.Name], r.Plan.Rounds))
		}
		for _, p := range programs[1:] {
			row = append(row, res.ratio(p.Name))
		}
		rows = append(rows, row)
	}
	return align(rows)
}

// cell returns a median with the least and the greatest value, and in how many rounds there was a value if not in all.
func (m metric) cell(s summary, rounds int) string {
	if s.N == 0 {
		return "–"
	}
	text := m.format(s.Median)
	if s.Min != s.Max {
		text += " (" + m.format(s.Min) + "–" + m.format(s.Max) + ")"
	}
	if s.N < rounds {
		text += " in " + strconv.Itoa(s.N)
	}
	return text
}

// ratio returns our median divided by a program's.
func (r result) ratio(program string) string {
	if x, ok := r.Ratios[program]; ok {
		return strconv.FormatFloat(x, 'f', 2, 64)
	}
	return "–"
}

// align returns rows, of which the first is the head, as a Markdown table: the first two columns aligned to the left, the
// others to the right.
func align(rows [][]string) string {
	const left = 2
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell), 3)
		}
	}
	var b strings.Builder
	write := func(row []string) {
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i < left {
				b.WriteString("| " + cell + pad + " ")
			} else {
				b.WriteString("| " + pad + cell + " ")
			}
		}
		b.WriteString("|\n")
	}
	write(rows[0])
	for i, w := range widths {
		if i < left {
			b.WriteString("|" + strings.Repeat("-", w+2))
		} else {
			b.WriteString("|" + strings.Repeat("-", w+1) + ":")
		}
	}
	b.WriteString("|\n")
	for _, row := range rows[1:] {
		write(row)
	}
	return b.String()
}
