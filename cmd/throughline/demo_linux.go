package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// hasNamespaces says whether this system has network namespaces.
const hasNamespaces = true

// mayUseNamespaces reports whether this process has the capabilities that demo --tun needs: for namespaces, interfaces and
// pings.
func mayUseNamespaces() bool {
	const needed = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW
	var caps [2]unix.CapUserData
	err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &caps[0])
	return err == nil && caps[0].Effective&needed == needed
}

// enterCommand returns the command that runs another in a network namespace of this process.
func enterCommand(path string) string {
	if os.Getenv(ownRoot) != "" {
		return fmt.Sprintf("nsenter --user=/proc/%d/ns/user --preserve-credentials --net=%s", os.Getpid(), path)
	}
	return "nsenter --net=" + path
}

// inUserNamespace runs this program again as root of a new user namespace, if the system lets the user make one, and waits
// for its end. There it has all capabilities, but only over what it makes itself. It stays in this network namespace.
func inUserNamespace(ctx context.Context, args []string) error {
	if os.Getenv(ownRoot) != "" {
		return fmt.Errorf("demo: --tun: this system gives users no capabilities in their own user namespaces; %s", withoutPrivileges)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append([]string{"demo"}, args...)...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), ownRoot+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	runtime.LockOSThread() // Pdeathsig is sent when this thread ends, not the process
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		errno, _ := errors.AsType[syscall.Errno](err)
		return fmt.Errorf("demo: --tun: this system lets users make no user namespaces (%w); %s", errno, withoutPrivileges)
	}
	if err := cmd.Wait(); !cmd.ProcessState.Success() {
		if cmd.ProcessState.Exited() {
			return errReported
		}
		return fmt.Errorf("demo: --tun: the process in the user namespace: %w", err)
	}
	return nil
}
