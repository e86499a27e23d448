package interop

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestARoutingLoopEnds asks: when the route to a peer's endpoint leads into the peer's own tunnel, does a ping end after
// one round, and does the daemon say what is wrong? Large ones, which the kernel cuts up on the way out, too.
func TestARoutingLoopEnds(t *testing.T) {
	for _, size := range []int{56, 1392} {
		for _, outer := range []family{ipv4, ipv6} {
			t.Run(fmt.Sprintf("%v/%d bytes", outer, size), func(t *testing.T) {
				b := newBed(t, plan{outer: outer})
				b.configure()
				b.a.wantReach(b.b)
				b.a.wg("peer", b.b.public, "allowed-ips", "0.0.0.0/0,::/0")
				b.a.ip("route add %s dev %s metric 1", b.b.outer[outer], b.a.tunnel)
				time.Sleep(100 * time.Millisecond) // what was on its way is gone
				pid := b.a.daemon.cmd.Process.Pid
				busy, before := processorTime(t, pid), b.a.sentPackets()
				for range 3 {
					b.a.in("ping", "-c", "1", "-W", "1", "-s", strconv.Itoa(size), b.b.inner[ipv4]).Run()
				}
				if used := processorTime(t, pid) - busy; used > time.Second/2 {
					t.Errorf("the daemon used %v of processor time for three pings", used)
				}
				// A ping, its fragments, and a handshake that is repeated; each once, or once more in pieces.
				if n := b.a.sentPackets() - before; n < 3 || n > 60 {
					t.Errorf("the tunnel was sent %d packets for three pings", n)
				}
				if log := b.a.daemon.log(); strings.Count(log, "routing loop") != 1 {
					t.Errorf("it was said %d times, want once", strings.Count(log, "routing loop"))
				}
				// With a route for the endpoint all is well again.
				b.a.ip("route del %s dev %s", b.b.outer[outer], b.a.tunnel)
				if err := within(retry, func() error { return b.a.ping(b.b.inner[ipv4], 1) }); err != nil {
					t.Error("after the route was taken away:", err)
				}
			})
		}
	}
}

// TestATunnelWithinATunnel asks: does another tunnel work whose endpoint is reached through ours?
func TestATunnelWithinATunnel(t *testing.T) {
	b := newBed(t, plan{})
	b.configure()
	b.a.wantReach(b.b)
	within := func(s *side, host int) *side {
		in := *s
		in.tunnel += "in"
		in.private, in.public = newKey()
		in.mtu = 1340
		in.outer = s.inner
		in.inner = [2]string{fmt.Sprintf("10.8.0.%d", host), fmt.Sprintf("fd08::%d", host)}
		in.start()
		in.bringUp()
		t.Cleanup(in.end)
		in.wg("private-key", in.keyFile(in.private), "listen-port", strconv.Itoa(port+1))
		return &in
	}
	ia, ib := within(b.a, 1), within(b.b, 2)
	ia.addPeer(ib, ib.outer[ipv4]+":"+strconv.Itoa(port+1))
	ib.addPeer(ia, "")
	ia.wantReach(ib)
	ib.wantReach(ia)
	if log := b.a.daemon.log() + b.b.daemon.log(); strings.Contains(log, "routing loop") {
		t.Errorf("taken for a loop:\n%s", log)
	}
}

// sentPackets is how many packets the kernel sent by the tunnel.
func (s *side) sentPackets() int {
	s.t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(s.must("cat", "/sys/class/net/"+s.tunnel+"/statistics/tx_packets")))
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// processorTime is what a process and its children have used.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	out, err := exec.Command("getconf", "CLK_TCK").Output()
	if err != nil {
		t.Fatal(err)
	}
	tick, _ := strconv.Atoi(strings.TrimSpace(string(out)))
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * time.Second / time.Duration(tick)
}
