package interop

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The environment variables of the tests. README.md says what they are for.
const (
	envLong    = "THROUGHLINE_LONG"    // 1: also the tests that take minutes
	envRace    = "THROUGHLINE_RACE"    // 1: the daemon is built with the race detector
	envStandIn = "THROUGHLINE_STANDIN" // 1: wireguard-go also runs in place of our program, which tests the tests

	envInside = "THROUGHLINE_INTEROP_PROGRAMS" // set for the process in the namespaces: the folder of the programs
)

// A program is an implementation to test: the name of its executable in the folder of programs.
type program string

const (
	ours   program = "throughline"
	theirs program = "wireguard-go"
)

func (p program) path() string { return filepath.Join(os.Getenv(envInside), string(p)) }

// errNoNamespaces says why there are no network namespaces to test in. It is nil if there are.
var errNoNamespaces = errors.New("not in the namespaces")

// TestMain builds the programs and then runs the tests in another process, in namespaces of its own: a mount namespace with a
// private /run, and an empty network namespace. They end with that process, however it ends, and so does everything in
// them. Without root this needs a user namespace.
func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(envInside) == "" {
		os.Exit(outside(m))
	}
	if errNoNamespaces = inside(); errNoNamespaces != nil {
		fmt.Fprintln(os.Stderr, "interop:", errNoNamespaces)
		os.Exit(1)
	}
	// Most parallel tests wait for the protocol's timers, not for a processor.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		f.Value.Set("16")
	}
	os.Exit(m.Run())
}

// outside builds the programs and runs the tests in namespaces.
func outside(m *testing.M) int {
	in := []string{"--mount", "--net"}
	if os.Geteuid() != 0 {
		in = append(in, "--map-root-user")
	}
	if out, err := exec.Command("unshare", append(in, "ip", "tuntap", "add", "probe", "mode", "tun")...).CombinedOutput(); err != nil {
		errNoNamespaces = fmt.Errorf("no namespaces with a TUN in them: unshare %s: %v: %s", strings.Join(in, " "), err, strings.TrimSpace(string(out)))
		return m.Run() // tests that need no namespaces still run
	}
	dir, err := os.MkdirTemp("", "throughline-interop-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(os.Chmod(dir, 0o755), build(dir)); err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		return 1
	}
	self := exec.Command("unshare", append(append(in, os.Args[0]), os.Args[1:]...)...)
	self.Env = append(os.Environ(), envInside+"="+dir)
	self.Stdin, self.Stdout, self.Stderr = os.Stdin, os.Stdout, os.Stderr
	self.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = self.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		return 1
	}
	return 0
}

// build builds both programs, ours in its own module, and wireguard-go in the version that go.mod here names.
func build(dir string) error {
	compile := func(p program, args ...string) error {
		cmd := exec.Command("go", append([]string{"build", "-o", filepath.Join(dir, string(p))}, args...)...)
		if p == ours {
			cmd.Dir = ".."
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %v\n%s", p, err, out)
		}
		return nil
	}
	if err := compile(theirs, "golang.zx2c4.com/wireguard"); err != nil {
		return err
	}
	if os.Getenv(envStandIn) == "1" {
		return os.Link(filepath.Join(dir, string(theirs)), filepath.Join(dir, string(ours)))
	}
	if isRaceBuild() {
		return compile(ours, "-race", "./cmd/throughline")
	}
	return compile(ours, "./cmd/throughline")
}

// inside prepares the namespaces: it mounts an empty /run, where ip-netns(8) keeps the names of namespaces and daemons their
// sockets, and sets the loopback interface up.
func inside() error {
	for _, dir := range []string{"/run", "/var/run"} {
		if st, err := os.Lstat(dir); err != nil || !st.IsDir() {
			continue // /var/run is a link to /run on most systems
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount a private %s: %w", dir, err)
		}
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up: %v: %s", err, out)
	}
	return nil
}

// isRaceBuild reports whether our daemon is built with the race detector: then tests don't check its speed.
func isRaceBuild() bool { return os.Getenv(envRace) == "1" }

// needNamespaces skips a test if there are no namespaces; in CI it fails the test.
func needNamespaces(t *testing.T) {
	t.Helper()
	switch {
	case errNoNamespaces == nil:
	case os.Getenv("CI") == "true":
		t.Fatal(errNoNamespaces)
	default:
		t.Skip(errNoNamespaces)
	}
}
