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

	"golang.org/x/sys/unix"
)

// ready is the line with which the daemon in the background reports that it is ready.
const ready = "ready"

// background starts this program again in the background and returns when it is ready: the interface and the socket are
// there. If it fails before that, background returns its error, so that the process in the foreground prints it.
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
	if d.logInBackground {
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	}
	// Descriptors from the environment keep their numbers, so that errors about them are understood.
	for variable, fd := range map[string]int{tunFD: d.tunFD, uapiFD: d.uapiFD} {
		switch {
		case fd == 0:
			cmd.Stdin = os.Stdin
		case fd == 1 || fd == 2:
			return fmt.Errorf("%s is %d, which can't be passed to the background: use another descriptor, or -f", variable, fd)
		case fd > 2:
			pass(cmd, fd-3, os.NewFile(uintptr(fd), variable))
		}
	}
	free := 0
	for free < len(cmd.ExtraFiles) && cmd.ExtraFiles[free] != nil {
		free++
	}
	pass(cmd, free, w)
	cmd.Env = append(cmd.Env, readyFD+"="+strconv.Itoa(3+free))
	if err := cmd.Start(); err != nil {
		w.Close()
		return fmt.Errorf("start in the background: %w", err)
	}
	w.Close()
	report, err := bufio.NewReader(io.LimitReader(r, 4<<10)).ReadString('\n')
	switch report = strings.TrimSuffix(report, "\n"); {
	case report == ready:
		return cmd.Process.Release()
	case report != "":
		err = errors.New(report)
	case err != nil:
		err = errors.New("the process in the background ended before it was ready")
	}
	cmd.Wait()
	return err
}

// pass makes f the command's i-th extra file, its descriptor 3+i.
func pass(cmd *exec.Cmd, i int, f *os.File) {
	for len(cmd.ExtraFiles) <= i {
		cmd.ExtraFiles = append(cmd.ExtraFiles, nil)
	}
	cmd.ExtraFiles[i] = f
}

// isOpen reports whether fd is the number of an open descriptor.
func isOpen(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}

// isPipe reports whether fd is the number of an open descriptor of a pipe.
func isPipe(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO
}

// runReporting runs the daemon in the background, and reports over the pipe that it is ready, or why it failed.
func (d *daemon) runReporting() error {
	fd, err := strconv.Atoi(os.Getenv(readyFD))
	if err != nil || fd < 3 || !isPipe(fd) {
		return fmt.Errorf("%s is set, but not by this program: unset it", readyFD)
	}
	syscall.CloseOnExec(fd)
	w := os.NewFile(uintptr(fd), "ready")
	starting := true
	err = d.run(func() {
		fmt.Fprintln(w, ready)
		w.Close()
		starting = false
	})
	if err != nil && starting {
		fmt.Fprintln(w, oneLine(err))
		return errReported
	}
	return err
}
