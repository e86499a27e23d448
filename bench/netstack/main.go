// Command netstack compares throughline/netstack with wireguard-go's tun/netstack at the same job: TCP streams from one
// stack to another, through two whole devices with real encryption over UDP on the loopback interface.
//
// Each measurement is a process of its own that has both ends, so that its peak memory can be measured. The two are
// measured in turn, because the machine's speed changes with its other users. The command prints a line for each
// measurement and then, for each number of streams, the medians and their ratio.
//
//	go run . [-rounds 5] [-seconds 3] [-streams 1,100]
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A pair is two stacks that are joined by a tunnel. The first dials, the second listens.
type pair struct {
	dial   func(address string) (net.Conn, error)
	listen func(port int) (net.Listener, error)
	close  func()
}

var makers = map[string]func() (*pair, error){
	"throughline": throughlinePair,
	"wireguard":   wireguardPair,
}

// A result is the figures of one measurement.
type result struct {
	Mbits float64 // Mbit/s of payload received
	RSS   int64   // peak memory in KiB
	CPU   float64 // seconds of processor time for each GB
}

const (
	mtu      = 1420
	port     = 80
	dialed   = "10.9.0.2"
	dialFrom = "10.9.0.1"
)

func main() {
	rounds := flag.Int("rounds", 5, "how many `times` each is measured")
	seconds := flag.Float64("seconds", 3, "`seconds` of a measurement, after a second of warming up")
	streams := flag.String("streams", "1,100", "`numbers` of TCP streams")
	one := flag.String("run", "", "measure only this one, in this process: throughline or wireguard")
	flag.Parse()
	length := time.Duration(*seconds * float64(time.Second))
	if *one != "" {
		n, err := strconv.Atoi(*streams)
		var r result
		if err == nil {
			r, err = run(makers[*one], n, length)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "netstack:", err)
			os.Exit(1)
		}
		json.NewEncoder(os.Stdout).Encode(r)
		return
	}
	if err := compare(*rounds, *seconds, strings.Split(*streams, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "netstack:", err)
		os.Exit(1)
	}
}

// compare measures both, in processes of their own, and prints the results.
func compare(rounds int, seconds float64, jobs []string) error {
	names := []string{"throughline", "wireguard"}
	for _, job := range jobs {
		got := map[string][]result{}
		for round := range rounds {
			for i := range names {
				name := names[(i+round)%len(names)]
				cmd := exec.Command(os.Args[0], "-run", name, "-streams", job, "-seconds", fmt.Sprint(seconds))
				cmd.Stderr = os.Stderr
				out, err := cmd.Output()
				if err != nil {
					return fmt.Errorf("%s, %s streams: %w", name, job, err)
				}
				var r result
				if err := json.Unmarshal(out, &r); err != nil {
					return err
				}
				got[name] = append(got[name], r)
				fmt.Printf("%-12s %4s streams  %7.0f Mbit/s  %6.1f MiB  %5.2f CPU s/GB\n", name, job, r.Mbits, float64(r.RSS)/1024, r.CPU)
			}
		}
		ours, theirs := median(got[names[0]]), median(got[names[1]])
		fmt.Printf("== %s streams: speed %.2f times (%.0f to %.0f Mbit/s), memory %.2f times (%.0f to %.0f MiB), CPU per byte %.2f times\n",
			job, ours.Mbits/theirs.Mbits, ours.Mbits, theirs.Mbits, float64(ours.RSS)/float64(theirs.RSS),
			float64(ours.RSS)/1024, float64(theirs.RSS)/1024, ours.CPU/theirs.CPU)
	}
	return nil
}

// median returns the median of each figure.
func median(rs []result) result {
	mid := func(f func(result) float64) float64 {
		var xs []float64
		for _, r := range rs {
			xs = append(xs, f(r))
		}
		slices.Sort(xs)
		return (xs[(len(xs)-1)/2] + xs[len(xs)/2]) / 2
	}
	return result{
		Mbits: mid(func(r result) float64 { return r.Mbits }),
		RSS:   int64(mid(func(r result) float64 { return float64(r.RSS) })),
		CPU:   mid(func(r result) float64 { return r.CPU }),
	}
}

// run measures one pair: n streams, all sending as fast as they can, for a second of warming up and then for length.
func run(make func() (*pair, error), n int, length time.Duration) (r result, err error) {
	p, err := make()
	if err != nil {
		return r, err
	}
	l, err := p.listen(port)
	if err != nil {
		return r, err
	}
	var received atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { drain(c, &received) })
		}
	})
	conns, err := dialAll(p, n)
	if err != nil {
		return r, err
	}
	for _, c := range conns {
		wg.Go(func() { fill(c) })
	}
	time.Sleep(time.Second)
	cpu, bytes, begin := usage(), received.Load(), time.Now()
	time.Sleep(length)
	took := time.Since(begin).Seconds()
	bytes = received.Load() - bytes
	cpu = usage() - cpu
	r.Mbits = float64(bytes) * 8 / took / 1e6
	r.CPU = cpu / (float64(bytes) / 1e9)
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return r, err
	}
	r.RSS = ru.Maxrss
	if bytes == 0 {
		return r, fmt.Errorf("nothing was received")
	}
	return r, nil // the end of the process closes everything: how the stacks close isn't measured
}

// dialAll opens n connections at the same time.
func dialAll(p *pair, n int) ([]net.Conn, error) {
	conns := make([]net.Conn, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { conns[i], errs[i] = p.dial(fmt.Sprintf("%s:%d", dialed, port)) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return conns, nil
}

// block is how many bytes are read and written at once: a multiple of io.Copy's buffer, so that it slows neither stack.
const block = 64 << 10

// fill writes to c until that fails.
func fill(c net.Conn) {
	b := make([]byte, block)
	for {
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// drain reads from c until that fails, and counts the bytes.
func drain(c io.Reader, received *atomic.Int64) {
	b := make([]byte, block)
	for {
		n, err := c.Read(b)
		received.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// usage returns the seconds of processor time that this process has used.
func usage() float64 {
	var ru syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &ru) != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano()).Seconds()
}
