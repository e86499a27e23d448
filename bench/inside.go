package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// An event is a message of the inner half to the outer one. Exactly one field is set.
type event struct {
	Sample  *sample  `json:",omitempty"`
	Failure string   `json:",omitempty"`
	Profile *profile `json:",omitempty"`
}

// A sample is some measured values of one program, in one round, on one bed.
type sample struct {
	Bed     string
	Program string
	Round   int
	Values  values
}

// Values are measured figures by the id of their metric.
type values map[string]float64

// inside runs the inner half: it reads a plan from stdin, and writes events to stdout and its progress to stderr.
func inside(stdin io.Reader, stdout, stderr io.Writer) error {
	var p plan
	if err := json.NewDecoder(stdin).Decode(&p); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := mountPrivateRun(); err != nil {
		return err
	}
	in := &inner{plan: p, out: json.NewEncoder(stdout), progress: stderr, begun: time.Now()}
	for round := range p.Rounds {
		for _, kind := range p.Beds {
			for _, prog := range p.order(round) {
				in.measure(ctx, round, kind, prog)
			}
		}
	}
	if p.Profile {
		for _, kind := range p.Beds {
			for _, prog := range p.Programs {
				in.profile(ctx, kind, prog)
			}
		}
	}
	return nil
}

// inner is the state of the inner half.
type inner struct {
	plan
	out      *json.Encoder
	progress io.Writer
	begun    time.Time
	planned  time.Duration // how long what is done should have taken
	beds     int           // how many were made
}

// measure makes a bed for one program and does every test on it once.
func (in *inner) measure(ctx context.Context, round int, kind string, prog program) {
	if ctx.Err() != nil {
		return
	}
	title := fmt.Sprintf("round %d of %d, %s, %s", round+1, in.Rounds, kind, prog.Name)
	record := func(v values) {
		in.send(event{Sample: &sample{Bed: kind, Program: prog.Name, Round: round, Values: v}})
	}
	fail := func(what string, err error) {
		if ctx.Err() != nil {
			fmt.Fprintln(in.progress, "interrupted")
			return
		}
		fmt.Fprintf(in.progress, "failed: %s\n", oneLine(err))
		in.send(event{Failure: fmt.Sprintf("%s: %s: %s", title, what, oneLine(err))})
	}

	in.printf("%s: starting ", title)
	in.beds++
	b, err := newBed(ctx, in.beds, kind, prog, in.MTU)
	if err != nil {
		fail("starting", err)
		in.planned += in.plan.perProgram()
		return
	}
	defer b.down()
	fmt.Fprintf(in.progress, "(%s left)\n", roughly(in.left()))
	in.planned += startup
	before, err := b.memory("VmRSS")
	if err != nil {
		fail("memory before load", err)
		return
	}
	for _, t := range in.Tests {
		in.printf("%s: %s ", title, t)
		v, err := b.measure(ctx, t, in.Secs)
		in.planned += t.duration(in.Secs)
		if ctx.Err() == nil && err == nil {
			err = b.alive()
		}
		if err != nil {
			fail(string(t), err)
			if ctx.Err() != nil {
				return
			}
			continue
		}
		fmt.Fprintf(in.progress, "%s (%s left)\n", t.brief(v), roughly(in.left()))
		record(v)
	}
	peak, err := b.memory("VmHWM")
	if err != nil {
		fail("peak memory", err)
		return
	}
	record(values{"memory.rest": before, "memory.peak": peak})
}

// profile profiles one program under the two loads that differ most.
func (in *inner) profile(ctx context.Context, kind string, prog program) {
	for _, t := range []test{"tcp1", "udp128"} {
		if ctx.Err() != nil {
			return
		}
		in.printf("profile, %s, %s: %s ", kind, prog.Name, t)
		in.beds++
		p, err := profileOne(ctx, in.beds, kind, prog, in.MTU, t, in.Secs)
		if err != nil {
			fmt.Fprintf(in.progress, "failed: %s\n", oneLine(err))
			in.send(event{Failure: fmt.Sprintf("profile, %s, %s: %s: %s", kind, prog.Name, t, oneLine(err))})
			continue
		}
		fmt.Fprintln(in.progress, "done")
		in.send(event{Profile: p})
	}
}

// printf prints progress.
func (in *inner) printf(format string, args ...any) {
	fmt.Fprintf(in.progress, "bench: "+format, args...)
}

// send sends an event to the outer half. An error means that the outer half has ended, so it is ignored.
func (in *inner) send(e event) { in.out.Encode(e) }

// left estimates how long the rest of the plan takes, from how long the first part took compared with its plan.
func (in *inner) left() time.Duration {
	left := in.plan.duration() - in.planned
	if in.planned > 10*time.Second {
		left = time.Duration(float64(left) * float64(time.Since(in.begun)) / float64(in.planned))
	}
	return max(left, 0)
}

// brief returns a test's result in a few words, for the progress.
func (t test) brief(v values) string {
	var words []string
	for _, m := range t.metrics() {
		if x, ok := v[m.ID]; ok {
			words = append(words, fmt.Sprintf("%s %s", m.ID[strings.IndexByte(m.ID, '.')+1:], m.format(x)))
		}
	}
	return strings.Join(words, ", ")
}
