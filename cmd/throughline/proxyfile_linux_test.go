package main

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestProxyUnprivileged starts the proxy without any capability, with the file that wg-quick saved for a default route: the
// kernel would refuse its mark.
func TestProxyUnprivileged(t *testing.T) {
	address := "127.0.0.1:" + freePort(t, "tcp")
	path := writeFile(t, "wg0.conf", quickFile("[Socks5]\nBindAddress = "+address+"\n"))
	var stderr bytes.Buffer
	cmd := program(t, "proxy", path)
	cmd.Stderr = &stderr
	if os.Geteuid() == 0 { // in a user namespace of its own root has no privileges over this one's network
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: []syscall.SysProcIDMap{{Size: 1}}}
	}
	if err := cmd.Start(); errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skip("this system has no user namespaces:", err)
	} else if err != nil {
		t.Fatal(err)
	}
	dial(t, address)
	cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil || strings.Count(stderr.String(), "without meaning") != 1 || !strings.Contains(stderr.String(), quickKeys) {
		t.Errorf("%v, %q", err, &stderr)
	}
}
