package tun

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"throughline/internal/linux"
	"throughline/packet"
)

// patience bounds what a broken test waits; nothing that works comes near it.
const patience = 20 * time.Second

func open(t testing.TB, name string, opts Options) *device {
	t.Helper()
	d, err := Open(name, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d.(*device)
}

// wantEvent waits until all of e came.
func wantEvent(t *testing.T, d Device, e Event) {
	t.Helper()
	for e != 0 {
		select {
		case got, ok := <-d.Events():
			if !ok {
				t.Fatalf("events are closed, want event %b", e)
			}
			e &^= got
		case <-time.After(patience):
			t.Fatalf("no event %b", e)
		}
	}
}

func wantClosed(t *testing.T, d Device) {
	t.Helper()
	for {
		select {
		case _, ok := <-d.Events():
			if !ok {
				return
			}
		case <-time.After(patience):
			t.Fatal("events stay open")
		}
	}
}

// reader reads in the background until an error comes, which it sends.
func reader(d Device) <-chan error {
	done := make(chan error, 1)
	go func() {
		b := packet.New()
		for {
			b.Reset()
			if _, err := d.Queues()[0].Read(b); err != nil {
				done <- err
				return
			}
		}
	}()
	return done
}

func wantErrClosed(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		if !errors.Is(err, os.ErrClosed) {
			t.Fatalf("Read: %v, want an os.ErrClosed", err)
		}
	case <-time.After(patience):
		t.Fatal("Read goes on waiting")
	}
}

func TestLife(t *testing.T) {
	inNetns(t)
	d := open(t, "tl%d", Options{})
	if n, err := d.Name(); n != "tl0" || err != nil {
		t.Errorf("name %q, %v", n, err)
	}
	if m, err := d.MTU(); m != DefaultMTU || err != nil {
		t.Errorf("MTU %d, %v", m, err)
	}
	t.Logf("offloads: %+v", d.Offloads())
	ip(t, "link", "set", "tl0", "up")
	wantEvent(t, d, Up)
	ip(t, "link", "set", "tl0", "mtu", "9000")
	wantEvent(t, d, MTU)
	if m, _ := d.MTU(); m != 9000 {
		t.Errorf("MTU %d after it was set to 9000", m)
	}
	ip(t, "link", "set", "tl0", "down")
	wantEvent(t, d, Down)
	ip(t, "link", "set", "tl0", "name", "other")
	if n, err := d.Name(); n != "other" || err != nil {
		t.Errorf("name %q, %v after it was renamed", n, err)
	}
	ip(t, "link", "set", "other", "up")
	wantEvent(t, d, Up)
	done := reader(d)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	wantErrClosed(t, done)
	wantClosed(t, d)
	if err := d.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := d.Name(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Name after Close: %v", err)
	}
	if _, err := d.MTU(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("MTU after Close: %v", err)
	}
	b := packet.New()
	b.Append([]byte{0x45})
	if err := d.Queues()[0].Write(b); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
}

func TestDeleted(t *testing.T) {
	inNetns(t)
	for _, up := range []bool{false, true} {
		for _, reading := range []bool{false, true} {
			d := open(t, "tl0", Options{})
			if up {
				ip(t, "link", "set", "tl0", "up")
				wantEvent(t, d, Up)
			}
			var done <-chan error
			if reading {
				done = reader(d)
			}
			ip(t, "link", "del", "tl0")
			wantClosed(t, d)
			if !reading {
				done = reader(d)
			}
			wantErrClosed(t, done)
			b := packet.New()
			b.Append(make([]byte, 40))
			if err := d.Queues()[0].Write(b); !errors.Is(err, os.ErrClosed) {
				t.Errorf("Write after deletion: %v", err)
			}
			if _, err := d.Name(); !errors.Is(err, os.ErrClosed) {
				t.Errorf("Name after deletion: %v", err)
			}
			if err := d.Close(); err != nil {
				t.Errorf("Close after deletion: %v", err)
			}
		}
	}
}

// Moved into another namespace, where our sockets see nothing, the interface must stay known.
func TestMovedToAnotherNetns(t *testing.T) {
	home := inNetns(t)
	away := home.another(t)
	d := open(t, "tl0", Options{MTU: 1300})
	done := reader(d)
	ip(t, "link", "set", "tl0", "netns", away.path())
	open(t, "tl0", Options{MTU: 777}) // another that bears its name now
	if m, err := d.MTU(); m != 1300 || err != nil {
		t.Errorf("MTU %d, %v after the move", m, err)
	}
	away.enter(t)
	ip(t, "link", "set", "tl0", "name", "moved", "up")
	home.enter(t)
	wantEvent(t, d, Up)
	if n, err := d.Name(); n != "moved" || err != nil {
		t.Errorf("name %q, %v after the move", n, err)
	}
	away.enter(t)
	ip(t, "link", "set", "moved", "mtu", "1234")
	home.enter(t)
	wantEvent(t, d, MTU)
	if m, err := d.MTU(); m != 1234 || err != nil {
		t.Errorf("MTU %d, %v", m, err)
	}
	select {
	case err := <-done:
		t.Fatalf("the move ended Read: %v", err)
	default:
	}
	away.enter(t)
	ip(t, "link", "del", "moved")
	home.enter(t)
	wantErrClosed(t, done)
	wantClosed(t, d)
}

// Nobody reads, and the interface is deleted elsewhere.
func TestDeletedInAnotherNetnsWithoutReader(t *testing.T) {
	home := inNetns(t)
	away := home.another(t)
	d := open(t, "tl0", Options{})
	ip(t, "link", "set", "tl0", "netns", away.path())
	away.enter(t)
	ip(t, "link", "del", "tl0")
	home.enter(t)
	wantClosed(t, d)
	wantErrClosed(t, reader(d))
}

// Where no events come from the other namespace (they need CAP_NET_BROADCAST there), a Read notices the deletion.
func TestDeletedInAnotherNetnsWithoutEvents(t *testing.T) {
	home := inNetns(t)
	away := home.another(t)
	d := open(t, "tl0", Options{})
	d.link.mu.Lock()
	d.link.wide = true // as if it had asked for them
	d.link.mu.Unlock()
	done := reader(d)
	ip(t, "link", "set", "tl0", "netns", away.path())
	away.enter(t)
	ip(t, "link", "del", "tl0")
	home.enter(t)
	wantErrClosed(t, done)
	wantClosed(t, d)
}

// The last of Up and Down holds; nobody is waited for.
func TestEventsGather(t *testing.T) {
	d := &device{events: make(chan Event, 1)}
	for _, e := range []Event{Up, MTU, Down, 0, Up} {
		d.send(e)
	}
	if e := <-d.events; e != Up|MTU {
		t.Errorf("event %b", e)
	}
}

// An error is one line.
func TestLinkError(t *testing.T) {
	inNetns(t)
	l := open(t, "tl0", Options{}).link
	l.close()
	if _, err := l.state(); !errors.Is(err, os.ErrClosed) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
}

// gsoMaxSegs asks how many segments the kernel's super-packets may have.
func gsoMaxSegs(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("ip", "-d", "link", "show", name).CombinedOutput()
	_, rest, ok := strings.Cut(string(out), " gso_max_segs ")
	if err != nil || !ok {
		t.Fatalf("no gso_max_segs of %s: %v, %s", name, err, out)
	}
	return strings.Fields(rest)[0]
}

// The kernel's super-packets are made to fill one super-packet of datagrams, also when the MTU changes.
func TestSuperPacketsFillOneSend(t *testing.T) {
	inNetns(t)
	shaped := func(name, want string) {
		t.Helper()
		if got := gsoMaxSegs(t, name); got != want {
			t.Errorf("gso_max_segs %s, want %s", got, want)
		}
	}
	d := open(t, "tl0", Options{})
	shaped("tl0", "45") // 65507 / (1420 + 32)
	for _, c := range []struct{ mtu, want string }{{"1280", "49"}, {"9000", "7"}, {"576", "64"}, {"1420", "45"}} {
		ip(t, "link", "set", "tl0", "mtu", c.mtu)
		wantEvent(t, d, MTU)
		shaped("tl0", c.want)
	}
	open(t, "tl1", Options{Off: packet.TSO})
	shaped("tl1", "65535") // as the kernel made it
}

// setForwarding makes the host a router, or not.
func setForwarding(t *testing.T, setting, to string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/"+setting, []byte(to), 0); err != nil {
		t.Fatal(err)
	}
}

// becomesShaped waits until the kernel's super-packets may have so many segments.
func becomesShaped(t *testing.T, name, want string) {
	t.Helper()
	for end := time.Now().Add(patience); gsoMaxSegs(t, name) != want; {
		if time.Now().After(end) {
			t.Fatalf("gso_max_segs of %s is %s, want %s", name, gsoMaxSegs(t, name), want)
		}
	}
}

// On a router super-packets come as others built them: a bound would have the kernel cut them up.
func TestNoShapeOnARouter(t *testing.T) {
	inNetns(t)
	open(t, "tl0", Options{})
	for i, setting := range []string{"ipv4/ip_forward", "ipv4/conf/tl0/forwarding", "ipv6/conf/all/forwarding", "ipv6/conf/tl0/forwarding"} {
		becomesShaped(t, "tl0", "45")
		setForwarding(t, setting, "1")
		becomesShaped(t, "tl0", "65535")
		if strings.HasSuffix(setting, "tl0/forwarding") {
			setForwarding(t, setting, "0")
			continue
		}
		late := fmt.Sprint("late", i)
		open(t, late, Options{}) // on a router from the start
		becomesShaped(t, late, "65535")
		setForwarding(t, setting, "0")
		becomesShaped(t, late, "45")
	}
}

// A kernel that corrupts super-packets of equal segments gets none to forward.
func TestNoMergedDatagramsOnARouter(t *testing.T) {
	inNetns(t)
	t.Cleanup(func() { running = linux.Running })
	for _, c := range []struct {
		kernel  linux.Version
		forward packet.OffloadState
	}{{linux.Version{7, 1, 0}, packet.OffloadOff}, {linux.Version{7, 1, 5}, packet.OffloadOn}} {
		running = func() linux.Version { return c.kernel }
		d := open(t, "tl0", Options{})
		if d.Offloads()[packet.UDPGRO] != packet.OffloadOn {
			t.Skip("this kernel takes no merged datagrams")
		}
		setForwarding(t, "ipv4/ip_forward", "1")
		becomesShaped(t, "tl0", "65535") // which comes last
		late := open(t, "tl1", Options{})
		for _, d := range []*device{d, late} {
			if o := d.Offloads(); o[packet.UDPGRO] != c.forward || o[packet.TCPGRO] != packet.OffloadOn {
				t.Errorf("kernel %v: forwarding, %+v", c.kernel, o)
			}
		}
		setForwarding(t, "ipv4/ip_forward", "0")
		for _, name := range []string{"tl0", "tl1"} {
			becomesShaped(t, name, "45")
		}
		for _, d := range []*device{d, late} {
			if o := d.Offloads(); o[packet.UDPGRO] != packet.OffloadOn {
				t.Errorf("kernel %v: no longer forwarding, %+v", c.kernel, o)
			}
			d.Close()
		}
	}
}
