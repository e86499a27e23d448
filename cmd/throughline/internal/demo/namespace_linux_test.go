package demo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"throughline"
	"throughline/packet"
	"throughline/tun"
)

// needNamespaces skips a test where this process can't make what it needs, except in CI as root.
func needNamespaces(t *testing.T) {
	t.Helper()
	n, err := newNamespace()
	if err == nil {
		defer n.Close()
		var dev tun.Device
		if dev, err = n.open("probe", netip.MustParsePrefix("10.128.0.1/30"), 0); err == nil {
			dev.Close()
			return
		}
	}
	if os.Getenv("CI") == "true" && os.Geteuid() == 0 {
		t.Fatal(err)
	}
	t.Skip(err)
}

// here describes what a demo must not change in this process: its descriptors, the namespaces of its threads except those
// that are about to end, and the interfaces of its namespace.
func here(t *testing.T) string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"/proc/self/fd/*", "/proc/self/task/*/ns/net", "/proc/self/ns/net"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatal(pattern, err)
		}
		for _, name := range names {
			if to, err := os.Readlink(name); err == nil && strings.HasPrefix(to, "net:") {
				all = append(all, to)
			}
		}
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		all = append(all, l.Name)
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " ")
}

// TestTUNs carries bytes and the page through the kernel's interfaces, and checks that nothing is left.
func TestTUNs(t *testing.T) {
	needNamespaces(t)
	before := here(t)
	t.Cleanup(func() {
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // the threads' end is the kernel's
			after := here(t)
			if after == before {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("before: %s\nafter:  %s", before, after)
			}
		}
	})
	d := startWith(t, Options{TUN: true, Off: packet.USO})
	if during := here(t); strings.Count(during, "net:") != strings.Count(before, "net:")+2 || strings.Contains(during, "near") {
		t.Errorf("before: %s\nduring: %s", before, during)
	}
	url := serve(t, d)
	r, err := d.Once(within(t), Plan{Bytes: 4<<20 + 5, Streams: 3, Pings: 5}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Intact || !r.TUN || len(r.Loads) != 4 || r.RTT.Lost != 0 || r.RTT.Median <= 0 || r.Handshakes != 1 || r.Datagrams < 4*(4<<20) {
		t.Errorf("%+v", r)
	}
	if r.Offloads[packet.USO] != packet.OffloadOff || len(r.Offloads) != 6 {
		t.Errorf("offloads %v", r.Offloads)
	}
	if len(r.Drops) != 0 {
		t.Errorf("drops %v: another program uses the namespaces", r.Drops)
	}
	if code, body, _ := ask(t, "GET", url+"/"); code != 200 || !bytes.Equal(body, page) {
		t.Errorf("status %d, %d bytes", code, len(body))
	}
	s := snapshot(t, url)
	if !s.TUN || s.Near.Interface != "near" || s.Far.Interface != "far" || s.Near.Namespace == s.Far.Namespace {
		t.Errorf("%+v and %+v", s.Near, s.Far)
	}
	if _, err := os.Stat(s.Near.Namespace); err != nil {
		t.Error(err)
	}
	for i, step := range r.Walk.Down {
		if i != stepRead && i != stepReceive && step.Packets == 0 {
			t.Errorf("step %d: %+v", i, step)
		}
	}
}

// TestNamespaceIsEmpty checks that what is opened in a namespace is there, and nowhere else.
func TestNamespaceIsEmpty(t *testing.T) {
	needNamespaces(t)
	n, err := newNamespace()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	if err := n.in(func() error {
		links, err := net.Interfaces()
		for _, l := range links {
			if l.Flags&net.FlagUp != 0 {
				names = append(names, l.Name)
			}
		}
		return err
	}); err != nil || strings.Join(names, " ") != "lo" {
		t.Errorf("interfaces that are up: %q, %v", names, err)
	}
	ln, err := n.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if c, err := net.Dial("tcp4", ln.Addr().String()); err == nil {
		c.Close()
		t.Error("a listener in the namespace is reached from outside")
	}
	c, err := n.DialContext(within(t), "tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := n.Ping(within(t), netip.MustParseAddr("127.0.0.1")); err != nil {
		t.Error(err)
	}
	if _, err := n.Ping(within(t), netip.MustParseAddr("10.128.0.2")); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("an address that nothing has: %v", err)
	}
	if as, err := n.LookupHost(within(t), "::1"); err != nil || len(as) != 1 {
		t.Error(as, err)
	}
	if _, err := n.LookupHost(within(t), "localhost"); err == nil {
		t.Error("there is a name server")
	}
	n.Close()
	if err := n.in(func() error { return nil }); err == nil {
		t.Error("a closed namespace can be entered")
	}
}

// TestPingGivesUp pings a peer that doesn't answer, as it has no peer itself.
func TestPingGivesUp(t *testing.T) {
	needNamespaces(t)
	d := startWith(t, Options{TUN: true})
	ctx, cancel := context.WithTimeout(within(t), 20*time.Millisecond)
	defer cancel()
	if err := d.far.dev.Configure(throughline.Config{ReplacePeers: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// TestApartKeepsTheFirstThread checks that apart doesn't change the namespace of the process, which is its first thread's.
func TestApartKeepsTheFirstThread(t *testing.T) {
	first := 0
	for range 500 {
		if err := apart(func() error {
			if unix.Gettid() == unix.Getpid() {
				first++
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if first > 0 {
		t.Errorf("%d calls on the process's first thread", first)
	}
	want := errors.New("f's own")
	if err := apart(func() error { return want }); err != want {
		t.Errorf("%v", err)
	}
}

func TestChecksum(t *testing.T) {
	for _, b := range [][]byte{{8, 0, 0, 0}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 1}, {8, 0, 0, 0, 0x12, 0x34, 0xfe, 0xdc}} {
		sum := checksum(b)
		if rest := checksum(binary.BigEndian.AppendUint16(slices.Clone(b), sum)); rest != 0 {
			t.Errorf("%x: checksum %x, and with it %x", b, sum, rest)
		}
	}
}
