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

// ordinary are the words before a command that make its user nobody, with no privileges. They end the test where that
// can't be: in a user namespace there is one user only. Where the machine keeps the TUN's device to root, the command sees
// one that is everybody's, as it is on most machines, in a mount namespace of its own.
func ordinary(t *testing.T) []string {
	t.Helper()
	nobody := []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}
	if out, err := exec.Command(nobody[0], append(nobody[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("no other user here: %s", out)
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

// surroundings are what a demo must leave as it found it: interfaces, addresses, routes, and what can keep a namespace
// without a process: a name, or a mount.
func surroundings(t *testing.T) string {
	t.Helper()
	text := must(t, "ip", "-oneline", "address") + must(t, "ip", "route") + must(t, "ip", "rule") + must(t, "ip", "netns")
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return text + string(mounts)
}

// undisturbed holds that what is when the test ends is what was.
func undisturbed(t *testing.T) {
	t.Helper()
	before := surroundings(t)
	t.Cleanup(func() {
		if err := eventually(func() error {
			if after := surroundings(t); after != before {
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

// demos are the processes of demos with TUNs.
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

// as are who runs a demo: this user, with privileges, and one without.
var as = map[string]func(t *testing.T) []string{
	"privileged": func(*testing.T) []string { return nil },
	"ordinary":   ordinary,
}

func demoCommand(who []string, args ...string) *exec.Cmd {
	words := append(append(slices.Clone(who), ours.path(), "demo", "--tun"), args...)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.WaitDelay = patient // for a process that outlives its parent, which is what the tests look for
	return cmd
}

// TestDemoOnce asks: does the fixed load go through the kernel's TUNs, every byte intact?
func TestDemoOnce(t *testing.T) {
	needNamespaces(t)
	for name, who := range as {
		t.Run(name, func(t *testing.T) {
			who := who(t)
			undisturbed(t)
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

// A page is a demo that serves.
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

// status asks for a status of the page, by a connection of its own.
func (p page) status(into any) error {
	c := http.Client{Timeout: patient, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(p.url + "status.json")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}

// TestDemoEnds asks: is everything gone after ^C, after a polite end, and after one that nobody can prepare for?
func TestDemoEnds(t *testing.T) {
	needNamespaces(t)
	for name, who := range as {
		for _, sig := range []syscall.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGKILL} {
			t.Run(name+"/"+unix.SignalName(sig), func(t *testing.T) {
				who := who(t)
				undisturbed(t)
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
				// The command that it says leads to the interface.
				look := regexp.MustCompile(`nsenter .*`).FindString(p.log())
				if out, err := exec.Command("sh", "-c", look).CombinedOutput(); err != nil || !strings.Contains(string(out), "10.128.0.1/30") {
					t.Errorf("%s: %v: %s", look, err, out)
				}
				if sig == unix.SIGKILL {
					p.cmd.Process.Kill()
				} else if err := p.terminate(sig); err != nil {
					t.Errorf("%v\n%s", err, p.log())
				} else if !strings.Contains(p.log(), "The demo has ended") {
					t.Errorf("it said nothing of its end:\n%s", p.log())
				}
				// Before its pipe is closed, which would end what was left too.
				if err := within(patient/2, func() error {
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

// TestTwoDemos asks: do two at once get along, with the same addresses inside?
func TestTwoDemos(t *testing.T) {
	needNamespaces(t)
	undisturbed(t)
	a, b := showPage(t, nil), showPage(t, nil)
	for _, p := range []page{a, b, a} {
		var s struct{ Handshakes int }
		if err := within(patient, func() error { return p.status(&s) }); err != nil || s.Handshakes != 1 {
			t.Errorf("%s: %v, %d handshakes", p.url, err, s.Handshakes)
		}
	}
	if err := errors.Join(a.terminate(os.Interrupt), b.terminate(os.Interrupt)); err != nil {
		t.Error(err)
	}
}

// TestDemoRefused asks: is one line said, with what to do, where namespaces can't be had? It runs in user namespaces that
// are forbidden to have others inside.
func TestDemoRefused(t *testing.T) {
	needNamespaces(t)
	undisturbed(t)
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
