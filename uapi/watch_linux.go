package uapi

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A watch waits for changes in a directory, by inotify.
type watch struct {
	wg sync.WaitGroup // the goroutine that calls run
	f  *os.File
}

func newWatch(dir string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	const what = unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, dir, what); err != nil {
		f.Close()
		return nil, os.NewSyscallError("inotify_add_watch", err)
	}
	return &watch{f: f}, nil
}

// run calls gone, at once and after each change, until it returns true, and then returns true. It returns false when the
// watch is stopped.
func (w *watch) run(gone func() bool) bool {
	var events [16 * (unix.SizeofInotifyEvent + unix.NAME_MAX + 1)]byte // their content doesn't matter
	for !gone() {
		if _, err := w.f.Read(events[:]); err != nil {
			return false
		}
	}
	return true
}

// stop ends run and waits for it.
func (w *watch) stop() {
	w.f.Close()
	w.wg.Wait()
}
