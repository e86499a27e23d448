package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"time"

	"throughline/cmd/throughline/internal/demo"
	"throughline/udp"
)

const demoUsage = `usage: throughline demo [--tun] [--listen ADDRESS:PORT] [--seconds N] [--json]
       throughline demo [--tun] --once [--seconds N] [--json]
       throughline demo [--tun] --dry-run

Makes a WireGuard tunnel with both ends in this process, and shows it at work
on a page for your browser that comes through it. It needs no privileges, no
configuration and no network, and leaves nothing behind.

  --once                 no page: carry a fixed load, compare every byte, print
                         what was measured, and end; the exit status is 0 only
                         if every byte arrived intact
  --tun                  with real TUN interfaces and the kernel's own TCP, in
                         two network namespaces that end with the demo (Linux;
                         as root, or where users may make namespaces)
  --listen ADDRESS:PORT  serve the page there (127.0.0.1 and a free port)
  --seconds N            end after N seconds; with --once, fail if that isn't
                         enough (180)
  --json                 print JSON: the result of --once, or a line for each
                         report
  --dry-run              only print what the demo would make

To see the page of a demo on another machine, run it there with
--listen 127.0.0.1:PORT, run ssh -L 8080:127.0.0.1:PORT MACHINE here, and open
http://127.0.0.1:8080/.

Environment: LOG_LEVEL, THROUGHLINE_OFFLOADS_OFF and
THROUGHLINE_CIPHER_IMPLEMENTATION, see 'throughline --help'.
`

// onceTimeout is how long --once may take without --seconds. It takes three seconds on an ordinary machine.
const onceTimeout = 3 * time.Minute

// reportEvery is how often a demo with a page prints its figures.
const reportEvery = 3 * time.Second

// A demoCall is what one call of "throughline demo" asks for.
type demoCall struct {
	once, json, tun, dry bool

	listen  string
	live    bool          // stdout is a terminal whose last line can be overwritten
	timeout time.Duration // 0: none
	plan    demo.Plan
	host    udp.Host
	cipher  string
	log     *slog.Logger
}

// options are what the call's demo is made of.
func (c *demoCall) options() demo.Options {
	return demo.Options{Version: version(), Network: &c.host, Logger: c.log, Cipher: c.cipher, TUN: c.tun, Off: c.host.Off}
}

// make makes the demo. An error says what to do where --tun is the reason.
func (c *demoCall) make() (*demo.Demo, error) {
	d, err := demo.New(c.options())
	switch {
	case err == nil || !c.tun:
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("--tun: %w; %s", err, withoutPrivileges)
	default:
		err = fmt.Errorf("--tun: %w; or leave --tun out", err)
	}
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	return d, nil
}

// withoutPrivileges says what to do where --tun isn't permitted.
const withoutPrivileges = "run it as root, or leave --tun out"

// flags returns a set of flags that prints nothing by itself.
func flags(verb string) *flag.FlagSet {
	fs := flag.NewFlagSet(verb, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// runDemo runs "throughline demo".
func runDemo(args []string, stdout io.Writer) error {
	c := demoCall{plan: demo.Plan{Bytes: 128 << 20, Streams: 16, Pings: 200}}
	fs := flags("demo")
	fs.BoolVar(&c.once, "once", false, "")
	fs.BoolVar(&c.json, "json", false, "")
	fs.BoolVar(&c.tun, "tun", false, "")
	fs.BoolVar(&c.dry, "dry-run", false, "")
	fs.StringVar(&c.listen, "listen", "127.0.0.1:0", "")
	seconds := fs.Uint("seconds", 0, "")
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) || err == nil && fs.NArg() == 1 && fs.Arg(0) == "help" {
		_, err := io.WriteString(stdout, demoUsage)
		return err
	} else if err != nil {
		return fmt.Errorf("demo: %w; run 'throughline demo --help' for usage", err)
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("demo: no argument %q; run 'throughline demo --help' for usage", fs.Arg(0))
	}
	if c.tun && !hasNamespaces {
		return errors.New("demo: --tun needs Linux; leave it out, without it the demo runs here too")
	}
	env, err := readEnvironment()
	if err != nil {
		return err
	}
	env.printNotices(os.Stderr)
	c.host = env.host
	c.host.Address = netip.MustParseAddr("127.0.0.1") // so that the tunnel's sockets can't be reached from outside
	c.cipher, c.log = env.cipher, env.logger(slog.LevelWarn)
	c.timeout = time.Duration(min(*seconds, 1<<31)) * time.Second

	if c.dry {
		return c.printDryRun(stdout)
	}
	ctx, stop := signal.NotifyContext(context.Background(), endSignals...)
	defer stop()
	if c.tun && !mayUseNamespaces() {
		return inUserNamespace(ctx, args)
	}
	if c.once {
		var bar io.Writer
		if isTerminal(os.Stderr) {
			bar = os.Stderr
		}
		return c.runOnce(ctx, stdout, bar)
	}
	c.live = stdout == os.Stdout && isTerminal(os.Stdout)
	return c.serve(ctx, stdout)
}

// isTerminal reports whether f is a terminal on which a line can be overwritten.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}

// runOnce carries out the plan and prints the result. Unless bar is nil, a progress bar is drawn on it.
func (c *demoCall) runOnce(ctx context.Context, stdout, bar io.Writer) (err error) {
	if c.timeout == 0 {
		c.timeout = onceTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	d, err := c.make()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()

	var progress func(string, int64, int64)
	if bar != nil {
		progress = func(what string, done, total int64) {
			const width = 30
			n := int(width * done / max(1, total))
			fmt.Fprintf(bar, clearLine+"%s%s %3d%% %s", strings.Repeat("█", n), strings.Repeat("░", width-n), 100*done/max(1, total), what)
		}
	}
	r, err := d.Once(ctx, c.plan, progress)
	if bar != nil {
		fmt.Fprint(bar, clearLine)
	}
	if errors.Is(err, demo.ErrTime) {
		return fmt.Errorf("demo: %w; give it more than %.0f s with --seconds", err, c.timeout.Seconds())
	} else if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if c.json {
		return printJSON(stdout, r)
	}
	return printResult(stdout, r)
}

// serve serves the page and prints reports until ctx ends or the time is over.
func (c *demoCall) serve(ctx context.Context, stdout io.Writer) (err error) {
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	ln, err := net.Listen("tcp", c.listen)
	if err != nil {
		return fmt.Errorf("demo: can't serve the page at %q: %w; %s", c.listen, cause(err), listenHint)
	}
	defer ln.Close()
	d, err := c.make()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- d.Serve(ctx, ln) }()
	url, open := pageURL(ln.Addr())
	s := d.Snapshot()
	if c.json {
		err = printReport(stdout, url, &s)
	} else {
		err = printWelcome(stdout, url, open, &s)
	}
	t := time.NewTicker(reportEvery)
	defer t.Stop()
	for err == nil {
		select {
		case err := <-served:
			if !c.json {
				end := "The demo has ended, and nothing of it is left.\n"
				if c.live {
					end = clearLine + end
				}
				io.WriteString(stdout, end)
			}
			return err
		case <-t.C:
			s := d.Snapshot()
			switch {
			case c.json:
				err = printReport(stdout, url, &s)
			case c.live:
				_, err = io.WriteString(stdout, clearLine+report(&s))
			default:
				_, err = io.WriteString(stdout, report(&s)+"\n")
			}
		}
	}
	cancel() // stdout is closed
	return errors.Join(err, <-served)
}

// listenHint says what to do where the page can't be served.
const listenHint = "use --listen ADDRESS:PORT with another, or leave it out for a free one"

// cause returns err without what the user wrote in the arguments, such as the address.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		err = call.Err
	}
	return err
}

// pageURL returns the URL of the page for a browser on this machine, and whether other machines can reach the page too.
func pageURL(a net.Addr) (url string, open bool) {
	at := a.(*net.TCPAddr).AddrPort()
	ip := at.Addr().Unmap()
	open = !ip.IsLoopback()
	if ip.IsUnspecified() {
		ip = netip.MustParseAddr("127.0.0.1")
	}
	return "http://" + netip.AddrPortFrom(ip, at.Port()).String() + "/", open
}
