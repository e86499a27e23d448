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

// confine runs the inner half in a mount and a network namespace of its own, with a private /run, and calls add with each
// event that it sends. Each process there is killed when the one that started it ends, even by SIGKILL, and the namespaces
// end with the last process in them. So nothing can be left, and the machine's own tunnels can't be touched.
func confine(ctx context.Context, p plan, progress io.Writer, add func(event)) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, cmdInside)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(text), progress
	killWithParent(cmd)
	cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWNET // os/exec makes mounts in it invisible outside
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second // for the inner half to remove the beds
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the measurement in new namespaces: %w", err)
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

// killWithParent has the kernel kill a child when this process ends.
func killWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// mountPrivateRun mounts an empty /run, where ip-netns(8) keeps the names of namespaces, and programs their sockets.
func mountPrivateRun() error {
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
