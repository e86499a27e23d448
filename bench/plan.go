package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A plan is what is to be measured. The outer half makes it, and the inner half carries it out.
type plan struct {
	Programs []program `json:"programs"`
	Beds     []string  `json:"beds"`
	Tests    []test    `json:"tests"`
	Rounds   int       `json:"rounds"`
	Secs     int       `json:"secs"` // of each transfer
	MTU      int       `json:"mtu"`  // of the tunnel, in bytes
	Profile  bool      `json:"profile"`
}

// The two kinds of bed. On the first, super-packets cross the cable whole; on the second, every datagram crosses alone, as it
// does on a real wire. The first favours programs that send super-packets.
const (
	bedVeth       = "veth"
	bedSegmenting = "segmenting"
)

func parseBeds(s string) ([]string, error) {
	switch s {
	case bedVeth, bedSegmenting:
		return []string{s}, nil
	case "both":
		return []string{bedVeth, bedSegmenting}, nil
	}
	return nil, fmt.Errorf("-bed is %q: use veth, segmenting or both", s)
}

// A test is the name of a kind of load: tcp and the number of streams, udp and the bytes of payload in a datagram, udpmix,
// rtt, or load.
type test string

const (
	testMix  test = "udpmix" // datagrams of several sizes in one flow
	testRTT  test = "rtt"    // pings while nothing else uses the tunnel
	testLoad test = "load"   // pings while one TCP stream has the same direction
)

// defaultTests are measured unless -only names others. TCP with one stream comes first, so that every daemon meets its first
// load in the same state.
var defaultTests = []test{"tcp1", "tcp8", "udp64", "udp128", "udp512", "udp1300", testMix, testRTT, testLoad}

// headers is how many bytes of the MTU are taken by the IPv4 and UDP headers inside the tunnel.
const headers = 28

func parseTests(only string, mtu int) ([]test, error) {
	if only == "" {
		fits := slices.DeleteFunc(slices.Clone(defaultTests), func(t test) bool {
			size, ok := t.number("udp")
			return ok && size > mtu-headers
		})
		return fits, nil
	}
	var tests []test
	for name := range strings.SplitSeq(only, ",") {
		t := test(strings.TrimSpace(name))
		streams, tcp := t.number("tcp")
		size, udp := t.number("udp")
		switch {
		case t == testMix, t == testRTT, t == testLoad:
		case tcp && streams >= 1 && streams <= 128:
		case udp && size >= minDatagram && size <= mtu-headers:
		case udp:
			return nil, fmt.Errorf("-only: %s: with an MTU of %d, the payload of a datagram has from %d to %d bytes", t, mtu, minDatagram, mtu-headers)
		default:
			return nil, fmt.Errorf("-only: unknown test %q; use tcp1, tcp8, udp64, udp128, udp512, udp1300, udpmix, rtt, load", t)
		}
		if slices.Contains(tests, t) {
			return nil, fmt.Errorf("-only: %s is named twice", t)
		}
		tests = append(tests, t)
	}
	return tests, nil
}

// number returns the number after a kind of test, and whether the test is of that kind.
func (t test) number(kind string) (int, bool) {
	digits, ok := strings.CutPrefix(string(t), kind)
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil
}

// sizes returns the payload sizes that a UDP test sends, in turn.
func (t test) sizes(mtu int) []int {
	if n, ok := t.number("udp"); ok {
		return []int{n}
	}
	const small, middle = 64, 512
	large := min(1300, mtu-headers)
	return []int{small, small, middle, small, small, middle, small, large, small, middle, small, middle} // 7:4:1
}

// duration returns how long the test should take, with the programs that must be started for it.
func (t test) duration(secs int) time.Duration {
	transfer := time.Duration(secs) * time.Second
	if _, ok := t.number("tcp"); ok {
		return 2*transfer + time.Second
	}
	if t == testRTT {
		return time.Duration(rttCount(secs))*time.Millisecond + time.Second/2
	}
	return transfer + time.Second
}

// startup is how long it takes to make and remove a bed.
const startup = 1500 * time.Millisecond

// perProgram returns how long one program takes in one round on one bed.
func (p plan) perProgram() time.Duration {
	d := startup
	for _, t := range p.Tests {
		d += t.duration(p.Secs)
	}
	return d
}

// duration returns how long the whole plan should take.
func (p plan) duration() time.Duration {
	d := time.Duration(p.Rounds*len(p.Beds)*len(p.Programs)) * p.perProgram()
	if p.Profile {
		d += time.Duration(len(p.Programs)*len(p.Beds)) * (2 * (startup + 3*time.Second + time.Duration(p.Secs)*time.Second))
	}
	return d
}

// duplicateName returns a name that two programs have, if any.
func (p plan) duplicateName() string {
	for i, prog := range p.Programs {
		for _, other := range p.Programs[:i] {
			if other.Name == prog.Name {
				return prog.Name
			}
		}
	}
	return ""
}

// order returns the programs in the order of a round. It rotates, so that every program comes first in some rounds.
func (p plan) order(round int) []program {
	n := round % len(p.Programs)
	return slices.Concat(p.Programs[n:], p.Programs[:n])
}

// describe returns the output of -dry-run: what would be done.
func (o *options) describe() string {
	var b strings.Builder
	p := o.plan
	ours := program{Name: oursName}
	for _, e := range o.extra {
		if e.Name == oursName {
			ours = e
		}
	}
	p.Programs = []program{ours}
	if ours.Path == "" {
		fmt.Fprintf(&b, "build      %s from ../cmd/throughline\n", oursName)
	} else {
		fmt.Fprintf(&b, "use        %s as %s\n", ours.Path, oursName)
	}
	for _, name := range o.peers {
		fmt.Fprintf(&b, "install    %s from %s\n", name, peerSource(name))
		p.Programs = append(p.Programs, program{Name: name})
	}
	for _, e := range o.extra {
		if e.Name != oursName {
			fmt.Fprintf(&b, "use        %s as %s\n", e.Path, e.Name)
			p.Programs = append(p.Programs, e)
		}
	}
	if o.selfCheck {
		fmt.Fprintf(&b, "compare    %s with itself\n", oursName)
		p.Programs = append(p.Programs, ours)
	}
	tests := make([]string, len(p.Tests))
	for i, t := range p.Tests {
		tests[i] = string(t)
	}
	fmt.Fprintf(&b, "beds       %s, MTU %d\n", strings.Join(p.Beds, " and "), p.MTU)
	fmt.Fprintf(&b, "measure    %s\n", strings.Join(tests, " "))
	fmt.Fprintf(&b, "           %s, %d s for each transfer, every program in turn\n", count(p.Rounds, "round"), p.Secs)
	if p.Profile {
		fmt.Fprintln(&b, "profile    each program with perf, under tcp1 and udp128")
	}
	if o.write {
		fmt.Fprintf(&b, "write      a section of %s/RESULTS.md, plots in %[1]s/results\n", strings.TrimSuffix(o.out, "/"))
	}
	fmt.Fprintf(&b, "takes      about %s\n", roughly(p.duration()))
	return b.String()
}

// roughly returns a duration in seconds or minutes.
func roughly(d time.Duration) string {
	switch {
	case d < 100*time.Second:
		return fmt.Sprintf("%d s", int(d.Round(time.Second).Seconds()))
	default:
		return fmt.Sprintf("%d min", int(d.Round(time.Minute).Minutes()))
	}
}
