// Bench compares userspace WireGuard programs on one Linux machine: Throughline as built from this repository, wireguard-go,
// its fastest fork, and any others that are named.
//
//	cd bench && sudo go run .
//
// Two instances of each program run in two network namespaces joined by a veth pair, and are set up with wg(8). Every round
// measures every program in turn, so that changes of the machine's speed affect them all alike; medians and ratios are
// reported. Everything happens in namespaces that end with the command.
//
// The command has two halves. The outer one (this file) reads the flags, builds the programs and reports; the inner one
// (inside.go) runs in namespaces of its own, measures, and sends each sample to the outer one as it comes.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %s\n", oneLine(err))
		os.Exit(1)
	}
}

// oneLine makes one line of an error's text.
func oneLine(err error) string { return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ") }

// run runs one of the subcommands that the program runs itself with, or a measurement.
func run(args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case cmdInside:
			return inside(os.Stdin, stdout, stderr)
		case cmdSend:
			return send(args[1:], stdout)
		case cmdSink:
			return sink(args[1:], stdout)
		}
	}
	o, err := parseOptions(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if o.dryRun {
		_, err := io.WriteString(stdout, o.describe())
		return err
	}
	return o.measure(stdout, stderr)
}

// The subcommands that the program runs itself with.
const (
	cmdInside = "inside"
	cmdSend   = "send"
	cmdSink   = "sink"
)

// options are the values of the flags.
type options struct {
	plan      plan
	peers     []string
	extra     []program
	json      bool
	write     bool
	out       string
	dryRun    bool
	selfCheck bool
}

// parseOptions reads and checks the flags.
func parseOptions(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.IntVar(&o.plan.Rounds, "rounds", 5, "how many `times` everything is measured")
	fs.IntVar(&o.plan.Secs, "secs", 4, "how many `seconds` each transfer takes")
	fs.IntVar(&o.plan.MTU, "mtu", 1420, "the tunnel's MTU in `bytes`")
	fs.BoolVar(&o.plan.Profile, "profile", false, "afterwards, also profile each program with perf, and print where the time goes")
	only := fs.String("only", "", "the `tests` to run, for example tcp1,udp128,udpmix,rtt,load (default: all)")
	bed := fs.String("bed", bedVeth, "the test `bed`: veth (super-packets cross the cable whole), segmenting (every datagram crosses it alone), or both")
	peers := fs.String("peers", strings.Join(peerNames(), ","), "the known `programs` to compare with, or none")
	fs.Func("program", "another program to compare with, as `name=/path`; it is started as PATH -f INTERFACE; one named throughline is measured in place of ours", func(s string) error {
		p, err := parseProgram(s)
		o.extra = append(o.extra, p)
		return err
	})
	fs.BoolVar(&o.json, "json", false, "print JSON, not a table")
	fs.BoolVar(&o.write, "write", false, "append the results to RESULTS.md, with a plot in results/")
	fs.StringVar(&o.out, "out", ".", "the `folder` that -write writes into")
	fs.BoolVar(&o.dryRun, "dry-run", false, "print what would be done, and do nothing")
	fs.BoolVar(&o.selfCheck, "self-check", false, "one quick round of Throughline against itself, to see whether this tool works here")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unknown argument %q; run with -help for usage", fs.Arg(0))
	}
	if o.selfCheck {
		o.plan.Rounds, o.plan.Secs, *peers = 1, 1, "none"
		if *only == "" {
			*only = "tcp1,udp128,rtt"
		}
	}
	var err error
	if o.peers, err = parsePeers(*peers); err != nil {
		return nil, err
	}
	if o.plan.Beds, err = parseBeds(*bed); err != nil {
		return nil, err
	}
	if o.plan.Tests, err = parseTests(*only, o.plan.MTU); err != nil {
		return nil, err
	}
	if o.plan.Rounds < 1 || o.plan.Rounds > 100 || o.plan.Secs < 1 || o.plan.Secs > 60 {
		return nil, errors.New("-rounds must be from 1 to 100, and -secs from 1 to 60")
	}
	if o.plan.MTU < 576 || o.plan.MTU > 9000 {
		return nil, errors.New("-mtu must be from 576 to 9000")
	}
	return o, nil
}

// measure builds the programs, has the inner half measure them, and reports.
func (o *options) measure(stdout, stderr io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := needs(o.plan); err != nil {
		return err
	}
	ours, err := filepath.Abs("..")
	if err != nil {
		return err
	}
	if o.plan.Programs, err = gather(ctx, ours, o.peers, o.extra, stderr); err != nil {
		return err
	}
	if o.selfCheck {
		again := o.plan.Programs[0]
		again.Name = "again"
		o.plan.Programs = append(o.plan.Programs, again)
	}
	if names := o.plan.duplicateName(); names != "" {
		return fmt.Errorf("two programs are called %s", names)
	}
	r := &report{When: time.Now().UTC().Truncate(time.Second), Machine: thisMachine(), Commit: commit(ours), Plan: o.plan}
	if slices.ContainsFunc(o.extra, func(p program) bool { return p.Name == oursName }) {
		r.Commit = "unknown: " + o.plan.Programs[0].Path
	}
	ctx, cancel := context.WithTimeout(ctx, 3*o.plan.duration()+time.Minute)
	defer cancel()
	err = confine(ctx, o.plan, stderr, r.add)
	if err != nil && ctx.Err() == nil {
		return err
	}
	ended := context.Cause(ctx)
	r.summarise()

	if o.json {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		_, err = io.WriteString(stdout, r.text())
	}
	if err != nil {
		return err
	}
	switch {
	case errors.Is(ended, context.DeadlineExceeded):
		return errors.New("stopped after three times the planned duration; what was measured until then is above")
	case ended != nil:
		return errors.New("interrupted: what was measured until then is above")
	}
	if o.write {
		written, err := r.write(o.out)
		if err != nil {
			return err
		}
		fmt.Fprintf(stderr, "bench: wrote %s\n", strings.Join(written, ", "))
	}
	if n := len(r.Failures); n > 0 {
		return fmt.Errorf("%d of the measurements failed, the first: %s", n, r.Failures[0])
	}
	return nil
}
