package uapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"throughline/uapi/text"
	"throughline/wgtypes"
)

// A pipes is a listener whose connections are pipes in memory.
type pipes struct {
	conns  chan net.Conn
	errs   chan error
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), errs: make(chan error), closed: make(chan struct{})}
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case err := <-l.errs:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipes) Addr() net.Addr { return &net.UnixAddr{} }

// dial returns the other end of a new connection.
func (l *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	l.conns <- theirs
	return ours
}

// served runs f with a server of dev in simulated time, and checks that Serve then returns nil.
func served(t *testing.T, dev Device, log *slog.Logger, f func(t *testing.T, l *pipes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- Serve(ctx, l, dev, log) }()
		f(t, l)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// ask writes a request and returns the answer.
func ask(t *testing.T, c net.Conn, request string) string {
	t.Helper()
	go io.WriteString(c, request)
	return readAnswer(t, c)
}

// readAnswer returns the next answer.
func readAnswer(t *testing.T, c net.Conn) string {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Second))
	defer c.SetReadDeadline(time.Time{})
	var answer []byte
	for b := make([]byte, 1); !bytes.HasSuffix(answer, []byte("\n\n")); {
		if _, err := c.Read(b); err != nil {
			t.Fatalf("after %q: %v", answer, err)
		}
		answer = append(answer, b...)
	}
	return string(answer)
}

func TestConversation(t *testing.T) {
	for _, tc := range []struct{ request, want string }{
		{"get=1\n\n", "errno=0\n\n"},
		{"\n\nget=1\n\n", "errno=0\n\n"},
		{"set=1\n\n", "errno=0\n\n"},
		{"set=1\nlisten_port=7\n\n", "errno=0\n\n"},
		{"set=1\nlisten_port=x\n\n", "errno=-22\n\n"},
		{"set=1\nlisten_port=x\nget=1\nx\n\n", "errno=-22\n\n"},
		{"set=1\nx\n\n", "errno=-71\n\n"},
		{"set=1\n" + strings.Repeat("x", 3*readSize) + "\n\n", "errno=-71\n\n"},
		{"set=2\nlisten_port=7\n\n", "errno=71\n\n"},
		{"get=1\nlisten_port=7\n\n", "errno=71\n\n"},
		{"get=1\n" + strings.Repeat("x", 3*readSize) + "\n\n", "errno=71\n\n"},
		{"get=2\n\n", "errno=71\n\n"},
		{"get=1 \n\n", "errno=71\n\n"},
		{"hello\n\n", "errno=71\n\n"},
		{strings.Repeat("x", 3*readSize) + "\n\n", "errno=71\n\n"},
	} {
		var log bytes.Buffer
		dev := &model{}
		served(t, dev, slog.New(slog.NewTextHandler(&log, nil)), func(t *testing.T, l *pipes) {
			c := l.dial()
			defer c.Close()
			if got := ask(t, c, tc.request); got != tc.want {
				t.Errorf("%.50q: answered %q, want %q", tc.request, got, tc.want)
			}
			if got := ask(t, c, "set=1\nfwmark=9\n\nget=1\n\n"); got != "errno=0\n\n" {
				t.Errorf("%.50q, then a good request: answered %q", tc.request, got)
			}
			if got := readAnswer(t, c); !strings.HasSuffix(got, "fwmark=9\nerrno=0\n\n") {
				t.Errorf("%.50q, then get: answered %q", tc.request, got)
			}
		})
		lines := strings.Count(log.String(), "\n")
		if want := strings.Contains(tc.want, "errno=0"); want != (lines == 0) || lines > 1 {
			t.Errorf("%.50q: logged %d lines: %s", tc.request, lines, log.String())
		}
		if want := strings.HasPrefix(tc.want, "errno=0") && strings.Contains(tc.request, "set=1"); want != (len(dev.configs) == 2) {
			t.Errorf("%.50q: applied %+v", tc.request, dev.configs)
		}
	}
}

func TestSetErrors(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("udp: listen: %w", &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}), fmt.Sprintf("errno=-%d\n\n", int(syscall.EADDRINUSE))},
		{os.NewSyscallError("setsockopt", syscall.EPERM), "errno=-1\n\n"},
		{errors.New("no"), "errno=-22\n\n"},
		{syscall.Errno(0), "errno=-22\n\n"},
	} {
		var log bytes.Buffer
		served(t, &model{refuse: tc.err}, slog.New(slog.NewTextHandler(&log, nil)), func(t *testing.T, l *pipes) {
			c := l.dial()
			defer c.Close()
			if got := ask(t, c, "set=1\nprivate_key="+hexOf(0x5e)+"\n\n"); got != tc.want {
				t.Errorf("%v: answered %q, want %q", tc.err, got, tc.want)
			}
		})
		if strings.Count(log.String(), "\n") != 1 || strings.Contains(log.String(), "5e5e") {
			t.Errorf("%v: logged %q", tc.err, log.String())
		}
	}
}

// A keeper is a device that keeps what it should not.
type keeper struct {
	model
	kept wgtypes.Config
}

func (k *keeper) Configure(cfg wgtypes.Config) error { k.kept = cfg; return nil }

func TestServeWipesKeys(t *testing.T) {
	dev := &keeper{}
	served(t, dev, nil, func(t *testing.T, l *pipes) {
		c := l.dial()
		defer c.Close()
		ask(t, c, "set=1\nprivate_key="+hexOf(1)+"\npublic_key="+hexOf(2)+"\npreshared_key="+hexOf(3)+"\n\n")
	})
	if !dev.kept.PrivateKey.IsZero() || !dev.kept.Peers[0].PresharedKey.IsZero() {
		t.Error("the keys of the request are still in memory")
	}
}

// TestRequestWithoutEnd sends only part of a request: it is answered, and nothing of it is applied.
func TestRequestWithoutEnd(t *testing.T) {
	for request, want := range map[string]string{
		"":                     "",
		"\n":                   "",
		"get=1":                "errno=71\n\n",
		"get=1\n":              "errno=71\n\n",
		"get=1\nx":             "errno=71\n\n",
		"set=1":                "errno=71\n\n",
		"set=1\n":              "errno=-71\n\n",
		"set=1\nlisten_port=7": "errno=-71\n\n",
		"set=1\nlisten_port=7\npublic_key=" + hexOf(1) + "\n": "errno=-71\n\n",
		"set=1\nlisten_port=70000\n":                          "errno=-22\n\n",
		"x":                                                   "errno=71\n\n",
	} {
		dev := &model{}
		if got := converse(t, dev, []byte(request)); got != want {
			t.Errorf("%q: answered %q, want %q", request, got, want)
		}
		if len(dev.configs) > 0 {
			t.Errorf("%q: applied %+v", request, dev.configs)
		}
	}
}

// A script is a connection whose other side has sent everything, and receives everything.
type script struct {
	net.Conn
	in  bytes.Reader
	out bytes.Buffer
}

func (s *script) Read(p []byte) (int, error)       { return s.in.Read(p) }
func (s *script) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) Close() error                     { return nil }

// converse has the whole conversation and returns the answers.
func converse(t testing.TB, dev Device, sent []byte) string {
	t.Helper()
	var conn script
	conn.in.Reset(sent)
	s := &server{dev: dev, log: slog.New(slog.DiscardHandler), conns: map[*connection]time.Time{}}
	s.add(&conn)
	s.wg.Wait()
	if len(s.conns) > 0 {
		t.Error("a connection that ended is still counted")
	}
	return conn.out.String()
}

func TestSilenceEnds(t *testing.T) {
	for sent, want := range map[string]string{
		"":                          "",
		"get=1\n\n":                 "errno=0\n\n",
		"get=1\n":                   "errno=71\n\n",
		"set=1\nlisten_port=7\n":    "errno=-5\n\n",
		"set=1\nlisten_port=7\nfwm": "errno=-5\n\n",
	} {
		dev := &model{}
		served(t, dev, nil, func(t *testing.T, l *pipes) {
			c := l.dial()
			defer c.Close()
			begin := time.Now()
			go io.WriteString(c, sent)
			all, err := io.ReadAll(c)
			if string(all) != want || err != nil {
				t.Errorf("%q: answered %q, %v, want %q", sent, all, err, want)
			}
			if waited := time.Since(begin); waited != ioTimeout {
				t.Errorf("%q: the server waited %v, want %v", sent, waited, ioTimeout)
			}
		})
		if len(dev.configs) > 0 {
			t.Errorf("%q: applied", sent)
		}
	}
}

// TestClientThatDoesNotRead sends a request and doesn't read the answer.
func TestClientThatDoesNotRead(t *testing.T) {
	served(t, &model{}, nil, func(t *testing.T, l *pipes) {
		c := l.dial()
		defer c.Close()
		io.WriteString(c, "get=1\n\n")
		time.Sleep(ioTimeout + time.Second) // simulated
		if _, err := c.Write([]byte("get=1\n\n")); err == nil {
			t.Error("the connection is still there")
		}
	})
}

// TestSlowRequest sends a request in pieces, each within the server's ioTimeout.
func TestSlowRequest(t *testing.T) {
	served(t, &model{}, nil, func(t *testing.T, l *pipes) {
		c := l.dial()
		defer c.Close()
		for _, b := range []byte("set=1\nlisten_port=7\n") {
			c.Write([]byte{b})
			time.Sleep(ioTimeout - time.Second) // simulated
		}
		if got := ask(t, c, "\n"); got != "errno=0\n\n" {
			t.Errorf("answered %q", got)
		}
	})
}

func TestTooManyConnections(t *testing.T) {
	served(t, &model{}, nil, func(t *testing.T, l *pipes) {
		conns := make([]net.Conn, maxConns)
		for i := range conns {
			conns[i] = l.dial()
			defer conns[i].Close()
			synctest.Wait()
			time.Sleep(time.Millisecond) // simulated: they differ in age
		}
		ask(t, conns[0], "get=1\n\n") // no longer the one that is idle longest
		synctest.Wait()

		extra := l.dial()
		defer extra.Close()
		if got := ask(t, extra, "get=1\n\n"); got != "errno=0\n\n" {
			t.Errorf("a new connection was answered %q", got)
		}
		if _, err := conns[1].Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the connection that was idle longest is still there: %v", err)
		}
		for _, i := range []int{0, 2, maxConns - 1} {
			if got := ask(t, conns[i], "get=1\n\n"); got != "errno=0\n\n" {
				t.Errorf("connection %d: answered %q", i, got)
			}
		}
	})
}

func TestTooManyBusyConnections(t *testing.T) {
	served(t, &model{}, nil, func(t *testing.T, l *pipes) {
		conns := make([]net.Conn, maxConns)
		for i := range conns {
			conns[i] = l.dial()
			defer conns[i].Close()
			io.WriteString(conns[i], "set=1\n")
		}
		synctest.Wait()
		extra := l.dial()
		if _, err := extra.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("one connection too many: %v", err)
		}
		for i, c := range conns {
			if got := ask(t, c, "\n"); got != "errno=0\n\n" {
				t.Errorf("connection %d: answered %q", i, got)
			}
		}
	})
}

// A slow is a device whose Configure takes time.
type slow struct {
	model
	begun, go_ chan struct{}
}

func (d *slow) Configure(cfg wgtypes.Config) error {
	close(d.begun)
	<-d.go_
	return d.model.Configure(cfg)
}

func TestServeWaitsForConfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev := &slow{begun: make(chan struct{}), go_: make(chan struct{})}
		l := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		returned := false
		done := make(chan error, 1)
		go func() { done <- Serve(ctx, l, dev, nil); returned = true }()
		busy, idle := l.dial(), l.dial()
		io.WriteString(busy, "set=1\nlisten_port=7\n\n")
		<-dev.begun
		begin := time.Now()
		cancel()
		synctest.Wait()
		if returned {
			t.Error("Serve returned while a request was being applied")
		}
		if _, err := idle.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("an idle connection is still there: %v", err)
		}
		if waited := time.Since(begin); waited > 0 {
			t.Errorf("an idle connection was there for another %v", waited)
		}
		close(dev.go_)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if len(dev.configs) != 1 {
			t.Error("the request wasn't applied")
		}
		if _, err := l.Accept(); err != net.ErrClosed {
			t.Errorf("the listener is still open: %v", err)
		}
	})
}

func TestAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		l := newPipes()
		done := make(chan error, 1)
		go func() { done <- Serve(t.Context(), l, &model{}, slog.New(slog.NewTextHandler(&log, nil))) }()
		begin := time.Now()
		for range 10 {
			l.errs <- &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
		}
		c := l.dial()
		if waited := time.Since(begin); waited < 2*time.Second || waited > 6*time.Second {
			t.Errorf("ten failures took %v", waited)
		}
		if n := strings.Count(log.String(), "\n"); n != 10 {
			t.Errorf("logged %d lines", n)
		}
		if got := ask(t, c, "get=1\n\n"); got != "errno=0\n\n" {
			t.Errorf("after the failures: %q", got)
		}
		broken := errors.New("broken")
		l.errs <- broken
		if err := <-done; err != broken {
			t.Errorf("Serve returned %v", err)
		}
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("a connection is still there: %v", err)
		}
	})
}

func TestClient(t *testing.T) {
	dev := &model{}
	served(t, dev, nil, func(t *testing.T, l *pipes) {
		c := NewClient(l.dial())
		defer c.Close()
		for range 3 {
			if err := c.Set(fullConfig); err != nil {
				t.Fatal(err)
			}
		}
		if st, err := c.Get(); err != nil || st.ListenPort != 51820 || len(st.Peers) != 0 {
			t.Errorf("got %+v, %v", st, err)
		}
		if err := c.Set(wgtypes.Config{Peers: []wgtypes.PeerConfig{{Endpoint: new(fullStatus.Peers[1].Endpoint)}}}); err == nil {
			t.Error("an invalid endpoint was sent")
		}
		dev.refuse = fmt.Errorf("udp: %w", syscall.EADDRINUSE)
		if err := c.Set(fullConfig); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a port in use: %v", err)
		}
		dev.refuse = nil
		dev.st = fullStatus
		for range 2 {
			if st, err := c.Get(); err != nil || !reflect.DeepEqual(st, fullStatus) {
				t.Errorf("got %+v, %v", st, err)
			}
		}
	})
	for i, cfg := range dev.configs {
		if !reflect.DeepEqual(cfg, fullConfig) {
			t.Errorf("request %d arrived as %+v", i, cfg)
		}
	}
}

func TestClientOfABadServer(t *testing.T) {
	for _, answer := range []string{"", "errno=0\n", "errno=0\nx\n\n", "errno\n\n", "x=0\n\n", "errno=x\n\n", "\n", strings.Repeat("x", 5000) + "\n"} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			go func() {
				io.ReadFull(theirs, make([]byte, len("set=1\n\n")))
				io.WriteString(theirs, answer)
				if answer != "" {
					io.Copy(io.Discard, theirs) // until the client gives up
				}
				theirs.Close()
			}()
			c := NewClient(ours)
			defer c.Close()
			first := c.Set(wgtypes.Config{})
			if first == nil || strings.Contains(first.Error(), "xxx") {
				t.Errorf("%.20q was accepted as an answer: %v", answer, first)
			}
			if err := c.Set(wgtypes.Config{}); err != first {
				t.Errorf("%.20q: the next request on the connection: %v", answer, err)
			}
			if _, err := c.Get(); err != first {
				t.Errorf("%.20q: the next get on the connection: %v", answer, err)
			}
		})
	}
}

// FuzzConversation sends any bytes and checks that every request is answered, once and in order, and that what is
// applied was asked for.
func FuzzConversation(f *testing.F) {
	f.Add([]byte("get=1\n\nset=1\nlisten_port=7\nreplace_peers=true\npublic_key=" + hexOf(1) + "\nallowed_ip=::/0\nallowed_ip=-::/0\n\nget=1\n\n"))
	f.Add([]byte("set=1\nlisten_port=70000\nx\n\n\n\nset=1\nlisten_port=7\n\nget=2\n\nx"))
	f.Add([]byte("set=1\n" + strings.Repeat("x", 5000) + "\n\nget=1\n\n"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		dev := &model{}
		out := converse(t, dev, sent)
		want := requests(string(sent))
		applied := 0
		for i, kind := range want {
			end := strings.Index(out, "\n\n")
			if end < 0 {
				t.Fatalf("%d answers to %d requests", i, len(want))
			}
			answer := out[:end+2]
			out = out[end+2:]
			last := answer[strings.LastIndex(answer[:len(answer)-2], "\n")+1:]
			good := last == "errno=0\n\n"
			switch {
			case kind == "get=1":
				if _, err := text.ReadStatus(bufio.NewReader(strings.NewReader(answer))); err != nil || !good {
					t.Fatalf("answer to get: %v", err)
				}
			case kind == "set=1" && answer == last && (good || strings.HasPrefix(last, "errno=-")):
				if good {
					applied++
				}
			case kind == "" && answer == last && !good:
			default:
				t.Fatalf("request %d, %q: answered %q", i, kind, answer)
			}
		}
		if out != "" || applied != len(dev.configs) {
			t.Fatalf("%q is too much; %d requests were answered with errno=0, %d applied", out, applied, len(dev.configs))
		}
	})
}

// requests returns the kind of each request in sent: get=1 and set=1 for those that are whole, "" for the rest.
func requests(sent string) (kinds []string) {
	for {
		sent = strings.TrimLeft(sent, "\n")
		if sent == "" {
			return kinds
		}
		request, rest, whole := strings.Cut(sent, "\n\n")
		switch {
		case whole && request == "get=1":
			kinds = append(kinds, request)
		case whole && (request == "set=1" || strings.HasPrefix(request, "set=1\n")):
			kinds = append(kinds, "set=1")
		case strings.HasPrefix(request, "set=1\n") || request == "set=1" && strings.HasPrefix(sent, "set=1\n"):
			kinds = append(kinds, "set=1") // refused, with a negative errno
		default:
			kinds = append(kinds, "")
		}
		sent = rest
	}
}
