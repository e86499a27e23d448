package interop

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// These tests run daemons in the test's own network namespace, one at a time; its interfaces are named tl-*.

// command returns a command that runs a program in this namespace.
func command(p program, args ...string) *exec.Cmd { return exec.Command(p.path(), args...) }

// running returns an error unless a daemon's interface is there and its socket answers.
func running(name string) error {
	if out, err := exec.Command("ip", "link", "show", name).CombinedOutput(); err != nil {
		return fmt.Errorf("no interface: %s", out)
	}
	if out, err := exec.Command("wg", "show", name).CombinedOutput(); err != nil {
		return fmt.Errorf("wg show: %s", out)
	}
	return nil
}

// stopped returns an error if a daemon's interface, socket or processes are still there.
func stopped(name string) error {
	if exec.Command("ip", "link", "show", name).Run() == nil {
		return errors.New("the interface is still there")
	}
	if pids := processes(name); len(pids) > 0 {
		return fmt.Errorf("processes are still there: %v", pids)
	}
	return socketGone(name)
}

// processes returns the processes of our program for an interface.
func processes(name string) (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		text, _ := os.ReadFile(file)
		args := strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
		if args[0] == ours.path() && args[len(args)-1] == name {
			pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

// background starts a daemon that goes to the background, and returns its process.
func background(t *testing.T, cmd *exec.Cmd, name string) int {
	t.Helper()
	cmd.WaitDelay = waitLimit // for when the daemon keeps stdout or stderr open
	out, err := cmd.CombinedOutput()
	if err != nil || len(out) != 0 {
		t.Fatalf("start in the background: %v: %s", err, out)
	}
	pids := processes(cmd.Args[len(cmd.Args)-1])
	t.Cleanup(func() {
		for _, pid := range pids {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	if err := running(name); err != nil {
		t.Fatalf("it reported that it was ready, but: %v", err)
	}
	if len(pids) != 1 {
		t.Fatalf("processes: %v, want one", pids)
	}
	return pids[0]
}

// foreground starts a daemon in the foreground and waits until it is ready.
func foreground(t *testing.T, cmd *exec.Cmd, name string, env ...string) *daemon {
	t.Helper()
	d, err := launch(cmd, env...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.kill)
	if err := eventually(func() error { return running(name) }); err != nil {
		t.Fatalf("%v\n%s", err, d.log())
	}
	return d
}

// TestEnds asks: does the daemon end in every way that it should, with success, and leave nothing?
func TestEnds(t *testing.T) {
	needNamespaces(t)
	const name = "tl-ends"
	ends := []struct {
		by  string
		end func(pid int) error
	}{
		{"SIGTERM", func(pid int) error { return syscall.Kill(pid, syscall.SIGTERM) }},
		{"SIGINT", func(pid int) error { return syscall.Kill(pid, syscall.SIGINT) }},
		{"ip link del", func(int) error { return exec.Command("ip", "link", "del", name).Run() }},
		{"removing the socket", func(int) error { return os.Remove(socket(name)) }},
	}
	for _, up := range []string{"down", "up"} {
		for _, e := range ends {
			t.Run("foreground/"+up+"/"+e.by, func(t *testing.T) {
				d := foreground(t, command(ours, "-f", name), name)
				must(t, "ip", "link", "set", name, up)
				if st, err := os.Lstat(socket(name)); err != nil || st.Mode().Perm()&0o077 != 0 {
					t.Errorf("other users can use the socket: %v, %v", st.Mode(), err)
				}
				if err := e.end(d.cmd.Process.Pid); err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(d.ended(), stopped(name)); err != nil || d.log() != "" {
					t.Errorf("%v; it logged %q", err, d.log())
				}
			})
			t.Run("background/"+up+"/"+e.by, func(t *testing.T) {
				pid := background(t, command(ours, name), name)
				must(t, "ip", "link", "set", name, up)
				if err := e.end(pid); err != nil {
					t.Fatal(err)
				}
				if err := eventually(func() error { return stopped(name) }); err != nil {
					t.Error(err)
				}
			})
		}
	}
	t.Run("WG_PROCESS_FOREGROUND", func(t *testing.T) {
		d := foreground(t, command(ours, name), name, "WG_PROCESS_FOREGROUND=1")
		if pids := processes(name); !slices.Equal(pids, []int{d.cmd.Process.Pid}) {
			t.Errorf("processes %v, want the one that was started, %d", pids, d.cmd.Process.Pid)
		}
		if err := errors.Join(d.terminate(syscall.SIGTERM), stopped(name)); err != nil {
			t.Error(err)
		}
	})
	t.Run("after a killed daemon", func(t *testing.T) {
		d := foreground(t, command(ours, "--foreground", name), name)
		d.kill()
		if _, err := os.Lstat(socket(name)); err != nil {
			t.Fatal("a killed daemon removed its socket:", err)
		}
		pid := background(t, command(ours, name), name)
		syscall.Kill(pid, syscall.SIGTERM)
		if err := eventually(func() error { return stopped(name) }); err != nil {
			t.Error(err)
		}
	})
}

// TestMoved asks: does a tunnel work when its interface was moved to another namespace, and does the daemon end when it is
// deleted there?
func TestMoved(t *testing.T) {
	for _, p := range rolePairs {
		if p.a != ours {
			continue
		}
		t.Run(fmt.Sprintf("%s with %s", p.a, p.b), func(t *testing.T) {
			b := newBed(t, p)
			b.configure()
			b.a.wantReach(b.b)

			away := *b.a
			away.ns += "-away"
			away.outer = away.inner // it has no other
			must(t, "ip", "netns", "add", away.ns)
			t.Cleanup(func() { exec.Command("ip", "netns", "del", away.ns).Run() })
			b.a.ip("link set %s netns %s", b.a.tunnel, away.ns)
			away.bringUp()
			away.wantReach(b.b)
			b.b.wantReach(&away)
			b.a.wg("peer", b.b.public, "persistent-keepalive", "25") // the socket is where it was
			select {
			case <-b.a.daemon.done:
				t.Fatalf("the daemon ended when its interface moved\n%s", b.a.daemon.log())
			case <-time.After(1500 * time.Millisecond):
			}
			away.ip("link set %s down", b.a.tunnel, "link set %s up", b.a.tunnel)
			away.ip("addr add %s/64 dev %s nodad", b.a.inner[ipv6], b.a.tunnel) // setting the interface down removed it
			if err := within(retry, func() error { return away.ping(b.b.inner[ipv4], 1) }); err != nil {
				t.Errorf("after down and up: %v", err)
			}
			away.ip("link del %s", b.a.tunnel)
			if err := errors.Join(b.a.daemon.ended(), socketGone(b.a.tunnel)); err != nil {
				t.Errorf("deleted where it was moved to: %v\n%s", err, b.a.daemon.log())
			}
		})
	}
}

// TestDescriptors asks: does the daemon use a TUN and a socket that another process opened, in the foreground and in the
// background?
func TestDescriptors(t *testing.T) {
	needNamespaces(t)
	const name = "tl-fd"
	open := func(t *testing.T) (tun, listener *os.File) {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		ifr, _ := unix.NewIfreq(name)
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(socket(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket(name)})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		l.SetUnlinkOnClose(false)
		listener, err = l.File()
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fd), "tun"), listener
	}
	for _, mode := range []string{"foreground", "background"} {
		t.Run(mode, func(t *testing.T) {
			tun, listener := open(t)
			cmd := command(ours, "another")
			cmd.ExtraFiles = []*os.File{tun, listener}
			env := []string{"WG_TUN_FD=3", "WG_UAPI_FD=4"}
			if mode == "foreground" {
				d := foreground(t, cmd, name, append(env, "WG_PROCESS_FOREGROUND=1")...)
				tun.Close()
				listener.Close()
				if err := errors.Join(d.terminate(syscall.SIGTERM), stopped(name)); err != nil {
					t.Error(err)
				}
				return
			}
			cmd.Env = append(os.Environ(), env...)
			pid := background(t, cmd, name)
			tun.Close()
			listener.Close()
			if err := running(name); err != nil {
				t.Error("when the test has closed its descriptors:", err)
			}
			syscall.Kill(pid, syscall.SIGTERM)
			if err := eventually(func() error { return errors.Join(stopped(name), stopped("another")) }); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRefusals asks: when the daemon can't start, does it print one line that says why, fail, leave nothing, and leave other
// daemons alone?
func TestRefusals(t *testing.T) {
	needNamespaces(t)
	const name, taken = "tl-no", "tl-taken"
	must(t, "ip", "link", "add", taken, "type", "veth", "peer", "name", taken+"2")
	t.Cleanup(func() { exec.Command("ip", "link", "del", taken).Run() })
	other := foreground(t, command(ours, "-f", "tl-other"), "tl-other")

	// hidden runs the daemon in a mount namespace in which a file system covers a directory.
	hidden := func(mount string, args ...string) *exec.Cmd {
		script := "mount -t tmpfs " + mount + ` && exec "$0" "$@"`
		return exec.Command("unshare", append([]string{"--mount", "sh", "-c", script, ours.path()}, args...)...)
	}
	unprivileged := func(args ...string) *exec.Cmd {
		return exec.Command("setpriv", append([]string{"--reuid=65534", "--regid=65534", "--clear-groups", "--", ours.path()}, args...)...)
	}
	powerless := func(args ...string) *exec.Cmd {
		return exec.Command("setpriv", append([]string{"--bounding-set=-all", "--inh-caps=-all", "--", ours.path()}, args...)...)
	}
	us := func(args ...string) *exec.Cmd { return command(ours, args...) }
	for _, c := range []struct {
		what string
		cmd  *exec.Cmd
		env  string
		says string // a regular expression
	}{
		{"no interface", us(), "", "interface"},
		{"no interface, in the foreground", us("-f"), "", "interface"},
		{"two interfaces", us(name, "tl-no2"), "", "tl-no2"},
		{"no such flag", us("--no", name), "", "--no"},
		{"an empty name", us(""), "", ""},
		{"a name too long", us("tl-sixteen-chars"), "", "tl-sixteen-chars"},
		{"a path for a name", us("../tl-no"), "", `\.\./tl-no`},
		{"a dot for a name", us("."), "", ` \.:`},
		{"a space in the name", us("tl no"), "", "tl no"},
		{"a taken name", us(taken), "", taken},
		{"another's name", us("tl-other"), "", "tl-other"},
		{"another's name, in the foreground", us("-f", "tl-other"), "", "tl-other"},
		{"no /dev/net/tun", hidden("none /dev/net", name), "", "/dev/net/tun"},
		{"no /dev/net/tun, in the foreground", hidden("none /dev/net", "-f", name), "", "/dev/net/tun"},
		{"nowhere to put the socket", hidden("-o ro none /run", name), "", "/run/wireguard"},
		{"not root", unprivileged(name), "", "permi"},
		{"not root, in the foreground", unprivileged("-f", name), "", "permi"},
		{"root without capabilities", powerless(name), "", "permi"},
		{"no number of a TUN", us(name), "WG_TUN_FD=three", "WG_TUN_FD"},
		{"no open TUN", us(name), "WG_TUN_FD=77", "WG_TUN_FD|descriptor 77"},
		{"no open TUN, in the foreground", us("-f", name), "WG_TUN_FD=77", "WG_TUN_FD|descriptor 77"},
		{"not a TUN", us(name), "WG_TUN_FD=0", "WG_TUN_FD|descriptor 0"},
		{"not a TUN, in the foreground", us("-f", name), "WG_TUN_FD=0", "WG_TUN_FD|descriptor 0"},
		{"no number of a socket", us(name), "WG_UAPI_FD=three", "WG_UAPI_FD"},
		{"no open socket", us(name), "WG_UAPI_FD=77", "WG_UAPI_FD|descriptor 77"},
		{"no open socket, in the foreground", us("-f", name), "WG_UAPI_FD=77", "WG_UAPI_FD|descriptor 77"},
	} {
		t.Run(c.what, func(t *testing.T) {
			if strings.HasPrefix(c.what, "not root") && !userExists(65534) {
				t.Skip("nobody doesn't exist in this user namespace")
			}
			before := must(t, "ip", "-brief", "link")
			var stdout, stderr bytes.Buffer
			c.cmd.Stdout, c.cmd.Stderr = &stdout, &stderr
			c.cmd.WaitDelay = waitLimit
			c.cmd.Env = append(os.Environ(), c.env)
			d := make(chan error, 1)
			go func() { d <- c.cmd.Run() }()
			select {
			case <-d:
			case <-time.After(waitLimit):
				c.cmd.Process.Kill()
				t.Fatal("the daemon started")
			}
			said := stderr.String()
			if code := c.cmd.ProcessState.ExitCode(); code != 1 || stdout.Len() != 0 {
				t.Errorf("exit status %d, stdout %q; want 1 and nothing", code, &stdout)
			}
			if strings.Count(said, "\n") != 1 || !strings.HasPrefix(said, "throughline: ") || !strings.HasSuffix(said, "\n") {
				t.Errorf("want one line that begins with the program's name, got %q", said)
			}
			if !regexp.MustCompile(c.says).MatchString(said) {
				t.Errorf("the line doesn't match %s: %q", c.says, said)
			}
			if after := must(t, "ip", "-brief", "link"); after != before {
				t.Errorf("the interfaces are\n%sand were\n%s", after, before)
			}
			if err := errors.Join(socketGone(name), socketGone(taken)); err != nil {
				t.Error(err)
			}
			if err := running("tl-other"); err != nil {
				t.Error("the other daemon:", err)
			}
			t.Logf("%s", strings.TrimSpace(said))
		})
	}
	if err := errors.Join(other.terminate(syscall.SIGTERM), stopped("tl-other")); err != nil {
		t.Error(err)
	}
}

// holds reports whether a user exists in this user namespace.
func userExists(uid int) bool {
	return exec.Command("setpriv", "--reuid="+strconv.Itoa(uid), "--regid="+strconv.Itoa(uid), "--clear-groups", "true").Run() == nil
}

// TestOutput asks: does the program print its version and its usage to stdout, and accept the log levels that wireguard-go
// accepts, which are all strings?
func TestOutput(t *testing.T) {
	needNamespaces(t)
	out, err := command(ours, "--version").Output()
	if err != nil || bytes.Count(out, []byte("\n")) != 1 || !bytes.HasPrefix(out, []byte("throughline ")) {
		t.Errorf("--version: %v: %q", err, out)
	}
	out, err = command(ours, "--help").Output()
	if err != nil || !bytes.HasPrefix(out, []byte("usage: throughline ")) {
		t.Errorf("--help: %v: %q", err, out)
	}
	const name = "tl-words"
	for level, talks := range map[string]bool{"": false, "silent": false, "error": false, "info": false, "debug": true, "verbose": true} {
		t.Run("LOG_LEVEL="+level, func(t *testing.T) {
			d := foreground(t, command(ours, "-f", name), name, "LOG_LEVEL="+level)
			must(t, "ip", "link", "set", name, "up")
			if err := errors.Join(d.terminate(syscall.SIGTERM), stopped(name)); err != nil {
				t.Error(err)
			}
			if (d.log() != "") != talks {
				t.Errorf("it logged %q", d.log())
			}
		})
	}
}
