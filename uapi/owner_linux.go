package uapi

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// peerOf returns the process that listens where conn is connected to, 0 if it isn't known.
func peerOf(conn *net.UnixConn) int {
	rc, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	var cred *unix.Ucred
	cerr := rc.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if cerr != nil || err != nil {
		return 0
	}
	return int(cred.Pid)
}

// hasTUN reports whether a process is known to have the TUN interface called name, wherever it was moved to: the kernel
// tells it of each open file of /dev/net/tun. This process is taken to have it.
func hasTUN(pid int, name string) bool {
	if pid == os.Getpid() {
		return true
	}
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	files, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return false
	}
	for _, f := range files {
		if to, err := os.Readlink(filepath.Join(proc, "fd", f.Name())); err != nil || to != "/dev/net/tun" {
			continue
		}
		info, err := os.ReadFile(filepath.Join(proc, "fdinfo", f.Name()))
		if err == nil && bytes.Contains(info, []byte("\niff:\t"+name+"\n")) {
			return true
		}
	}
	return false
}
