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
	done chan struct{} // closed when it has ended

	mu   sync.Mutex
	said []byte // the end of what it said; guarded by mu
}

// launch starts a daemon. The goroutine that waits for it ends with it, which end makes sure of.
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

// Write keeps the end of what the daemon says.
func (d *daemon) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	const enough = 2 << 10
	d.said = append(d.said, p...)
	if over := len(d.said) - enough; over > 0 {
		d.said = d.said[over:]
	}
	return len(p), nil
}

// words are the end of what the daemon said.
func (d *daemon) words() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.said) == 0 {
		return "nothing"
	}
	return string(d.said)
}

// alive returns an error if the daemon has ended.
func (d *daemon) alive() error {
	select {
	case <-d.done:
		return fmt.Errorf("the program ended (%v); it said: %s", d.cmd.ProcessState, d.words())
	default:
		return nil
	}
}

// end ends the daemon, by force if it must.
func (d *daemon) end() {
	d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
	case <-time.After(3 * time.Second):
		d.cmd.Process.Kill()
		<-d.done
	}
}

// memory is a line of /proc/PID/status, in MiB, of the side where it is larger.
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

// cpu is the processor time that both programs have taken since they began, in seconds.
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

// statusKiB is a figure of /proc/PID/status, such as VmHWM. proc_pid_status(5).
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

// ticks are how many a second /proc counts in: USER_HZ, which is 100 on every architecture that Go runs on.
const ticks = 100

// statSeconds is utime and stime of /proc/PID/stat. proc_pid_stat(5): fields 14 and 15; the second is the name, which
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
