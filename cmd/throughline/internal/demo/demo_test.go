package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"
)

// patience bounds waits that only end by it when something is wrong.
const patience = 30 * time.Second

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// start makes a demo. When the test ends it is closed, and no goroutine may be left.
func start(t testing.TB) *Demo { return startWith(t, Options{Version: "test"}) }

func startWith(t testing.TB, o Options) *Demo {
	t.Helper()
	before := runtime.NumGoroutine()
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
		for end := time.Now().Add(patience); runtime.NumGoroutine() > before; runtime.Gosched() {
			if time.Now().After(end) {
				b := make([]byte, 1<<20)
				t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, b[:runtime.Stack(b, true)])
			}
		}
	})
	return d
}

// serve serves the page until the test ends, and returns its address.
func serve(t testing.TB, d *Demo) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return "http://" + ln.Addr().String()
}

func ask(t testing.TB, method, url string) (int, []byte, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body, resp.Header
}

func snapshot(t testing.TB, url string) (s Snapshot) {
	t.Helper()
	code, body, h := ask(t, "GET", url+"/status.json")
	if code != 200 || h.Get("Content-Type") != "application/json" {
		t.Fatalf("status %d, %s", code, h.Get("Content-Type"))
	}
	if err := json.Unmarshal(body, &s); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return s
}

// TestPageThroughTheTunnel requests the page as a browser does, and checks by the counters that it came through the tunnel.
func TestPageThroughTheTunnel(t *testing.T) {
	d := start(t)
	url := serve(t, d)
	code, body, h := ask(t, "GET", url+"/")
	if code != 200 || !bytes.Equal(body, page) || !strings.HasPrefix(h.Get("Content-Type"), "text/html") {
		t.Errorf("status %d, %d bytes of %s; the page has %d", code, len(body), h.Get("Content-Type"), len(page))
	}
	s := snapshot(t, url)
	for end := time.Now().Add(patience); s.Far.TxBytes < uint64(len(page)) && time.Now().Before(end); { // it is counted after it is sent
		s = snapshot(t, url)
	}
	if s.Near.RxBytes < uint64(len(page)) || s.Far.TxBytes < uint64(len(page)) {
		t.Errorf("the page has %d bytes; %d and %d went through the tunnel", len(page), s.Near.RxBytes, s.Far.TxBytes)
	}
	if s.Handshakes != 1 || s.SinceHandshake < 0 || s.Near.PublicKey == s.Far.PublicKey || s.Near.Port == s.Far.Port {
		t.Errorf("not two peers with a session: %+v", s)
	}
	if s.WalkAll.Down[stepDeliver].Packets == 0 || s.WalkAll.Up[stepSeal].Nanos == 0 {
		t.Errorf("no step was timed: %+v", s.WalkAll)
	}
	if code, _, _ := ask(t, "GET", url+"/nothing"); code != 404 {
		t.Errorf("a page that doesn't exist: status %d", code)
	}
}

// TestPageNeedsNothingElse checks that the page loads nothing but what the demo serves.
func TestPageNeedsNothingElse(t *testing.T) {
	for _, foreign := range []string{"http:", "https:", "src=", "@import", "url("} {
		text := strings.ReplaceAll(string(page), "http://www.w3.org/2000/svg", "")
		if strings.Contains(text, foreign) {
			t.Errorf("the page has %q in it", foreign)
		}
	}
	for _, field := range []string{"walk", "walk_all", "near", "far", "rtt", "handshakes", "load", "tun"} {
		if !strings.Contains(string(page), "s."+field) {
			t.Errorf("the page shows no %s", field)
		}
	}
}

// TestLoadFromThePage starts a load as a button does, and waits for its end.
func TestLoadFromThePage(t *testing.T) {
	d := start(t)
	url := serve(t, d)
	for _, bad := range []string{"", "direction=sideways&streams=1&mib=1", "direction=up&streams=0&mib=1", "direction=up&streams=65&mib=1", "direction=up&streams=1&mib=0"} {
		if code, _, _ := ask(t, "POST", url+"/load?"+bad); code != 400 {
			t.Errorf("%q: status %d", bad, code)
		}
	}
	if code, _, _ := ask(t, "GET", url+"/load?direction=up&streams=1&mib=1"); code != 405 {
		t.Errorf("a GET begins a load: status %d", code)
	}
	for _, way := range []string{"up", "down"} {
		if code, body, _ := ask(t, "POST", url+"/load?direction="+way+"&streams=2&mib=3"); code != 202 {
			t.Fatalf("%s: status %d: %s", way, code, body)
		}
		s := snapshot(t, url)
		for end := time.Now().Add(patience); s.Load.Running && time.Now().Before(end); {
			s = snapshot(t, url)
		}
		if l := s.Load; l.Running || l.Error != "" || l.Moved != 3<<20 || l.Up != (way == "up") || l.BitsPerSecond <= 0 {
			t.Errorf("%s: %+v", way, l)
		}
	}
}

// TestOneLoadAtATime checks that a second load is refused while one runs, and any load after Close.
func TestOneLoadAtATime(t *testing.T) {
	d := start(t)
	if err := d.begin(Load{Streams: 1, Bytes: maxStream}); err != nil {
		t.Fatal(err)
	}
	if err := d.begin(Load{Streams: 1, Bytes: 1}); err != errBusy {
		t.Errorf("a second load: %v", err)
	}
	d.Close() // ends the load
	if err := d.begin(Load{Streams: 1, Bytes: 1}); err != errBusy {
		t.Errorf("a load after Close: %v", err)
	}
}

// TestForeignSites checks that other sites' scripts can neither begin loads nor read.
func TestForeignSites(t *testing.T) {
	d := start(t)
	for _, c := range []struct {
		method, target, host, origin string
		status                       int
	}{
		{"GET", "/", "127.0.0.1:80", "", 200},
		{"GET", "/", "[::1]:80", "", 200},
		{"GET", "/", "localhost:80", "", 200},
		{"GET", "/", "127.0.0.1", "", 200},
		{"GET", "/", "rebound.example:80", "", 421},
		{"GET", "/status.json", "rebound.example", "", 421},
		{"POST", "/load?direction=up&streams=1&mib=1", "127.0.0.1:80", "http://elsewhere.example", 403},
		{"POST", "/load", "127.0.0.1:80", "http://127.0.0.1:80", 400},
	} {
		r := httptest.NewRequest(c.method, c.target, nil)
		r.Host = c.host
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		w := httptest.NewRecorder()
		d.handler().ServeHTTP(w, r)
		if w.Code != c.status {
			t.Errorf("%s %s of %s from %q: status %d, want %d", c.method, c.target, c.host, c.origin, w.Code, c.status)
		}
	}
}

func TestOnce(t *testing.T) {
	d := start(t)
	reports := map[string]bool{}
	r, err := d.Once(within(t), Plan{Bytes: 4<<20 + 5, Streams: 3, Pings: 5}, func(what string, done, total int64) { reports[what] = done <= total })
	if err != nil {
		t.Fatal(err)
	}
	if !r.Intact || len(r.Loads) != 4 || r.RTT.Sent != 5 || r.RTT.Median <= 0 || r.Handshakes != 1 || r.FirstPing <= 0 {
		t.Errorf("%+v", r)
	}
	if want := uint64(4 * (4<<20 + 5)); r.Datagrams < want {
		t.Errorf("%d bytes of datagrams for %d of content", r.Datagrams, want)
	}
	for _, what := range []string{"down, 1 stream", "up, 1 stream", "down, 3 streams", "up, 3 streams", "5 pings"} {
		if !reports[what] {
			t.Errorf("the progress of %q was reported as %v", what, reports)
		}
	}
	for i, s := range r.Walk.Up {
		if s.Name != stepNames[i] || i != stepRead && i != stepReceive && s.Packets == 0 {
			t.Errorf("step %d: %+v", i, s)
		}
	}
}

// An hourglass is a context whose deadline passes when the test says so.
type hourglass struct{ context.Context }

func (h hourglass) Err() error {
	if h.Context.Err() != nil {
		return context.DeadlineExceeded
	}
	return nil
}

// TestOnceEndsInTime lets the deadline pass in the middle of a load.
func TestOnceEndsInTime(t *testing.T) {
	d := start(t)
	ctx, over := context.WithCancel(within(t))
	_, err := d.Once(hourglass{ctx}, Plan{Bytes: maxStream, Streams: 2}, func(_ string, done, _ int64) {
		if done > 1<<20 {
			over()
		}
	})
	if !errors.Is(err, ErrTime) || err.Error() != "down, 2 streams: "+ErrTime.Error() && err.Error() != "down, 1 stream: "+ErrTime.Error() {
		t.Errorf("%v", err)
	}
	if _, err := d.Once(ctx, Plan{Bytes: 1, Streams: 1}, nil); err == nil || err.Error() != "first round trip: ended before everything was carried" {
		t.Errorf("%v", err)
	}
}

// TestRunReportsTheFirstCause lets the far peer answer with what isn't a stream.
func TestRunReportsTheFirstCause(t *testing.T) {
	d := start(t)
	for _, l := range []Load{{Streams: 0, Bytes: 1}, {Streams: MaxStreams + 1}, {Streams: 1, Bytes: -1}} {
		if _, err := d.Run(within(t), l, nil); err == nil {
			t.Errorf("the load %+v is accepted", l)
		}
	}
	d.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		w.Write(make([]byte, 1000))
	})
	// Which byte is reported depends on the content, which is random and may begin with a zero.
	if _, err := d.Run(within(t), Load{Streams: 2, Bytes: 2000}, nil); err == nil || !strings.Contains(err.Error(), ": byte ") || !strings.Contains(err.Error(), " isn't what was sent") {
		t.Errorf("zeros instead of the content: %v", err)
	}
	if _, err := d.Run(within(t), Load{Up: true, Streams: 1, Bytes: 2000}, nil); err == nil || !strings.Contains(err.Error(), "200 OK") {
		t.Errorf("a wrong answer: %v", err)
	}
}

func TestSumUp(t *testing.T) {
	if r := sumUp(nil); r != (RTT{}) {
		t.Errorf("of nothing: %+v", r)
	}
	if r := sumUp([]time.Duration{-1, -1}); r != (RTT{Sent: 2, Lost: 2}) {
		t.Errorf("of lost ones: %+v", r)
	}
	var ds []time.Duration
	for i := range 200 {
		ds = append(ds, time.Duration(200-i)*time.Microsecond)
	}
	if r := sumUp(append(ds, -1)); r != (RTT{Sent: 201, Lost: 1, Last: 1, Min: 1, Median: 100, P99: 198, Max: 200}) {
		t.Errorf("%+v", r)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	d := start(t)
	for range samples + 50 {
		d.sample()
	}
	if n := len(d.history.samples); n != samples+1 {
		t.Errorf("%d samples", n)
	}
	s := d.Snapshot()
	if len(s.Down) != samples || len(s.Up) != samples {
		t.Errorf("%d and %d points", len(s.Down), len(s.Up))
	}
	if keepLast([]int{1, 2, 3}, 2)[0] != 2 {
		t.Error("keepLast keeps the first elements")
	}
}
