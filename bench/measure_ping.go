package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"time"
)

// rttCount returns how many pings, a millisecond apart, are sent when transfers take secs.
func rttCount(secs int) int { return min(1500, 400*secs) }

// rtt measures pings while nothing else uses the tunnel.
func (b *bed) rtt(ctx context.Context, secs int) (values, error) {
	return b.ping(ctx, testRTT, rttCount(secs), "0.001")
}

// load measures pings while a TCP stream has the same direction: from its first quarter on, for half of its time.
func (b *bed) load(ctx context.Context, secs int) (values, error) {
	server, err := b.iperfServer(ctx)
	if err != nil {
		return nil, err
	}
	defer server.end()
	client := b.iperfClient(ctx, 1, secs)
	if err := client.Start(); err != nil {
		return nil, err
	}
	select {
	case <-time.After(min(time.Second, time.Duration(secs)*time.Second/4)):
	case <-ctx.Done():
	}
	v, err := b.ping(ctx, testLoad, min(200, 50*secs), "0.01")
	return v, errors.Join(err, client.Wait())
}

// ping sends pings and waits for all replies. The output goes to a file, so that no process wakes up for each line.
func (b *bed) ping(ctx context.Context, t test, count int, interval string) (values, error) {
	f, err := os.CreateTemp("", "bench-ping-")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return nil, err
	}
	cmd := b.a.in(ctx, "ping", "-n", "-c", strconv.Itoa(count), "-i", interval, "-W", "2", b.b.inner)
	cmd.Stdout = f
	failed := cmd.Run()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	times, sent, err := parsePing(string(text))
	if err != nil {
		return nil, errors.Join(err, failed)
	}
	return values{
		string(t) + ".mean": mean(times),
		string(t) + ".p99":  percentile(times, 0.99),
		string(t) + ".lost": 100 * float64(sent-len(times)) / float64(sent),
	}, nil
}

var (
	pingReply   = regexp.MustCompile(`(?m)^\d+ bytes from .* time=([0-9.]+) ms$`)
	pingSummary = regexp.MustCompile(`(?m)^(\d+) packets transmitted, \d+ (?:packets )?received`)
)

// parsePing returns the round-trip times in milliseconds, and how many pings were sent, from the output of ping(8). A
// duplicate of a reply, which has (DUP!) after its time, isn't counted.
func parsePing(text string) (times []float64, sent int, err error) {
	for _, m := range pingReply.FindAllStringSubmatch(text, -1) {
		ms, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return nil, 0, fmt.Errorf("ping: %w", err)
		}
		times = append(times, ms)
	}
	m := pingSummary.FindStringSubmatch(text)
	if m == nil {
		return nil, 0, errors.New("ping: no summary in its output")
	}
	if sent, err = strconv.Atoi(m[1]); err != nil {
		return nil, 0, fmt.Errorf("ping: %w", err)
	}
	if len(times) == 0 || len(times) > sent {
		return nil, 0, fmt.Errorf("ping: %d replies to %d pings", len(times), sent)
	}
	return times, sent, nil
}
