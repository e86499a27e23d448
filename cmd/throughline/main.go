// Throughline is a userspace WireGuard. As `throughline INTERFACE` it is a daemon that stands in for wireguard-go: it
// makes the interface, and is set up by wg(8) and wg-quick(8).
//
// Only this package reads arguments and the environment, writes to the terminal, and exits. Its goroutines are in the table
// of ARCHITECTURE.md; its limits are those of the packages it runs.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
)

const usage = `usage: throughline [-f | --foreground] INTERFACE
       throughline proxy [-i ADDRESS:PORT] [-n] CONF
       throughline demo [--once] [--tun] [--dry-run]
       throughline --version

Makes the network interface INTERFACE and carries its packets through WireGuard tunnels, until the
interface is deleted, its configuration socket is removed, or SIGINT or SIGTERM comes. It goes to the
background once the interface is there, unless -f is given. Set it up with wg(8) or wg-quick(8):

  WG_QUICK_USERSPACE_IMPLEMENTATION=throughline wg-quick up INTERFACE

Two commands need no privileges: 'proxy' serves SOCKS5, HTTP proxies and forwarded ports through a tunnel,
as one file configures them; 'demo' shows a tunnel at work, on a page that comes through it. See
'throughline proxy --help' and 'throughline demo --help'. For an interface named proxy or demo, put -f first.

` + environmentUsage

// errUsage is wrapped by the error of a wrong call: one line, which says how to get the usage.
var errUsage = errors.New("run 'throughline --help' for usage")

// errReported is the error of a failure that has been printed already.
var errReported = errors.New("reported already")

func main() {
	err := run(os.Args[1:], os.Stdout)
	if err == nil {
		return
	}
	if !errors.Is(err, errReported) {
		fmt.Fprintf(os.Stderr, "throughline: %s\n", oneLine(err))
	}
	os.Exit(1)
}

// oneLine makes one line of an error's text.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// run runs the program.
func run(args []string, stdout io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case "proxy":
			return runProxy(args[1:], stdout)
		case "demo":
			return runDemo(args[1:], stdout)
		}
	}
	name, foreground := "", false
	for i, arg := range args {
		switch {
		case arg == "-h" || arg == "--help" || arg == "help" && i == 0 && len(args) == 1:
			_, err := io.WriteString(stdout, usage)
			return err
		case arg == "--version":
			_, err := fmt.Fprintf(stdout, "throughline %s %s %s/%s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		case arg == "-f" || arg == "--foreground":
			foreground = true
		case strings.HasPrefix(arg, "-"):
			return fmt.Errorf("no flag %q; %w", arg, errUsage)
		case name != "":
			return fmt.Errorf("one interface at a time, not %q and %q; %w", name, arg, errUsage)
		default:
			name = arg
		}
	}
	if name == "" {
		return fmt.Errorf("no interface is named; %w", errUsage)
	}
	env, err := readEnvironment()
	if err != nil {
		return err
	}
	env.printNotices(os.Stderr)
	d := &daemon{environment: env, name: name}
	if foreground || env.foreground {
		return d.run(func() {})
	}
	return d.background()
}
