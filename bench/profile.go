package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A profile shows where the processor time of a program's two daemons went under one load.
type profile struct {
	Bed     string  `json:"bed"`
	Program string  `json:"program"`
	Test    test    `json:"test"`
	Groups  []share `json:"groups"` // largest first
	Top     []share `json:"top"`
}

// A share is a group's or a symbol's part of the time, in per cent.
type share struct {
	Percent float64 `json:"percent"`
	Group   string  `json:"group"`
	Symbol  string  `json:"symbol,omitempty"`
	Object  string  `json:"object,omitempty"` // the program or library that has the symbol, or the kernel
}

// topSymbols is how many symbols a profile has.
const topSymbols = 25

// profileOne makes a bed, does one test on it, and has perf profile both daemons meanwhile.
func profileOne(ctx context.Context, n int, kind string, prog program, mtu int, t test, secs int) (*profile, error) {
	b, err := newBed(ctx, n, kind, prog, mtu)
	if err != nil {
		return nil, err
	}
	defer b.down()
	dir, err := os.MkdirTemp("", "bench-perf-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(ctx, time.Duration(secs)*time.Second+6*waitLimit)
	defer cancel()

	data := filepath.Join(dir, "perf.data")
	pids := fmt.Sprintf("%d,%d", b.a.daemon.cmd.Process.Pid, b.b.daemon.cmd.Process.Pid)
	record := command(ctx, "perf", "record", "-q", "-N", "-F", "997", "-p", pids, "-o", data, "-D", "-1", "--control", "fd:3,4")
	record.Cancel = func() error { return record.Process.Signal(os.Interrupt) }
	record.WaitDelay = waitLimit
	var stderr strings.Builder
	record.Stderr = &stderr
	control, err := startRecording(record)
	if err != nil {
		return nil, fmt.Errorf("perf record: %w: %s", err, stderr.String())
	}
	defer control.Close()
	if t == "tcp1" {
		_, err = b.iperf(ctx, 1, secs)
	} else {
		_, err = b.udp(ctx, t, secs)
	}
	record.Process.Signal(os.Interrupt)
	record.Wait() // it always fails by the signal; whether it worked shows in perf report
	if err != nil {
		return nil, err
	}
	out, err := command(ctx, "perf", "report", "-i", data, "--stdio", "--no-children", "-F", "overhead,dso,symbol", "-t", "|").Output()
	if err != nil {
		return nil, fmt.Errorf("perf report: %w; perf record printed: %s", err, stderr.String())
	}
	symbols, err := parsePerf(string(out))
	if err != nil {
		return nil, err
	}
	return &profile{Bed: kind, Program: prog.Name, Test: t, Groups: group(symbols), Top: symbols[:min(topSymbols, len(symbols))]}, nil
}

// startRecording starts perf with its events disabled, asks it to enable them, and waits until it has: on a busy machine that
// takes longer than a short load. The pipes that it returns must stay open until perf ends, or perf fails.
func startRecording(record *exec.Cmd) (io.Closer, error) {
	in, control, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	ack, out, err := os.Pipe()
	if err != nil {
		control.Close()
		return nil, err
	}
	record.ExtraFiles = []*os.File{in, out} // 3 and 4
	err = record.Start()
	out.Close() // only perf has it now, so that reading ends when perf does
	if err != nil {
		return nil, errors.Join(err, control.Close(), ack.Close())
	}
	ack.SetReadDeadline(time.Now().Add(waitLimit))
	if _, err = io.WriteString(control, "enable\n"); err == nil {
		_, err = bufio.NewReader(ack).ReadString('\n')
	}
	if err != nil {
		record.Process.Kill()
		record.Wait()
		return nil, errors.Join(err, control.Close(), ack.Close())
	}
	return both{control, ack}, nil
}

// both closes two.
type both [2]io.Closer

// Close closes both.
func (b both) Close() error { return errors.Join(b[0].Close(), b[1].Close()) }

// parsePerf reads the output of perf report with | between the columns.
func parsePerf(text string) ([]share, error) {
	var all []share
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			continue
		}
		f := strings.SplitN(strings.TrimSpace(line), "|", 3)
		if len(f) != 3 {
			return nil, fmt.Errorf("perf report: unexpected line %q", line)
		}
		percent, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(f[0]), "%"), 64)
		if err != nil {
			return nil, fmt.Errorf("perf report: %w", err)
		}
		object, symbol := strings.TrimSpace(f[1]), strings.TrimSpace(f[2])
		kernel := strings.HasPrefix(symbol, "[k]")
		if _, name, ok := strings.Cut(symbol, "] "); ok {
			symbol = name
		}
		all = append(all, share{Percent: percent, Group: classify(symbol, kernel), Symbol: symbol, Object: object})
	}
	if len(all) == 0 {
		return nil, errors.New("perf report: no samples")
	}
	slices.SortStableFunc(all, func(a, b share) int { return cmp.Compare(b.Percent, a.Percent) })
	return all, nil
}

// The groups, as patterns of symbols' names; a symbol is in the first whose pattern matches. Other symbols of the kernel are
// in the group "kernel, other", and others of a program in "its own code".
var (
	kernelGroups = []struct {
		name    string
		pattern *regexp.Regexp
	}{
		{"copies", regexp.MustCompile(`copy|memcpy|memmove|memset|rep_movs|clear_page|iov_iter|csum_partial`)},
		{"kernel network", regexp.MustCompile(`^_*(tcp|udp|ip|ip6|ipv[46]|inet|skb|sk|sock|net|netif|napi|dev|tun|veth|gro|gso|gre|nf|fib|dst|neigh|arp|eth|xdp|qdisc|sch|dql|fq|pfifo|rt|flow|raw_(?:rcv|sendmsg|local_deliver)|ping|icmp|csum|do_csum|validate_xmit|process_backlog|kfree_skb|consume_skb|build_skb|alloc_skb|pskb|copy_skb|import_ubuf|sendmsg|recvmsg|sendmmsg|recvmmsg|page_pool|handle_softirqs|enqueue_to_backlog|qdisc_run|xmit|local_bh)(_|$)|_skb|skb_|msg$|softirq|csum|xmit|_gso|_gro|conntrack|nf_hook`)},
		{"scheduler", regexp.MustCompile(`sched|futex|switch|wake|enqueue_task|dequeue_|enqueue_entity|pick_|update_curr|update_load|epoll|^ep_|select_task|hrtimer|set_next_|entity|nanosleep`)},
	}
	userGroups = []struct {
		name    string
		pattern *regexp.Regexp
	}{
		{"crypto", regexp.MustCompile(`(?i)chacha|poly1305|/aead|blake2|curve25519|x25519|fiat|edwards|hkdf`)},
		{"copies", regexp.MustCompile(`memmove|memclr|memcpy|memset|checksum|\.Sum\b`)},
		{"scheduler", regexp.MustCompile(`^runtime\.(schedule|find[Rr]unnable|park|gopark|goready|ready|mcall|gosched|futex|notesleep|notewakeup|note|lock|unlock|stealWork|runq|casgstatus|chan|send|recv|select|block|sem|sync|netpoll|wakep|startm|stopm|mPark|execute|goexit|gogo|sel|entersyscall|exitsyscall|reentersyscall|osyield|procyield|usleep|pidle|checkTimers|(\(\*timers)|globrunq|resetspinning|injectglist|acquire|release|sudog|dequeue|(\(\*waitq)|(\(\*hchan)|(\(\*randomOrder))|^(internal/)?sync\.|^internal/runtime/atomic|^internal/poll\.(\(\*fdMutex|\(\*pollDesc|runtime)|^runtime/internal`)},
		{"memory", regexp.MustCompile(`^runtime\.(malloc|gc|scan|mark|sweep|heap|newobject|makeslice|growslice|grey|wb|bulkBarrier|deduct|nextFree|(\(\*(m?span|mheap|mcache|mcentral|gcWork|pageAlloc|gcBits|consistentHeap)))|^runtime\.\(\*(mspan|mheap|mcache|mcentral|gcWork)`)},
		{"Go and its library", regexp.MustCompile(`^(runtime|internal|os|io|net|syscall|time|bytes|errors|slices|sort|math|encoding|context|container|log|unicode|strconv|golang\.org/x)[./]|^(type:|go:)|aeshash|vdso`)},
	}
)

// classify returns the group of a symbol.
func classify(symbol string, kernel bool) string {
	groups, other := userGroups, "its own code"
	if kernel {
		groups, other = kernelGroups, "kernel, other"
	}
	for _, g := range groups {
		if g.pattern.MatchString(symbol) {
			return g.name
		}
	}
	return other
}

// group adds up the shares of each group.
func group(symbols []share) []share {
	sums := map[string]float64{}
	for _, s := range symbols {
		sums[s.Group] += s.Percent
	}
	var groups []share
	for name, percent := range sums {
		groups = append(groups, share{Percent: percent, Group: name})
	}
	slices.SortFunc(groups, func(a, b share) int {
		return cmp.Or(cmp.Compare(b.Percent, a.Percent), cmp.Compare(a.Group, b.Group))
	})
	return groups
}

// text returns the profile as Markdown.
func (p *profile) text() string {
	var b strings.Builder
	var sums []string
	for _, g := range p.Groups {
		sums = append(sums, fmt.Sprintf("%s %.1f%%", g.Group, g.Percent))
	}
	fmt.Fprintf(&b, "Profile of both daemons: %s, %s, bed %s\n\n%s\n\n", p.Program, p.Test, p.Bed, strings.Join(sums, ", "))
	rows := [][]string{{"group", "symbol", "%"}}
	for _, g := range p.Groups {
		for _, s := range p.Top {
			if s.Group == g.Group {
				rows = append(rows, []string{s.Group, strings.ReplaceAll(s.Symbol, "|", "¦"), strconv.FormatFloat(s.Percent, 'f', 1, 64)})
			}
		}
	}
	b.WriteString(align(rows))
	return b.String()
}
