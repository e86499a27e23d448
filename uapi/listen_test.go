//go:build unix

package uapi

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"throughline/wgtypes"
)

// socketDir returns a directory whose name is short enough for addresses of sockets.
func socketDir(t testing.TB) string {
	t.Helper()
	top, err := os.MkdirTemp("/tmp", "uapi")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	return filepath.Join(top, "wireguard")
}

func mustListen(t testing.TB, dir, name string) *Listener {
	t.Helper()
	l, err := ListenDir(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// serveOn serves dev on l until the test ends, and returns a function that ends it before.
func serveOn(t testing.TB, l *Listener, dev Device) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, dev, nil) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// TestListenMakesDirectories checks that only its owner can enter the directory, but all users those above it, as /var/run.
func TestListenMakesDirectories(t *testing.T) {
	top := socketDir(t)
	dir := filepath.Join(top, "run", "wireguard")
	old := unix.Umask(0o022)
	mustListen(t, dir+"/", "wg0")
	unix.Umask(old)
	for path, want := range map[string]fs.FileMode{top: 0o755, filepath.Dir(dir): 0o755, dir: 0o700} {
		if f, err := os.Stat(path); err != nil || f.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", path, f.Mode(), err, want)
		}
	}
}

func TestListen(t *testing.T) {
	dir := socketDir(t)
	old := unix.Umask(0) // the least restrictive
	l := mustListen(t, dir, "wg0")
	unix.Umask(old)

	if want := filepath.Join(dir, "wg0.sock"); l.Path() != want || l.Addr().String() != want {
		t.Errorf("at %s, %s, want %s", l.Path(), l.Addr(), want)
	}
	for path, want := range map[string]fs.FileMode{dir: fs.ModeDir | 0o700, l.Path(): fs.ModeSocket | 0o600} {
		if f, err := os.Lstat(path); err != nil || f.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", path, f.Mode(), err, want)
		}
	}
	if names, _ := filepath.Glob(filepath.Join(dir, ".*")); len(names) > 2 { // . and .. may be among them
		t.Errorf("left behind: %q", names)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}

	dev := &model{st: fullStatus}
	stop := serveOn(t, l, dev)
	c, err := DialDir(dir, "wg0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if st, err := c.Get(); err != nil || !reflect.DeepEqual(st, fullStatus) {
		t.Errorf("got %+v, %v", st, err)
	}
	if err := c.Set(fullConfig); err != nil {
		t.Error(err)
	}

	_, err = ListenDir(dir, "wg0")
	want := "uapi: wg0 is in use by another process (" + l.Path() + " answers): address already in use"
	if !errors.Is(err, syscall.EADDRINUSE) || err.Error() != want {
		t.Errorf("listening twice: %v\nwant %s", err, want)
	}
	other := mustListen(t, dir, "wg1")
	select {
	case <-l.Removed():
		t.Error("wg1 was made, and wg0 is reported as removed")
	default:
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}

	stop()
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("after Close there is %v", entries)
	}
	if err := l.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	select {
	case <-l.Removed():
		t.Error("Close is reported as a removal")
	default:
	}
	if _, err := c.Get(); err == nil {
		t.Error("the connection is still there")
	}
	if _, err := DialDir(dir, "wg0"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("dial after the end: %v", err)
	}
}

func TestListenReplacesASocketWithoutListener(t *testing.T) {
	dir := socketDir(t)
	dead := mustListen(t, dir, "wg0")
	if err := dead.Detach(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dead.Path()); err != nil {
		t.Fatal("Detach removed the socket:", err)
	}
	l := mustListen(t, dir, "wg0")
	serveOn(t, l, &model{})
	c, err := DialDir(dir, "wg0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Get(); err != nil {
		t.Error(err)
	}
}

// TestListenAtOnce starts many listeners at once where a socket without a listener is: one gets it.
func TestListenAtOnce(t *testing.T) {
	const rounds, n = 20, 8
	dir := socketDir(t)
	for range rounds {
		mustListen(t, dir, "wg0").Detach()
		var wg sync.WaitGroup
		got := make([]*Listener, n)
		for i := range n {
			wg.Go(func() {
				var err error
				if got[i], err = ListenDir(dir, "wg0"); err != nil && !errors.Is(err, syscall.EADDRINUSE) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		winners := 0
		for _, l := range got {
			if l != nil {
				winners++
				l.Close()
			}
		}
		if winners != 1 {
			t.Fatalf("%d got the socket", winners)
		}
	}
}

func TestListenLeavesFilesAlone(t *testing.T) {
	dir := socketDir(t)
	os.Mkdir(dir, 0o755)
	path := filepath.Join(dir, "wg0.sock")
	target := filepath.Join(dir, "precious")
	os.WriteFile(target, []byte("x"), 0o600)
	for what, make := range map[string]func() error{
		"file":      func() error { return os.WriteFile(path, nil, 0o600) },
		"directory": func() error { return os.Mkdir(path, 0o700) },
		"link":      func() error { return os.Symlink(target, path) },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if l, err := ListenDir(dir, "wg0"); err == nil {
			l.Close()
			t.Errorf("a %s was replaced", what)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("the %s is gone: %v", what, err)
		}
		os.Remove(path)
	}
	if f, _ := os.Lstat(dir); f.Mode().Perm() != 0o755 {
		t.Errorf("the mode of a directory that was there is %v now", f.Mode())
	}
}

func TestNames(t *testing.T) {
	dir := socketDir(t)
	for _, name := range []string{"", ".", "..", "a/b", "/", "../wg0", "sixteen-bytes-xx", "a b", "a\n", "a\x00b", "a:b", "a\x7f"} {
		if l, err := ListenDir(dir, name); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("listen as %q: %v", name, err)
			if l != nil {
				l.Close()
			}
		}
		if _, err := DialDir(dir, name); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("dial %q: %v", name, err)
		}
		f, _ := os.Open(os.DevNull)
		if _, err := FromFileDir(f, dir, name); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("take over %q: %v", name, err)
		}
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("an invalid name made a directory")
	}
	for _, name := range []string{"a", "wg0", "fifteen-bytes-x", "utun7", "...", "wg_0.1-x"} {
		mustListen(t, dir, name)
	}
}

func TestRemoved(t *testing.T) {
	for name, remove := range map[string]func(path string) error{
		"removed":            os.Remove,
		"renamed":            func(path string) error { return os.Rename(path, path+".old") },
		"replaced":           func(path string) error { return os.WriteFile(path+".new", nil, 0o600) },
		"with its directory": func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
	} {
		t.Run(name, func(t *testing.T) {
			l := mustListen(t, socketDir(t), "wg0")
			stop := serveOn(t, l, &model{})
			if err := remove(l.Path()); err != nil {
				t.Fatal(err)
			}
			if name == "replaced" {
				if err := os.Rename(l.Path()+".new", l.Path()); err != nil {
					t.Fatal(err)
				}
			}
			<-l.Removed()
			stop()
			if _, err := os.Lstat(l.Path()); name == "replaced" && err != nil {
				t.Error("Close removed another process's file:", err)
			}
		})
	}
}

// TestFromFile passes a socket on as a parent process does to its daemon.
func TestFromFile(t *testing.T) {
	dir := socketDir(t)
	parent := mustListen(t, dir, "wg0")
	f, err := parent.File()
	if err != nil {
		t.Fatal(err)
	}
	l, err := FromFileDir(f, dir, "wg0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Stat(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("the file is still open: %v", err)
	}
	if err := parent.Detach(); err != nil {
		t.Fatal(err)
	}
	dev := &model{}
	stop := serveOn(t, l, dev)
	c, err := DialDir(dir, "wg0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Set(wgtypes.Config{ListenPort: new(uint16(7))}); err != nil || dev.Status().ListenPort != 7 {
		t.Errorf("set: %v", err)
	}
	os.Remove(l.Path())
	<-l.Removed()
	stop()
}

func TestFromFileRefuses(t *testing.T) {
	dir := socketDir(t)
	l := mustListen(t, dir, "wg0")
	conn, err := net.Dial("unix", l.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	for name, open := range map[string]func() (*os.File, error){
		"no socket":                    func() (*os.File, error) { return os.Open(os.DevNull) },
		"one not listening":            conn.(*net.UnixConn).File,
		"one of UDP":                   udp.File,
		"one of TCP":                   tcp.(*net.TCPListener).File,
		"a descriptor that isn't open": func() (*os.File, error) { return os.NewFile(1<<20, "nothing"), nil },
	} {
		f, err := open()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := FromFileDir(f, dir, "wg0"); err == nil {
			got.Detach()
			t.Errorf("%s was taken over", name)
		} else if !strings.HasPrefix(err.Error(), "uapi: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := FromFileDir(f, dir, "wg1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a socket under another name than its own: %v", err)
		if got != nil {
			got.Detach()
		}
	}
}
