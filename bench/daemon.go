package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A daemon is a program that runs at one side of a bed.
type daemon struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the program has ended

	mu   sync.Mutex
	last []byte // the end of its output; guarded by mu
}

// launch starts a daemon. The caller calls end. A goroutine waits for the program, and ends with it.
func launch(cmd *exec.Cmd) (*daemon, error) {
	d := &daemon{cmd: cmd, done: make(chan struct{})}
	cmd.Env = append(os.Environ(), "WG_PROCESS_FOREGROUND=1", "LOG_LEVEL=error")
	cmd.Stdout, cmd.Stderr = d, d
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		cmd.Wait()
		close(d.done)
	}()
	return d, nil
}

// Write keeps the end of the daemon's output.
func (d *daemon) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	const keep = 2 << 10
	d.last = append(d.last, p...)
	if over := len(d.last) - keep; over > 0 {
		d.last = d.last[over:]
	}
	return len(p), nil
}

// output returns the end of the daemon's output.
func (d *daemon) output() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.last) == 0 {
		return "nothing"
	}
	return string(d.last)
}

// alive returns an error if the daemon has ended.
func (d *daemon) alive() error {
	select {
	case <-d.done:
		return fmt.Errorf("the program ended (%v); it printed: %s", d.cmd.ProcessState, d.output())
	default:
		return nil
	}
}

// end ends the daemon, by SIGKILL if SIGTERM doesn't.
func (d *daemon) end() {
	d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
	case <-time.After(3 * time.Second):
		d.cmd.Process.Kill()
		<-d.done
	}
}

// memory returns a figure of /proc/PID/status, in MiB, of the side where it is larger.
func (b *bed) memory(key string) (float64, error) {
	largest := 0.0
	for _, s := range b.sides() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.daemon.cmd.Process.Pid))
		if err != nil {
			return 0, err
		}
		kib, err := statusKiB(string(text), key)
		if err != nil {
			return 0, err
		}
		largest = max(largest, kib/1024)
	}
	return largest, nil
}

// cpu returns the processor time that both programs have used since they were started, in seconds.
func (b *bed) cpu() (float64, error) {
	sum := 0.0
	for _, s := range b.sides() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.daemon.cmd.Process.Pid))
		if err != nil {
			return 0, err
		}
		secs, err := statSeconds(string(text))
		if err != nil {
			return 0, err
		}
		sum += secs
	}
	return sum, nil
}

// statusKiB returns a figure of /proc/PID/status, such as VmHWM. proc_pid_status(5).
func statusKiB(text, key string) (float64, error) {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			if f := strings.Fields(value); len(f) == 2 && f[1] == "kB" {
				return strconv.ParseFloat(f[0], 64)
			}
		}
	}
	return 0, fmt.Errorf("no %s in /proc/PID/status", key)
}

// ticks is how many units of /proc's times make a second: USER_HZ, which is 100 on every architecture that Go supports.
const ticks = 100

// statSeconds returns utime plus stime of /proc/PID/stat. proc_pid_stat(5): fields 14 and 15; the second is the name, which
// may hold spaces and brackets.
func statSeconds(text string) (float64, error) {
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/PID/stat has %d fields after the name", len(f))
	}
	user, err := strconv.ParseUint(f[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseUint(f[12], 10, 64)
	return float64(user+system) / ticks, err
}
