package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"throughline/endpoint"
)

// TestProxyHidesItsMemory holds that a process of the proxy's own user can't read its memory: by reading it as that user.
func TestProxyHidesItsMemory(t *testing.T) {
	u := newTunnel(t, "127.0.0.1")
	startProxy(t, u.server, "", endpoint.System)
	as := &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		as.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	text, err := os.ReadFile(u.client)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "") // t.TempDir's parents are for this user only
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for name, content := range map[string][]byte{"conf": text, "program": self} {
		if err := os.WriteFile(dir+"/"+name, content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}

	cmd := program(t, "proxy", dir+"/conf")
	cmd.Path, cmd.Args[0], cmd.Dir, cmd.SysProcAttr = dir+"/program", dir+"/program", dir, as
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	roundTrip(t, dial(t, u.forward), "to a program that hides")

	// The same for a process that doesn't hide, or the test would see nothing.
	open := exec.Command("sleep", "60")
	open.Dir, open.SysProcAttr = dir, as
	if err := open.Start(); err != nil {
		t.Fatal(err)
	}
	defer open.Process.Kill()
	for _, c := range []struct {
		pid  int
		want bool
	}{{open.Process.Pid, true}, {cmd.Process.Pid, false}} {
		read := exec.Command("head", "-c", "1", fmt.Sprintf("/proc/%d/maps", c.pid))
		read.Dir, read.SysProcAttr = dir, as
		out, err := read.CombinedOutput()
		if (err == nil && len(out) == 1) != c.want {
			t.Errorf("process %d: its memory can be read: %v (%q, %v), want %v", c.pid, !c.want, out, err, c.want)
		}
	}
	info, err := os.Stat(fmt.Sprintf("/proc/%d/mem", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 {
		t.Errorf("/proc/%d/mem belongs to user %d", cmd.Process.Pid, owner)
	}
}
