package interop

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestManyPeers asks: what do ten thousand peers cost? They are set by one wg setconf on an interface that is up. The time is
// compared with wireguard-go's in the same test: the best of three each, in turns.
func TestManyPeers(t *testing.T) {
	needNamespaces(t)
	const n = 10_000
	file := filepath.Join(t.TempDir(), "wg.conf")
	var text strings.Builder
	private, _ := newKey()
	fmt.Fprintf(&text, "[Interface]\nPrivateKey = %s\nListenPort = %d\n", private, port)
	for i := range n {
		_, public := newKey()
		fmt.Fprintf(&text, "[Peer]\nPublicKey = %s\nAllowedIPs = 10.%d.%d.0/24, fd00:%x::/64\nEndpoint = 192.0.2.1:%d\n",
			public, i>>8, i&255, i, 1024+i)
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	type cost struct {
		set          time.Duration
		memory, idle int // resident KiB, with the peers and before
		threads      int
	}
	best := map[program]cost{ours: {set: math.MaxInt64}, theirs: {set: math.MaxInt64}}
	for range 3 {
		for _, p := range []program{ours, theirs} {
			func() {
				const name = "tlmany"
				d, err := launch(command(p, "-f", name), "LOG_LEVEL=error")
				if err != nil {
					t.Fatal(err)
				}
				defer d.kill()
				if err := eventually(func() error { return reachable(name) }); err != nil {
					t.Fatalf("%v\n%s", err, d.log())
				}
				must(t, "ip", "link", "set", name, "up")
				var c cost
				c.idle, _ = resources(t, d.cmd.Process.Pid)
				begun := time.Now()
				must(t, "wg", "setconf", name, file)
				c.set = time.Since(begun)
				c.memory, c.threads = resources(t, d.cmd.Process.Pid)
				if got := strings.Count(must(t, "wg", "show", name, "peers"), "\n"); got != n {
					t.Errorf("%s has %d peers, want %d", p, got, n)
				}
				if c.set < best[p].set {
					best[p] = c
				}
				if p == theirs { // it ends slowly
					return
				}
				begun = time.Now()
				if err := d.terminate(os.Interrupt); err != nil || (time.Since(begun) > time.Second && !isRaceBuild()) {
					t.Errorf("the end with %d peers took %v: %v", n, time.Since(begun), err)
				}
			}()
		}
	}
	for _, p := range []program{ours, theirs} {
		c := best[p]
		t.Logf("%-12s %d peers set in %4d ms, %5.1f KiB a peer, %3d MiB in all, %d threads", p, n, c.set.Milliseconds(),
			float64(c.memory-c.idle)/n, c.memory>>10, c.threads)
	}
	if ratio := float64(best[theirs].set) / float64(best[ours].set); ratio < 5 && !isRaceBuild() {
		t.Errorf("setting them takes wireguard-go only %.1f times as long, want 5 times or more", ratio)
	}
}

// resources returns the resident memory of a process, in KiB, and its number of threads.
func resources(t *testing.T, pid int) (memory, threads int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		fmt.Sscanf(line, "VmRSS: %d kB", &memory)
		fmt.Sscanf(line, "Threads: %d", &threads)
	}
	return memory, threads
}
