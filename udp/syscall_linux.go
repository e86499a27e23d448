package udp

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A kernel is the system calls that move data; tests put faults there.
//
// The headers, and all they point to, must lie on the heap: the kernel is given addresses, and a stack may move.
// (Go's heap doesn't move, and a header holds real pointers, so that what it points to lives as long as it does.)
type kernel interface {
	recvmsg(fd uintptr, m *unix.Msghdr) (n int, errno syscall.Errno)
	recvmmsg(fd uintptr, ms []unix.Mmsghdr) (n int, errno syscall.Errno)
	sendmmsg(fd uintptr, ms []unix.Mmsghdr) (n int, errno syscall.Errno)
}

// syscalls is the kernel itself.
type syscalls struct{}

func (syscalls) recvmsg(fd uintptr, m *unix.Msghdr) (int, syscall.Errno) {
	// Safe: m is converted in the call's argument list (rule 4 of package unsafe), and all it points to is reachable
	// from m, which is alive until the call is over.
	n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(m)), unix.MSG_DONTWAIT)
	runtime.KeepAlive(m)
	return int(n), errno
}

func (syscalls) recvmmsg(fd uintptr, ms []unix.Mmsghdr) (int, syscall.Errno) {
	// Safe: as above; len(ms) headers lie behind the first.
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(unsafe.SliceData(ms))),
		uintptr(len(ms)), unix.MSG_DONTWAIT, 0, 0)
	runtime.KeepAlive(ms)
	return int(n), errno
}

func (syscalls) sendmmsg(fd uintptr, ms []unix.Mmsghdr) (int, syscall.Errno) {
	// Safe: as above.
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(unsafe.SliceData(ms))),
		uintptr(len(ms)), unix.MSG_DONTWAIT, 0, 0)
	runtime.KeepAlive(ms)
	return int(n), errno
}
