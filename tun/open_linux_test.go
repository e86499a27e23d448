package tun

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// wantError checks that err is one line, has the words, and wraps the errno.
func wantError(t *testing.T, err error, is error, words ...string) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Fatalf("error %v, want one that is %v", err, is)
	}
	for _, w := range append(words, "tun: ") {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q says nothing of %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q has more than one line", err)
	}
}

func TestOpenRefusals(t *testing.T) {
	inNetns(t)
	open(t, "tl0", Options{})
	_, err := Open("tl0", Options{})
	wantError(t, err, unix.EBUSY, "create tl0", "another name")
	_, err = Open("lo", Options{})
	wantError(t, err, unix.EINVAL, "create lo", "not a TUN")
	_, err = Open("a-name-too-long-for-it", Options{})
	wantError(t, err, unix.ENAMETOOLONG, "15 bytes")
	_, err = Open("x/y", Options{})
	wantError(t, err, unix.EINVAL, "not valid")
	for _, mtu := range []int{-1, 65536} {
		_, err = Open("tl1", Options{MTU: mtu})
		wantError(t, err, unix.EINVAL, "MTU")
	}
	_, err = Open("tl1", Options{MTU: 20}) // below the kernel's least
	wantError(t, err, unix.EINVAL, "set the MTU to 20")
	open(t, "tl1", Options{}) // and nothing of it is left
}

func TestOpenWithoutPermission(t *testing.T) {
	inNetns(t)
	// Of this thread only, which ends with the test.
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capset(&hdr, &caps[0]); err != nil {
		t.Fatal(err)
	}
	_, err := Open("tl0", Options{})
	wantError(t, err, unix.EPERM, "tun: create tl0: operation not permitted; needs CAP_NET_ADMIN")
}

func TestOpenHints(t *testing.T) {
	for err, want := range map[error]string{unix.ENOENT: "modprobe tun", unix.ENODEV: "modprobe tun", unix.EACCES: "needs access", unix.EPERM: "needs access", unix.EMFILE: ""} {
		if got := openHint(err); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%v: hint %q", err, got)
		}
	}
}

func TestFromFDRefuses(t *testing.T) {
	inNetns(t)
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = FromFD(int(f.Fd()), Options{})
	wantError(t, err, unix.ENOTTY, "not that of a TUN")
	clone, err := os.OpenFile(cloneDevice, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer clone.Close()
	_, err = FromFD(int(clone.Fd()), Options{})
	wantError(t, err, unix.EBADFD, "with an interface")
	for name, flags := range map[string]uint16{"pi0": unix.IFF_TUN, "tap0": unix.IFF_TAP | unix.IFF_NO_PI} {
		fd := rawTUN(t, name, flags)
		_, err := FromFD(fd, Options{})
		wantError(t, err, unix.EINVAL, name, "IFF_NO_PI")
		if err := unix.Close(fd); err != nil {
			t.Errorf("the descriptor isn't the caller's any more: %v", err)
		}
	}
	_, err = FromFD(-1, Options{MTU: 70000})
	wantError(t, err, unix.EINVAL, "MTU")
}

// A device leaves no descriptor behind, whatever its end.
func TestNoDescriptorLeaks(t *testing.T) {
	inNetns(t)
	count := func() int {
		e, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(e)
	}
	ends := func() {
		open(t, "tl0", Options{}).Close()
		d := open(t, "tl0", Options{})
		ip(t, "link", "del", "tl0")
		wantClosed(t, d)
		d.Close()
		Open("tl0", Options{MTU: 20})
		Open("lo", Options{})
		f, err := FromFD(rawTUN(t, "tl0", unix.IFF_TUN|unix.IFF_NO_PI), Options{})
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	ends() // the runtime's poller opens its own
	before := count()
	for range 3 {
		ends()
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}
