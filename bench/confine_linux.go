package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// confine runs the inner half in a mount and a network namespace of its own, with a private /run, and hands on what it
// sends. Whatever happens to either half, even SIGKILL, the namespaces go with the last process in them, and every
// process there dies with the one that started it: nothing can be left behind, and the machine's tunnels aren't in reach.
func confine(ctx context.Context, p plan, progress io.Writer, add func(event)) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, verbInside)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(text), progress
	dieWithUs(cmd)
	cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWNET // os/exec makes the mounts private
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second // for the inner half to take the beds down
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start in namespaces of its own: %w", err)
	}
	var broken error
	for dec := json.NewDecoder(out); ; {
		var e event
		if broken = dec.Decode(&e); broken != nil {
			break
		}
		add(e)
	}
	if errors.Is(broken, io.EOF) {
		broken = nil
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("the measurement ended early: %w", err)
	}
	return broken
}

// dieWithUs makes sure that a child doesn't outlive this process.
func dieWithUs(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// habitable makes the mount namespace fit to live in: an empty /run, where ip-netns(8) keeps its names and the
// programs their sockets.
func habitable() error {
	for _, dir := range []string{"/run", "/var/run"} {
		if st, err := os.Lstat(dir); err != nil || !st.IsDir() {
			continue // /var/run is a link to /run on most systems
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount a private %s: %w", dir, err)
		}
	}
	return nil
}
