package main

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseTests(t *testing.T) {
	for _, c := range []struct {
		only string
		mtu  int
		want string // the tests, or with ! in front a part of the error
	}{
		{"", 1420, "tcp1 tcp8 udp64 udp128 udp512 udp1300 udpmix rtt load"},
		{"", 1280, "tcp1 tcp8 udp64 udp128 udp512 udpmix rtt load"}, // 1300 bytes would be cut into fragments
		{"tcp1,udp128,rtt", 1420, "tcp1 udp128 rtt"},
		{"tcp16, udp1392", 1420, "tcp16 udp1392"},
		{"udp1393", 1420, "!from 16 to 1392"},
		{"udp15", 1420, "!from 16"},
		{"tcp0", 1420, "!unknown test"},
		{"tcp", 1420, "!unknown test"},
		{"sctp", 1420, "!unknown test"},
		{"rtt,rtt", 1420, "!twice"},
	} {
		tests, err := parseTests(c.only, c.mtu)
		var names []string
		for _, x := range tests {
			names = append(names, string(x))
		}
		part, wrong := strings.CutPrefix(c.want, "!")
		switch {
		case wrong && (err == nil || !strings.Contains(err.Error(), part)):
			t.Errorf("parseTests(%q, %d): want an error with %q, got %v", c.only, c.mtu, part, err)
		case !wrong && (err != nil || strings.Join(names, " ") != c.want):
			t.Errorf("parseTests(%q, %d) = %v, %v; want %s", c.only, c.mtu, names, err, c.want)
		}
	}
}

func TestMixFitsTheMTU(t *testing.T) {
	for _, mtu := range []int{1280, 1420, 9000} {
		if largest := slices.Max(testMix.sizes(mtu)); largest > mtu-headers {
			t.Errorf("MTU %d: the mix has datagrams of %d bytes", mtu, largest)
		}
	}
}

func TestTurnsRotate(t *testing.T) {
	p := plan{Programs: []program{{Name: "a"}, {Name: "b"}, {Name: "c"}}}
	var got []string
	for round := range 4 {
		for _, prog := range p.order(round) {
			got = append(got, prog.Name)
		}
	}
	if s := strings.Join(got, ""); s != "abcbcacababc" {
		t.Errorf("the order of four rounds is %s", s)
	}
}

func TestLeft(t *testing.T) {
	p := plan{Programs: make([]program, 2), Beds: []string{bedVeth}, Tests: []test{"tcp1"}, Rounds: 10, Secs: 9}
	whole := p.duration()
	if want := 20 * (19*time.Second + startup); whole != want {
		t.Fatalf("the plan takes %v, want %v", whole, want)
	}
	in := &inner{plan: p, begun: time.Now()}
	if d := in.left(); d != whole {
		t.Errorf("at the start, %v are left of %v", d, whole)
	}
	in.planned, in.begun = whole/2, time.Now().Add(-whole) // twice as slow as planned
	if d := in.left(); d < whole-time.Second || d > whole+time.Second {
		t.Errorf("half way at half speed, %v are left, want %v", d, whole)
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-rounds 0", "-rounds must be from 1"},
		{"-secs 0", "-secs from 1"},
		{"-mtu 100 -only rtt", "-mtu must be from"},
		{"-bed sofa", "-bed is"},
		{"-peers boringtun", "-peers: unknown program"},
		{"-program boringtun", "not name=/path"},
		{"-program a|b=/bin/true", "not name=/path"},
		{"tcp1", "unknown argument \"tcp1\""},
	} {
		if _, err := parseOptions(strings.Fields(c.args), io.Discard); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want an error with %q, got %v", c.args, c.want, err)
		}
	}
}

func TestDryRun(t *testing.T) {
	var out strings.Builder
	err := run(strings.Fields("-dry-run -bed both -peers wireguard-go -program other=/opt/other -only tcp1,rtt -rounds 2 -profile -write -out /tmp/x/"), &out, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	const want = `build      throughline from ../cmd/throughline
install    wireguard-go from golang.zx2c4.com/wireguard@latest
use        /opt/other as other
beds       veth and segmenting, MTU 1420
measure    tcp1 rtt
           2 rounds, 4 s for each transfer, every program in turn
profile    each program with perf, under tcp1 and udp128
write      a section of /tmp/x/RESULTS.md, plots in /tmp/x/results
takes      about 4 min
`
	if out.String() != want {
		t.Errorf("the dry run prints\n%s\nwant\n%s", &out, want)
	}
}

func TestSelfCheckIsSmall(t *testing.T) {
	o, err := parseOptions([]string{"-self-check"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	o.plan.Programs = make([]program, 2)
	if d := o.plan.duration(); d > 20*time.Second {
		t.Errorf("a self-check takes %v", d)
	}
	if len(o.peers) > 0 {
		t.Errorf("a self-check installs %v", o.peers)
	}
}
