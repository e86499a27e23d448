package tun

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain runs the tests as root of a user namespace when they are not run as root, where the host permits that.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 && os.Getenv("TUN_TEST_REEXEC") == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.Env = append(os.Environ(), "TUN_TEST_REEXEC=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		if err := cmd.Run(); err == nil {
			os.Exit(0)
		} else if cmd.ProcessState != nil {
			os.Exit(cmd.ProcessState.ExitCode())
		}
		// No user namespaces here: what needs them skips itself.
	}
	os.Exit(m.Run())
}

// A netns is a network namespace, for as long as its test runs.
type netns struct{ fd int }

// inNetns puts the test into a new network namespace. Its goroutine stays on its thread, which ends with it; sockets and
// TUNs belong to the namespace of the thread that makes them, and goroutines the test starts are elsewhere.
func inNetns(t testing.TB) netns {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends with the test's goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no network namespace: %v", err)
		}
		t.Skipf("no network namespace: %v", err)
	}
	if f, err := os.OpenFile(cloneDevice, os.O_RDWR, 0); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	} else {
		f.Close()
	}
	ip(t, "link", "set", "lo", "up")
	return hereNetns(t)
}

func hereNetns(t testing.TB) netns {
	t.Helper()
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return netns{fd}
}

// another makes a second namespace; the test stays where it is.
func (n netns) another(t testing.TB) netns {
	t.Helper()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	o := hereNetns(t)
	n.enter(t)
	return o
}

func (n netns) enter(t testing.TB) {
	t.Helper()
	if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

// path is a name of n for ip(8).
func (n netns) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.fd) }

// ip runs ip(8) in the namespace of the calling thread.
func ip(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}
