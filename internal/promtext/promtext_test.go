package promtext

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestText(t *testing.T) {
	var text Text
	if len(text.Bytes()) != 0 {
		t.Errorf("the zero Text is %q", text.Bytes())
	}
	text.Metric("up_seconds", Gauge, "How long\nit \\ has been \"up\".")
	text.Sample(0)
	text.Metric("sent_total", Counter, "Sent.")
	text.Sample(1, "to", "a")
	text.Sample(1<<64-1, "to", "a \"quoted\\\n\x80name", "index", "", "third", "ü{}, #")
	const want = `# HELP up_seconds How long\nit \\ has been "up".
# TYPE up_seconds gauge
up_seconds 0
# HELP sent_total Sent.
# TYPE sent_total counter
sent_total{to="a"} 1
` + "sent_total{to=\"a \\\"quoted\\\\\\n\ufffdname\",index=\"\",third=\"ü{}, #\"} 18446744073709551615\n"
	if got := string(text.Bytes()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestLabelsComeBack holds that a reader of the format gets every label's value as it was.
func TestLabelsComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.OneOf(rapid.String(), rapid.StringMatching(`[\\"n\n]*`)).Draw(t, "value")
		var text Text
		text.Metric("m", Gauge, value)
		text.Sample(5, "first", value, "second", "x")
		lines := strings.Split(string(text.Bytes()), "\n")
		if len(lines) != 4 || lines[3] != "" || !utf8.Valid(text.Bytes()) {
			t.Fatalf("%d lines: %q", len(lines), lines)
		}
		if help := unescape(t, strings.TrimPrefix(lines[0], "# HELP m "), false); help != value {
			t.Fatalf("the help %q became %q", value, help)
		}
		escaped, ok := strings.CutPrefix(lines[2], `m{first="`)
		escaped, ok2 := strings.CutSuffix(escaped, `",second="x"} 5`)
		if !ok || !ok2 {
			t.Fatalf("not a sample: %q", lines[2])
		}
		if got := unescape(t, escaped, true); got != value {
			t.Fatalf("%q became %q", value, got)
		}
	})
}

// unescape reads an escaped text, of which an unescaped quote would be the end.
func unescape(t *rapid.T, s string, quoted bool) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '"':
			t.Fatalf("%q ends within", s)
		case s[i] != '\\':
			b.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == 'n':
			b.WriteByte('\n')
			i++
		case i+1 < len(s) && (s[i+1] == '\\' || quoted && s[i+1] == '"'):
			b.WriteByte(s[i+1])
			i++
		default:
			t.Fatalf("%q has an unknown escape", s)
		}
	}
	return b.String()
}

type number int

func (n number) String() string { return strconv.Itoa(int(n)) }

func TestSorted(t *testing.T) {
	if got := fmt.Sprint(Sorted(map[number]bool{9: true, 10: true, 1: true})); got != "[1 10 9]" {
		t.Error(got)
	}
	if got := Sorted(map[number]bool(nil)); len(got) != 0 {
		t.Error(got)
	}
}

func TestMisuse(t *testing.T) {
	for name, misuse := range map[string]func(*Text){
		"no metric": func(t *Text) { t.Sample(1) },
		"no value":  func(t *Text) { t.Metric("m", Gauge, ""); t.Sample(1, strings.Fields("label")...) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			misuse(new(Text))
		}()
	}
}
