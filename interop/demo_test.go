package interop

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// These tests run `throughline demo --tun` as an operator does, in the test's own network namespace.

// asNobody returns the words before a command that run it as the user nobody, without privileges. In a user namespace,
// which has only one user, it skips the test. Where only root may open the TUN's device, the command sees one that everybody
// may open, as on most machines, in a mount namespace of its own.
func asNobody(t *testing.T) []string {
	t.Helper()
	nobody := []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}
	if out, err := exec.Command(nobody[0], append(nobody[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("there is no other user here: %s", out)
	}
	info, err := os.Stat("/dev/net/tun")
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm()&0o006 == 0o006 {
		return nobody
	}
	script := "mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200 && exec " + strings.Join(nobody, " ") + ` "$@"`
	return []string{"unshare", "--mount", "sh", "-c", script, "sh"}
}

// hostState describes what a demo must not change: interfaces, addresses, routes, and what keeps a namespace without a
// process: a name, or a mount.
func hostState(t *testing.T) string {
	t.Helper()
	text := must(t, "ip", "-oneline", "address") + must(t, "ip", "route") + must(t, "ip", "rule") + must(t, "ip", "netns")
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return text + string(mounts)
}

// checkHostUnchanged checks that the host's state is the same when the test ends.
func checkHostUnchanged(t *testing.T) {
	t.Helper()
	before := hostState(t)
	t.Cleanup(func() {
		if err := eventually(func() error {
			if after := hostState(t); after != before {
				return fmt.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			if left := demos(); len(left) > 0 {
				return fmt.Errorf("processes are left: %v", left)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
}

// demos returns the processes of running demos with TUNs.
func demos() (pids []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		text, _ := os.ReadFile(file)
		if args := strings.Split(string(text), "\x00"); len(args) > 2 && args[0] == ours.path() && args[1] == "demo" {
			pids = append(pids, strings.Split(file, "/")[2])
		}
	}
	return pids
}

// users are those who run a demo, as the words before the command: this user, with privileges, and one without.
var users = map[string]func(t *testing.T) []string{
	"privileged": func(*testing.T) []string { return nil },
	"ordinary":   asNobody,
}

// demoCommand returns the command of a demo with TUNs, with the words before it.
func demoCommand(who []string, args ...string) *exec.Cmd {
	words := append(append(slices.Clone(who), ours.path(), "demo", "--tun"), args...)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.WaitDelay = waitLimit // for when a process outlives its parent, which the tests look for
	return cmd
}

// TestDemoOnce asks: does the fixed load go through the kernel's TUNs, every byte intact?
func TestDemoOnce(t *testing.T) {
	needNamespaces(t)
	for name, who := range users {
		t.Run(name, func(t *testing.T) {
			who := who(t)
			checkHostUnchanged(t)
			var r struct {
				Intact, TUN bool
				Runs        []struct{ Bytes int64 }
				RTT         struct{ Sent, Lost int }
				Drops       map[string]uint64
				Offloads    map[string]string
			}
			if err := json.Unmarshal([]byte(run(t, demoCommand(who, "--once", "--json"))), &r); err != nil {
				t.Fatal(err)
			}
			if !r.Intact || !r.TUN || len(r.Runs) != 4 || r.RTT.Sent != 200 || r.RTT.Lost != 0 || r.Offloads["tso"] != "on" {
				t.Errorf("%+v", r)
			}
			if len(r.Drops) != 0 {
				t.Errorf("drops: %v", r.Drops)
			}
		})
	}
}

// A page is a running demo that serves its page.
type page struct {
	*daemon
	url string
}

func showPage(t *testing.T, who []string) page {
	t.Helper()
	d, err := launch(demoCommand(who))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.kill)
	p := page{daemon: d}
	if err := eventually(func() error {
		if p.url = regexp.MustCompile(`http://\S+/`).FindString(d.log()); p.url == "" || !strings.Contains(d.log(), "Ctrl-C") {
			return errors.New("no address: " + d.log())
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return p
}

// status requests the page's figures, over a new connection.
func (p page) status(into any) error {
	c := http.Client{Timeout: waitLimit, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(p.url + "status.json")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}

// TestDemoEnds asks: is everything gone after SIGINT, SIGTERM and SIGKILL?
func TestDemoEnds(t *testing.T) {
	needNamespaces(t)
	for name, who := range users {
		for _, sig := range []syscall.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGKILL} {
			t.Run(name+"/"+unix.SignalName(sig), func(t *testing.T) {
				who := who(t)
				checkHostUnchanged(t)
				p := showPage(t, who)
				var s struct {
					TUN  bool
					Near struct{ Interface, Namespace string }
				}
				if err := p.status(&s); err != nil || !s.TUN || s.Near.Interface != "near" {
					t.Fatalf("%v, %+v", err, s)
				}
				if out := must(t, "ip", "-oneline", "link"); strings.Contains(out, "near") {
					t.Errorf("an interface of the demo's is among this namespace's:\n%s", out)
				}
				// The command that the demo prints shows the interface.
				look := regexp.MustCompile(`nsenter .*`).FindString(p.log())
				if out, err := exec.Command("sh", "-c", look).CombinedOutput(); err != nil || !strings.Contains(string(out), "10.128.0.1/30") {
					t.Errorf("%s: %v: %s", look, err, out)
				}
				if sig == unix.SIGKILL {
					p.cmd.Process.Kill()
				} else if err := p.terminate(sig); err != nil {
					t.Errorf("%v\n%s", err, p.log())
				} else if !strings.Contains(p.log(), "The demo has ended") {
					t.Errorf("it didn't print that it ended:\n%s", p.log())
				}
				// Before its pipe is closed, which would end what was left too.
				if err := within(waitLimit/2, func() error {
					if err := p.status(&s); err == nil {
						return errors.New("the page is still there")
					}
					return nil
				}); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestTwoDemos asks: do two demos work at the same time, with the same addresses inside?
func TestTwoDemos(t *testing.T) {
	needNamespaces(t)
	checkHostUnchanged(t)
	a, b := showPage(t, nil), showPage(t, nil)
	for _, p := range []page{a, b, a} {
		var s struct{ Handshakes int }
		if err := within(waitLimit, func() error { return p.status(&s) }); err != nil || s.Handshakes != 1 {
			t.Errorf("%s: %v, %d handshakes", p.url, err, s.Handshakes)
		}
	}
	if err := errors.Join(a.terminate(os.Interrupt), b.terminate(os.Interrupt)); err != nil {
		t.Error(err)
	}
}

// TestDemoRefused asks: where namespaces can't be made, does the demo print one line that says what to do? It runs in user
// namespaces in which no others may be made.
func TestDemoRefused(t *testing.T) {
	needNamespaces(t)
	checkHostUnchanged(t)
	const none = "echo 0 >/proc/sys/user/max_%s_namespaces && exec "
	for name, c := range map[string]struct{ script, want string }{
		"no user namespaces":    {fmt.Sprintf(none, "user") + "setpriv --bounding-set=-sys_admin --inh-caps=-all ", "lets users make no user namespaces"},
		"no network namespaces": {fmt.Sprintf(none, "net"), "max_net_namespaces"},
		"no TUN device":         {"mount -t tmpfs none /dev/net && exec ", `load the kernel's module with "modprobe tun"`},
		"powerless users":       {"exec setpriv --bounding-set=-net_admin --inh-caps=-all env THROUGHLINE_DEMO_OWN_ROOT=1 ", "no capabilities in their own user namespaces"},
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			out, err := exec.Command("unshare", "--map-root-user", "--mount", "sh", "-c", c.script+ours.path()+" demo --tun --once").CombinedOutput()
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.ExitCode() != 1 || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), c.want) || !strings.Contains(string(out), "leave --tun out") {
				t.Errorf("after %v: %v: %s", time.Since(begin), err, out)
			}
			// Without --tun it needs nothing.
			if name == "powerless users" {
				if out, err := exec.Command("unshare", "--map-root-user", "sh", "-c", c.script+ours.path()+" demo --once").CombinedOutput(); err != nil {
					t.Errorf("without --tun: %v: %s", err, out)
				}
			}
		})
	}
}
