package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"throughline/cmd/throughline/internal/demo"
)

// clearLine moves the terminal's cursor to the beginning of its line, and clears the line.
const clearLine = "\r\x1b[K"

// printDryRun prints what the demo would make.
func (c *demoCall) printDryRun(w io.Writer) error {
	var b strings.Builder
	b.WriteString("This demo would make, until it ends:\n")
	if c.tun && !mayUseNamespaces() {
		b.WriteString("  - a copy of this program, in a user namespace where this user counts as root\n")
	}
	for _, what := range c.options().Makes() {
		fmt.Fprintf(&b, "  - %s\n", what)
	}
	if !c.once {
		at := c.listen
		if host, ok := strings.CutSuffix(at, ":0"); ok {
			at = host + ", on a free port"
		}
		fmt.Fprintf(&b, "  - a listening TCP socket for the page, at %s\n", at)
	}
	b.WriteString("It would change no file, interface, route or setting of this machine.\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// printWelcome prints the URL of the page, and whether other machines can reach it.
func printWelcome(w io.Writer, url string, open bool, s *demo.Snapshot) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Open this in a browser on this machine:\n\n    %s\n\n", url)
	if open {
		b.WriteString("Anyone who can reach this machine can see it too, and start loads.\n")
	}
	b.WriteString("The page comes through the tunnel that it shows. ")
	if s.TUN {
		fmt.Fprintf(&b, "Its ends are TUN interfaces,\neach in a network namespace of its own. To look at one:\n\n    %s ip address\n\n", enterCommand(s.Near.Namespace))
	}
	b.WriteString("Ctrl-C ends the demo.\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// printReport prints one report as a line of JSON.
func printReport(w io.Writer, url string, s *demo.Snapshot) error {
	return printJSON(w, struct {
		Page string `json:"page"`
		*demo.Snapshot
	}{url, s})
}

// inside says what the tunnel's inner interfaces are.
func inside(tun bool) string {
	if tun {
		return "kernel TUNs"
	}
	return "user space"
}

// counted returns a number and a noun, in the plural if it must be.
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// printJSON prints v as one line of JSON.
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
	fmt.Fprintf(&b, "throughline %s, %s, %s for both ends, %s\n\n", r.Version, r.System, counted(r.CPUs, "CPU"), inside(r.TUN))
	for _, l := range r.Loads {
		fmt.Fprintf(&b, "  %-18s %12s   %s in %.2f s, every byte intact\n", l.Load, bitRate(l.BitsPerSecond), byteCount(uint64(l.Bytes)), l.Seconds)
	}
	fmt.Fprintf(&b, "  %-18s %12s   median of %d; 99%% within %s, %d lost\n", "round trip, idle", microseconds(r.RTT.Median), r.RTT.Sent, microseconds(r.RTT.P99), r.RTT.Lost)
	fmt.Fprintf(&b, "  %-18s %12s   with the handshake that it waited for\n", "first round trip", microseconds(r.FirstPing))
	fmt.Fprintf(&b, "  %-18s %12s   in all, %s; drops: %s\n", "datagrams", byteCount(r.Datagrams), counted(int(r.Handshakes), "handshake"), list(r.Drops))
	fmt.Fprintf(&b, "  %-18s   %s\n\n", "offloads", list(r.Offloads))
	const columns = "  %-18s %12s %11s    %12s %11s\n"
	fmt.Fprintf(&b, columns, "walk of a packet", "down: each", "in a batch", "up: each", "in a batch")
	for i := range r.Walk.Down {
		down, up := r.Walk.Down[i], r.Walk.Up[i]
		fmt.Fprintf(&b, columns, down.Name, perPacket(down), perBatch(down), perPacket(up), perBatch(up))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// perPacket is the time that a step took for each packet, or a dash if it was never timed.
func perPacket(s demo.Step) string {
	if s.Packets == 0 {
		return "-"
	}
	return fmt.Sprintf("%d ns", s.Nanos/s.Packets)
}

// perBatch is how many packets a batch had in a step, or a dash if it was never timed.
func perBatch(s demo.Step) string {
	if s.Batches == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", float64(s.Packets)/float64(s.Batches))
}

// list returns the entries of a map in alphabetical order.
func list[K interface {
	comparable
	fmt.Stringer
}, V any](m map[K]V) string {
	var words []string
	for k, v := range m {
		words = append(words, fmt.Sprintf("%v %v", k, v))
	}
	slices.Sort(words)
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

// bitRate formats bits per second with the unit that fits.
func bitRate(v float64) string {
	for _, unit := range []string{"bit/s", "kbit/s", "Mbit/s"} {
		if v < 999.5 {
			return fmt.Sprintf("%.0f %s", v, unit)
		}
		v /= 1000
	}
	digits := 2
	for w := v; w >= 9.995 && digits > 0; w /= 10 { // three significant ones
		digits--
	}
	return fmt.Sprintf("%.*f Gbit/s", digits, v)
}

// byteCount formats a number of bytes.
func byteCount(n uint64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// microseconds formats a time that is given in µs.
func microseconds(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%.2f ms", v/1000)
	}
	return fmt.Sprintf("%.0f µs", v)
}

// report returns one line about a running demo, short enough for a terminal. Throughput is the mean since the last report.
func report(s *demo.Snapshot) string {
	mean := func(v []float64) (m float64) {
		v = v[max(0, len(v)-int(reportEvery.Seconds()/s.Interval)):]
		for _, x := range v {
			m += x / float64(len(v))
		}
		return m
	}
	var drops uint64
	for _, n := range s.Drops() {
		drops += n
	}
	return fmt.Sprintf("%4.0f s  down %11s  up %11s  rtt %8s  handshakes %d  drops %d",
		s.Uptime, bitRate(mean(s.Down)), bitRate(mean(s.Up)), microseconds(s.RTT.Last), s.Handshakes, drops)
}
