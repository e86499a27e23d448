package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"throughline/internal/demo"
	"throughline/udp"
)

const demoUsage = `usage: throughline demo [--listen ADDRESS:PORT] [--seconds N] [--json]
       throughline demo --once [--seconds N] [--json]

Makes a tunnel with both ends in this process, and shows it at work on a page for your browser that comes
through it. It needs no privileges, no configuration and no network, and leaves nothing behind.

  --listen ADDRESS:PORT   where the page is (127.0.0.1 and a free port)
  --once                  no page: carry a fixed load, compare every byte, print what was measured, and end;
                          the exit status is 0 only if every byte arrived intact
  --seconds N             end after N seconds; with --once, fail if it isn't done by then (60)
  --json                  print JSON: the result of --once, or a line for each report

Environment: LOG_LEVEL, THROUGHLINE_OFFLOADS_OFF (gso, gro) and THROUGHLINE_CIPHER, as 'throughline --help' tells.
`

// onceWithin is how long --once may take when nothing else is said.
const onceWithin = 60 * time.Second

// reportEvery is how often a demo with a page says on stdout how it fares.
const reportEvery = 3 * time.Second

// A demoCall is what one call of "throughline demo" asks for.
type demoCall struct {
	once, json bool
	listen     string
	within     time.Duration // 0: no end
	plan       demo.Plan
	host       udp.Host
	cipher     string
	log        *slog.Logger
}

// flags returns a set of flags that says nothing by itself.
func flags(verb string) *flag.FlagSet {
	fs := flag.NewFlagSet(verb, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// runDemo is the verb demo.
func runDemo(args []string, stdout io.Writer) error {
	c := demoCall{plan: demo.Plan{Bytes: 128 << 20, Streams: 16, Pings: 200}}
	fs := flags("demo")
	fs.BoolVar(&c.once, "once", false, "")
	fs.BoolVar(&c.json, "json", false, "")
	fs.StringVar(&c.listen, "listen", "127.0.0.1:0", "")
	seconds := fs.Uint("seconds", 0, "")
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		_, err := io.WriteString(stdout, demoUsage)
		return err
	} else if err != nil {
		return fmt.Errorf("demo: %w; run 'throughline demo --help' for usage", err)
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("demo: no argument %q; run 'throughline demo --help' for usage", fs.Arg(0))
	}
	env, err := daemonFromEnvironment("")
	if err != nil {
		return err
	}
	c.host, c.cipher, c.log = env.host, env.cipher, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: env.level}))
	c.within = time.Duration(min(*seconds, 1<<31)) * time.Second

	ctx, stop := signal.NotifyContext(context.Background(), endSignals...)
	defer stop()
	if c.once {
		var bar io.Writer
		if isTerminal(os.Stderr) {
			bar = os.Stderr
		}
		return c.runOnce(ctx, stdout, bar)
	}
	return c.serve(ctx, stdout)
}

// isTerminal reports whether somebody may be looking.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// runOnce carries a plan and prints the result. A bar is drawn on bar unless it is nil.
func (c *demoCall) runOnce(ctx context.Context, stdout, bar io.Writer) (err error) {
	if c.within == 0 {
		c.within = onceWithin
	}
	ctx, cancel := context.WithTimeout(ctx, c.within)
	defer cancel()
	d, err := demo.New(demo.Options{Version: versionString(), Network: &c.host, Logger: c.log, Cipher: c.cipher})
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()

	var progress func(string, int64, int64)
	if bar != nil {
		progress = func(what string, done, total int64) {
			const width = 30
			n := int(width * done / max(1, total))
			fmt.Fprintf(bar, "\r\x1b[K%s%s %3d%% %s", strings.Repeat("█", n), strings.Repeat("░", width-n), 100*done/max(1, total), what)
		}
	}
	r, err := d.Once(ctx, c.plan, progress)
	if bar != nil {
		fmt.Fprint(bar, "\r\x1b[K")
	}
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if c.json {
		return printJSON(stdout, r)
	}
	return printResult(stdout, r)
}

func printJSON(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		panic("demo: BUG: a result is no JSON: " + err.Error())
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// printResult prints what --once measured.
func printResult(w io.Writer, r *demo.Result) error {
	var b strings.Builder
	fmt.Fprintf(&b, "throughline %s, %s, %d CPUs for both ends\n\n", r.Version, r.System, r.CPUs)
	for _, run := range r.Runs {
		fmt.Fprintf(&b, "  %-18s %12s   %s in %.2f s, every byte intact\n", run.Load, bitRate(run.BitsPerSecond), byteCount(uint64(run.Bytes)), run.Seconds)
	}
	fmt.Fprintf(&b, "  %-18s %12s   median of %d; 99%% within %s, %d lost\n", "round trip, idle", microseconds(r.RTT.Median), r.RTT.Sent, microseconds(r.RTT.P99), r.RTT.Lost)
	fmt.Fprintf(&b, "  %-18s %12s   with the handshake it waited for; handshakes in all: %d\n", "first round trip", microseconds(r.FirstPing), r.Handshakes)
	fmt.Fprintf(&b, "  %-18s %12s   drops: %s; %s\n\n", "datagrams", byteCount(r.Datagrams), inOrder(r.Drops), inOrder(r.Offloads))
	fmt.Fprintf(&b, "  %-18s %10s %10s %10s %10s %10s\n", "walk of a packet", "down: each", "a batch of", "up: each", "a batch of", "")
	for i := range r.Walk.Down {
		down, up := r.Walk.Down[i], r.Walk.Up[i]
		fmt.Fprintf(&b, "  %-18s %10s %10s %10s %10s\n", down.Name, each(down), batch(down), each(up), batch(up))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// each is the time that a step took for one packet; a dash when it was never timed.
func each(s demo.Step) string {
	if s.Packets == 0 {
		return "-"
	}
	return fmt.Sprintf("%d ns", s.Nanos/s.Packets)
}

func batch(s demo.Step) string {
	if s.Batches == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", float64(s.Packets)/float64(s.Batches))
}

func inOrder[V any](m map[string]V) string {
	var words []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		words = append(words, fmt.Sprintf("%s %v", k, m[k]))
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

func bitRate(v float64) string {
	for _, unit := range []string{"bit/s", "kbit/s", "Mbit/s"} {
		if v < 999.5 {
			return fmt.Sprintf("%.0f %s", v, unit)
		}
		v /= 1000
	}
	return fmt.Sprintf("%.2f Gbit/s", v)
}

func byteCount(n uint64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

func microseconds(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%.2f ms", v/1000)
	}
	return fmt.Sprintf("%.0f µs", v)
}

// serve shows the page until ctx or the time ends, and reports meanwhile.
func (c *demoCall) serve(ctx context.Context, stdout io.Writer) (err error) {
	if c.within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.within)
		defer cancel()
	}
	ln, err := net.Listen("tcp", c.listen)
	if err != nil {
		return fmt.Errorf("demo: the page can't be at %q: %w", c.listen, err)
	}
	defer ln.Close()
	d, err := demo.New(demo.Options{Version: versionString(), Network: &c.host, Logger: c.log, Cipher: c.cipher})
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- d.Serve(ctx, ln) }()
	if !c.json {
		fmt.Fprintf(stdout, "The page is at http://%v/ and comes through the tunnel that it shows. Ctrl-C ends the demo.\n", ln.Addr())
	}
	t := time.NewTicker(reportEvery)
	defer t.Stop()
	for {
		select {
		case err := <-served:
			return err
		case <-t.C:
			s := d.Snapshot()
			if c.json {
				err = printJSON(stdout, struct {
					Page string `json:"page"`
					demo.Snapshot
				}{"http://" + ln.Addr().String() + "/", s})
			} else {
				_, err = io.WriteString(stdout, report(&s))
			}
			if err != nil { // nobody listens any more
				cancel()
				return errors.Join(err, <-served)
			}
		}
	}
}

// report is one line about a demo that runs: the means of the last reports' interval.
func report(s *demo.Snapshot) string {
	mean := func(v []float64) (m float64) {
		v = v[max(0, len(v)-int(reportEvery.Seconds()/s.Interval)):]
		for _, x := range v {
			m += x / float64(len(v))
		}
		return m
	}
	return fmt.Sprintf("%5.0f s   down %12s   up %12s   round trip %9s   handshakes %d   drops: %s\n",
		s.Uptime, bitRate(mean(s.Down)), bitRate(mean(s.Up)), microseconds(s.RTT.Last), s.Handshakes, inOrder(s.Drops()))
}
