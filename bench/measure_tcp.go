package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// measure does one test and returns its metrics.
func (b *bed) measure(ctx context.Context, t test, secs int) (values, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, t.duration(secs)+2*waitLimit, errors.New("it took too long"))
	defer cancel()
	var v values
	var err error
	if streams, ok := t.number("tcp"); ok {
		v, err = b.tcp(ctx, t, streams, secs)
	} else if t == testRTT {
		v, err = b.rtt(ctx, secs)
	} else if t == testLoad {
		v, err = b.load(ctx, secs)
	} else {
		v, err = b.udp(ctx, t, secs)
	}
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return v, err
}

// tcp measures streams from a to b, and then from b to a.
func (b *bed) tcp(ctx context.Context, t test, streams int, secs int) (values, error) {
	before, err := b.cpu()
	if err != nil {
		return nil, err
	}
	v := values{}
	var bytes, retransmits float64
	for _, direction := range []string{"forward", "reverse"} {
		var more []string
		if direction == "reverse" {
			more = []string{"-R"}
		}
		r, err := b.iperf(ctx, streams, secs, more...)
		if err != nil {
			return nil, err
		}
		v[string(t)+"."+direction] = r.End.Received.Bits / 1e9
		bytes += r.End.Received.Bytes
		retransmits += r.End.Sent.Retransmits
	}
	after, err := b.cpu()
	if err != nil {
		return nil, err
	}
	v[string(t)+".cpu"] = (after - before) / (bytes / 1e9)
	v[string(t)+".retransmits"] = retransmits
	return v, nil
}

// iperf does one transfer from a to b.
func (b *bed) iperf(ctx context.Context, streams int, secs int, more ...string) (*iperfResult, error) {
	server, err := b.iperfServer(ctx)
	if err != nil {
		return nil, err
	}
	defer server.end()
	out, err := b.iperfClient(ctx, streams, secs, more...).Output()
	r, perr := parseIperf(out)
	if perr != nil {
		err = perr // it says more than the exit status
	}
	return r, err
}

// iperfClient returns the command that sends from a to b.
func (b *bed) iperfClient(ctx context.Context, streams int, secs int, more ...string) *exec.Cmd {
	args := append([]string{"-c", b.b.inner, "-t", fmt.Sprint(secs), "-P", fmt.Sprint(streams), "-J"}, more...)
	return b.a.in(ctx, "iperf3", args...)
}

// A server is a command that runs in b and is ready.
type server struct {
	cmd    *exec.Cmd
	out    *bufio.Reader
	cancel context.CancelFunc
}

// serve starts a command in b and waits until it prints a line with the word. The caller calls end.
func (b *bed) serve(ctx context.Context, word, name string, args ...string) (*server, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &server{cmd: b.b.in(ctx, name, args...), cancel: cancel}
	pipe, err := s.cmd.StdoutPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	var stderr strings.Builder
	s.cmd.Stderr = &stderr
	if err := s.cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	s.out = bufio.NewReader(pipe)
	for {
		line, err := s.out.ReadString('\n')
		if strings.Contains(line, word) {
			return s, nil
		}
		if err != nil {
			s.end()
			return nil, fmt.Errorf("%s did not start to listen: %s", name, stderr.String())
		}
	}
}

// end ends the server if it hasn't ended by itself.
func (s *server) end() {
	stop := time.AfterFunc(time.Second, s.cancel)
	s.cmd.Wait() // its exit status doesn't matter: the measurement is complete
	stop.Stop()
	s.cancel()
}

// iperfServer starts an iperf3 server for one transfer in b.
func (b *bed) iperfServer(ctx context.Context) (*server, error) {
	return b.serve(ctx, "Server listening", "iperf3", "-s", "-1", "-i", "0", "--forceflush")
}

// iperfResult is the part of iperf3's JSON that is used.
type iperfResult struct {
	End struct {
		Sent struct {
			Retransmits float64 `json:"retransmits"`
		} `json:"sum_sent"`
		Received struct {
			Bytes float64 `json:"bytes"`
			Bits  float64 `json:"bits_per_second"`
		} `json:"sum_received"`
	} `json:"end"`
	Error string `json:"error"`
}

// parseIperf reads the output of iperf3 -J.
func parseIperf(text []byte) (*iperfResult, error) {
	var r iperfResult
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("iperf3's output is not JSON: %w", err)
	}
	if r.Error != "" {
		return nil, errors.New("iperf3: " + r.Error)
	}
	if r.End.Received.Bytes <= 0 {
		return nil, errors.New("iperf3: nothing was received")
	}
	return &r, nil
}
