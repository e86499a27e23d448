package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"throughline/cmd/throughline/internal/demo"
	"throughline/packet"
	"throughline/udp"
)

func small() *demoCall {
	return &demoCall{once: true, timeout: patience, plan: demo.Plan{Bytes: 2 << 20, Streams: 2, Pings: 5}, log: slog.New(slog.DiscardHandler)}
}

// patience bounds waits that only end by it when something is wrong.
const patience = 30 * time.Second

func TestDemoOnce(t *testing.T) {
	var out, bar bytes.Buffer
	if err := small().runOnce(t.Context(), &out, &bar); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"down, 1 stream", "up, 2 streams", "every byte intact", "median of 5", "1 handshake;", "user space", "route and seal"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	narrow(t, out.String())
	if !strings.Contains(bar.String(), "░") || !strings.HasSuffix(bar.String(), "\r\x1b[K") {
		t.Errorf("there was no progress bar, or it is still there: %q", bar.String())
	}
}

func TestDemoOnceJSON(t *testing.T) {
	c := small()
	c.json, c.host = true, udp.Host{Off: packet.GSO}
	var out bytes.Buffer
	if err := c.runOnce(t.Context(), &out, nil); err != nil {
		t.Fatal(err)
	}
	var r demo.Result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v in %s", err, &out)
	}
	if !r.Intact || len(r.Loads) != 4 || r.Loads[3].Streams != 2 || r.RTT.Sent != 5 {
		t.Errorf("%+v", r)
	}
	if r.Offloads[packet.GSO] == packet.OffloadOn {
		t.Error("an offload that was switched off is on")
	}
}

// TestDemoOnceFails checks that a demo that is ended early says so.
func TestDemoOnceFails(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	if err := small().runOnce(ctx, &out, nil); err == nil || out.Len() != 0 {
		t.Errorf("%v, and %q on stdout", err, &out)
	}
}

// TestDemoServes reads the page's URL, requests the page, and ends the demo.
func TestDemoServes(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	done := make(chan error, 1)
	c := small()
	c.listen, c.timeout = "127.0.0.1:0", 0
	go func() { done <- c.serve(ctx, w) }()
	line := make([]byte, 200)
	n, err := r.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(line[:n]), "http://")
	address, _, ok := strings.Cut(rest, "/")
	if !ok {
		t.Fatalf("no address in %q", line[:n])
	}
	if body := get(t, "http://"+address+"/", 200); !strings.Contains(body, "<title>Throughline") {
		t.Errorf("no page: %.100q", body)
	}
	var last bytes.Buffer
	read := make(chan error, 1)
	go func() {
		_, err := io.Copy(&last, r)
		read <- err
	}()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	w.Close()
	if err := <-read; err != nil || !strings.HasSuffix(last.String(), "The demo has ended, and nothing of it is left.\n") {
		t.Errorf("%v, and at the end it printed %q", err, &last)
	}
}

// narrow checks that a text fits a terminal of 80 columns.
func narrow(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); utf8.RuneCountInString(line) > 79 || strings.HasSuffix(line, " ") {
			t.Errorf("too long, or with space at its end: %q", line)
		}
	}
}

// get sends an HTTP request and returns the body of the response, whose status must be that.
func get(t *testing.T, url string, status int) string {
	t.Helper()
	c := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		t.Fatalf("%s: %s, %v: %s", url, resp.Status, err, body)
	}
	return string(body)
}

func TestDemoReport(t *testing.T) {
	s := &demo.Snapshot{Uptime: 9.4, Interval: 0.5, Down: []float64{9e12, 1e9, 1e9, 1e9, 1e9, 1e9, 1e9}, Handshakes: 2}
	s.RTT.Last = 1234
	s.Far.Drops = map[packet.Drop]uint64{packet.DropReplay: 3}
	s.Near.Drops = map[packet.Drop]uint64{packet.DropReplay: 1}
	got := report(s)
	for _, want := range []string{"9 s", "down 1.00 Gbit/s", "up     0 bit/s", "1.23 ms", "handshakes 2", "drops 4"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
}

func TestDemoWrongCalls(t *testing.T) {
	for want, args := range map[string][]string{
		"no argument \"wg0\"": {"demo", "wg0"},
		"-nonsense":           {"demo", "--nonsense"},
		"invalid value":       {"demo", "--seconds", "-1"},
		"missing port":        {"demo", "--listen", "nowhere"},
		"--listen ADDRESS":    {"demo", "--listen", "nowhere"},
	} {
		var out bytes.Buffer
		err := run(args, &out)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(oneLine(err), "\n") || out.Len() != 0 {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
	for _, help := range []string{"--help", "-h", "help"} {
		var out bytes.Buffer
		if err := run([]string{"demo", help}, &out); err != nil || !strings.Contains(out.String(), "--once") {
			t.Errorf("%v: %s", err, &out)
		}
		narrow(t, out.String())
	}
}

// TestDemoPortTaken has another listener use the page's port.
func TestDemoPortTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var out bytes.Buffer
	err = run([]string{"demo", "--listen", ln.Addr().String()}, &out)
	if err == nil || !errors.Is(err, syscall.EADDRINUSE) || strings.Count(err.Error(), ln.Addr().String()) != 1 || !strings.HasSuffix(err.Error(), listenHint) || out.Len() != 0 {
		t.Errorf("%v; on stdout %q", err, &out)
	}
}

func TestPageURL(t *testing.T) {
	for at, want := range map[string]string{
		"127.0.0.1:8080": "http://127.0.0.1:8080/", "[::1]:80": "http://[::1]:80/",
		"[::]:8080": "http://127.0.0.1:8080/ open", "0.0.0.0:1": "http://127.0.0.1:1/ open", "192.0.2.1:1": "http://192.0.2.1:1/ open",
	} {
		got, open := pageURL(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(at)))
		if open {
			got += " open"
		}
		if got != want {
			t.Errorf("%s: %s, want %s", at, got, want)
		}
	}
}

// TestDemoDryRun checks that --dry-run prints what would be made.
func TestDemoDryRun(t *testing.T) {
	for want, args := range map[string][]string{
		"user space":                      nil,
		"127.0.0.1, on a free port":       nil,
		"at 127.0.0.1:8080\n":             {"--listen", "127.0.0.1:8080"},
		"TUN interface near with 10.128.": {"--tun"},
		"two network namespaces":          {"--tun", "--once"},
	} {
		var out bytes.Buffer
		err := run(append([]string{"demo", "--dry-run"}, args...), &out)
		if err != nil || !strings.Contains(out.String(), want) || strings.Contains(out.String(), "listening") != !slices.Contains(args, "--once") {
			t.Errorf("%q: %v, want %q in %s", args, err, want, &out)
		}
		narrow(t, out.String())
	}
}

// TestDemoReportsFitATerminal checks that with the largest figures.
func TestDemoReportsFitATerminal(t *testing.T) {
	s := &demo.Snapshot{Uptime: 9999, Interval: 0.5, Down: []float64{99.94e9}, Up: []float64{199e9}, Handshakes: 99}
	s.RTT.Last = 99.99e3
	s.Near.Drops = map[packet.Drop]uint64{packet.DropReplay: 99}
	narrow(t, report(s))
	var out bytes.Buffer
	if err := printWelcome(&out, "http://127.0.0.1:65535/", true, s); err != nil || !strings.Contains(out.String(), "Anyone who") {
		t.Error(err, &out)
	}
	narrow(t, out.String())
}
