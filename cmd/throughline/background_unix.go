//go:build unix

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// readyFD names the environment variable by which the daemon in the background learns where to say that it is ready.
const readyFD = "THROUGHLINE_READY_FD"

const ready = "ready"

// background starts the daemon anew in the background and returns when it is ready: the interface and the socket are
// there. What goes wrong before that is said here, in the foreground, and its exit status is ours.
func (d *daemon) background() error {
	if os.Getenv(readyFD) != "" {
		return d.runReporting()
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program to start it in the background: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()

	cmd := exec.Command(self, d.name)
	cmd.Env = os.Environ()
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if d.chatty {
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	}
	give := func(variable string, f *os.File) {
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		cmd.Env = append(cmd.Env, variable+"="+strconv.Itoa(2+len(cmd.ExtraFiles)))
	}
	give(readyFD, w)
	for variable, fd := range map[string]int{tunFD: d.tunFD, uapiFD: d.uapiFD} {
		if fd >= 0 {
			give(variable, os.NewFile(uintptr(fd), variable))
		}
	}
	if err := cmd.Start(); err != nil {
		w.Close()
		return fmt.Errorf("start in the background: %w", err)
	}
	w.Close()
	said, err := bufio.NewReader(io.LimitReader(r, 4<<10)).ReadString('\n')
	switch said = strings.TrimSuffix(said, "\n"); {
	case said == ready:
		return cmd.Process.Release()
	case said != "":
		err = errors.New(said)
	case err != nil:
		err = errors.New("it ended before it was ready")
	}
	cmd.Wait()
	return err
}

// runReporting is the daemon in the background: it runs, and says over the pipe that it is ready, or why not.
func (d *daemon) runReporting() error {
	fd, err := strconv.Atoi(os.Getenv(readyFD))
	if err != nil || fd < 3 {
		return fmt.Errorf("%s is set, but not by this program: unset it", readyFD)
	}
	syscall.CloseOnExec(fd)
	w := os.NewFile(uintptr(fd), "ready")
	listening := true
	err = d.run(func() {
		fmt.Fprintln(w, ready)
		w.Close()
		listening = false
	})
	if err != nil && listening {
		fmt.Fprintln(w, oneLine(err))
		return errSaid
	}
	return err
}
