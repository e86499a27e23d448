package packet

import "testing"

func TestOffloadStates(t *testing.T) {
	const off, on, withdrawn = OffloadOff, OffloadOn, OffloadWithdrawn
	for s, want := range map[OffloadState]string{off: "off", on: "on", withdrawn: "withdrawn", 9: "unknown"} {
		if s.String() != want {
			t.Errorf("%d is %q", s, s)
		}
	}
	for _, c := range []struct{ a, b, want OffloadState }{
		{on, on, on}, {on, off, off}, {off, on, off}, {off, off, off},
		{on, withdrawn, withdrawn}, {withdrawn, off, withdrawn}, {withdrawn, withdrawn, withdrawn},
	} {
		if got := c.a.Merge(c.b); got != c.want {
			t.Errorf("%v and %v: %v, want %v", c.a, c.b, got, c.want)
		}
	}
}
