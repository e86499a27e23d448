//go:build unix

package uapi

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxName is the longest name of an interface, in bytes: IFNAMSIZ less its final zero.
const maxName = 15

// A Listener is the socket by which wg(8) finds an interface. Its methods are safe for concurrent use.
type Listener struct {
	*net.UnixListener
	path    string
	file    os.FileInfo   // of the socket as it was made: Close doesn't remove what another process put in its place
	removed chan struct{} // closed by the watch's goroutine
	watch   *watch

	close    sync.Once
	closeErr error
}

// Listen makes the socket of the interface called name in [Dir]. Only its owner can connect. A socket that nobody listens
// on is replaced; if a process listens on it, the error wraps [syscall.EADDRINUSE]. The caller, or [Serve], closes the
// Listener.
func Listen(name string) (*Listener, error) { return ListenDir(Dir, name) }

// ListenDir is [Listen] in another directory, which is made, for its owner only, when it isn't there.
func ListenDir(dir, name string) (*Listener, error) {
	path, err := socketPath(dir, name)
	if err != nil {
		return nil, err
	}
	if err := makeDir(filepath.Clean(dir)); err != nil {
		return nil, fmt.Errorf("uapi: %w", err)
	}
	// Two processes that find the same socket without a listener must not both replace it.
	lock, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("uapi: %w", err)
	}
	defer lock.Close()
	if err := flock(lock); err != nil {
		return nil, fmt.Errorf("uapi: lock %s: %w", dir, err)
	}
	if err := vacant(path, name); err != nil {
		return nil, err
	}
	ul, err := listenAt(dir, path)
	if err != nil {
		return nil, fmt.Errorf("uapi: listen at %s: %w", path, err)
	}
	l, err := newListener(ul, path)
	if err != nil {
		ul.Close()
		os.Remove(path)
		return nil, err
	}
	return l, nil
}

// makeDir makes a directory for its owner only. Those above it are open to all users: other programs keep their sockets in
// /var/run.
func makeDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	return os.MkdirAll(dir, 0o700)
}

// FromFile takes over the socket of the interface called name in [Dir] from the process that made it and passed its open
// file on; see [Listener.Detach]. FromFile closes the file, also with an error.
func FromFile(f *os.File, name string) (*Listener, error) { return FromFileDir(f, Dir, name) }

// FromFileDir is [FromFile] for a socket in another directory.
func FromFileDir(f *os.File, dir, name string) (*Listener, error) {
	defer f.Close()
	path, err := socketPath(dir, name)
	if err != nil {
		return nil, err
	}
	fl, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("uapi: file %s: %w", f.Name(), err)
	}
	ul, ok := fl.(*net.UnixListener)
	if !ok || !listening(ul) {
		fl.Close()
		return nil, fmt.Errorf("uapi: file %s: not a listening Unix socket", f.Name())
	}
	ul.SetUnlinkOnClose(false)
	l, err := newListener(ul, path)
	if err != nil {
		ul.Close()
		return nil, err
	}
	return l, nil
}

// newListener returns the Listener of a socket at path, and watches for its removal.
func newListener(ul *net.UnixListener, path string) (*Listener, error) {
	file, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("uapi: %w", err)
	}
	l := &Listener{UnixListener: ul, path: path, file: file, removed: make(chan struct{})}
	l.watch, err = newWatch(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("uapi: watch %s: %w", path, err)
	}
	l.watch.wg.Go(func() {
		if l.watch.run(func() bool { return !l.there() }) {
			close(l.removed)
		}
	})
	return l, nil
}

// Path returns the path of the socket.
func (l *Listener) Path() string { return l.path }

// Addr returns the path of the socket as a *net.UnixAddr. The kernel knows another, at which the socket was made.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Removed returns a channel that is closed when the socket is removed or replaced, which is how an operator asks a daemon
// to end. It stays open when the Listener is closed.
func (l *Listener) Removed() <-chan struct{} { return l.removed }

// Close closes the socket and removes it, unless another file has taken its place. It may be called more than once.
func (l *Listener) Close() error { return l.end(true) }

// Detach closes the socket in this process and leaves it at its path, for another process that has got its open file,
// which the method File of [net.UnixListener] returns, and called [FromFile].
func (l *Listener) Detach() error { return l.end(false) }

// end closes the socket once, and removes it if asked to.
func (l *Listener) end(remove bool) error {
	l.close.Do(func() {
		l.watch.stop()
		if remove && l.there() {
			l.closeErr = os.Remove(l.path)
		}
		l.closeErr = errors.Join(l.closeErr, l.UnixListener.Close())
	})
	return l.closeErr
}

// there reports whether the socket is still at its path.
func (l *Listener) there() bool {
	file, err := os.Lstat(l.path)
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	return os.SameFile(file, l.file)
}

// Dial connects to the tunnel of the interface called name, by its socket in [Dir]. It needs the
// privileges of the socket's owner.
func Dial(name string) (*Client, error) { return DialDir(Dir, name) }

// DialDir is [Dial] in another directory.
func DialDir(dir, name string) (*Client, error) {
	path, err := socketPath(dir, name)
	if err != nil {
		return nil, err
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, fmt.Errorf("uapi: %w", err)
	}
	return NewClient(conn), nil
}

// socketPath returns the path of the socket of the interface called name. Names that the kernel allows no interface
// (dev_valid_name) are refused, as they could lead out of dir.
func socketPath(dir, name string) (string, error) {
	odd := func(r rune) bool { return r <= ' ' || r == 0x7f || r == '/' || r == ':' }
	if name == "" || len(name) > maxName || name == "." || name == ".." || strings.ContainsFunc(name, odd) {
		return "", fmt.Errorf("uapi: %q is not the name of an interface: %w", name, syscall.EINVAL)
	}
	return filepath.Join(dir, name+".sock"), nil
}

// vacant returns nil when a socket can be put at path: there is no file, or a socket without a listener.
func vacant(path, name string) error {
	file, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("uapi: %w", err)
	case file.Mode().Type() != os.ModeSocket:
		return fmt.Errorf("uapi: %s is there and not a socket: %w", path, syscall.EADDRINUSE)
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("uapi: %s is in use by another process (%s answers): %w", name, path, syscall.EADDRINUSE)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
		return nil
	case errors.Is(err, syscall.EAGAIN): // its queue is full, so it has a listener
		return fmt.Errorf("uapi: %s is in use by another process (%s is busy): %w", name, path, syscall.EADDRINUSE)
	}
	return fmt.Errorf("uapi: %w", err)
}

// listenAt makes a socket at path, in place of what is there. It is made in a directory that no other user can enter, and
// is moved to its path when it has its mode and listens: between bind and listen wg(8) would remove it, as one without a
// listener. So the process's umask, which other goroutines' files depend on, is left alone.
func listenAt(dir, path string) (*net.UnixListener, error) {
	private, err := os.MkdirTemp(dir, ".")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	at := filepath.Join(private, "s")
	ul, err := net.ListenUnix("unix", &net.UnixAddr{Name: at, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ul.SetUnlinkOnClose(false)
	if err = os.Chmod(at, 0o600); err == nil {
		err = os.Rename(at, path)
	}
	if err != nil {
		ul.Close()
		return nil, err
	}
	return ul, nil
}

// listening reports whether connections can be accepted from ul.
func listening(ul *net.UnixListener) bool {
	rc, err := ul.SyscallConn()
	if err != nil {
		return false
	}
	yes := 0
	cerr := rc.Control(func(fd uintptr) { yes, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN) })
	return cerr == nil && err == nil && yes != 0
}
