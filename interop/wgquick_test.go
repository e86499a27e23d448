package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestWgQuick asks: can wg-quick(8) bring a tunnel up with our daemon, route all traffic through it, and remove everything
// again?
func TestWgQuick(t *testing.T) {
	for _, outer := range []family{ipv4, ipv6} {
		t.Run(outer.String(), func(t *testing.T) {
			b := newBed(t, plan{outer: outer, psk: true})
			b.a.end() // wg-quick starts another
			b.a.daemon = nil
			b.b.setKey()
			b.b.addPeer(b.a, "")
			b.b.ip("addr add 203.0.113.9 dev lo", "addr add 2001:db8::9 dev lo") // addresses beyond the tunnel

			config := filepath.Join(t.TempDir(), b.a.tunnel+".conf")
			text := strings.Replace(b.a.interfaceSection(), "[Interface]\n", fmt.Sprintf("[Interface]\nAddress = %s/24, %s/64\n",
				b.a.inner[ipv4], b.a.inner[ipv6]), 1)
			allowed := fmt.Sprintf("%s/32, %s/128", b.b.inner[ipv4], b.b.inner[ipv6])
			text += strings.Replace(b.a.peerSection(b.b, outer), allowed, "0.0.0.0/0, ::/0", 1)
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			before := b.a.must("ip", "rule") + b.a.must("ip", "-6", "rule")

			if out, err := b.a.wgQuick("up", config); err != nil {
				t.Fatalf("wg-quick up: %v\n%s", err, out)
			}
			b.a.waitForIPv6()
			b.a.wantReach(b.b)
			for _, far := range []string{"203.0.113.9", "2001:db8::9"} {
				if err := b.a.ping(far, 3); err != nil {
					t.Error("through the tunnel to elsewhere:", err)
				}
			}
			if got := b.a.show("fwmark")[0][0]; got != "0xca6c" {
				t.Errorf("fwmark %s, want wg-quick's 51820", got)
			}
			out, err := b.a.wgQuick("down", config)
			if err != nil {
				t.Fatalf("wg-quick down: %v\n%s", err, out)
			}
			if err := eventually(func() error { return stopped(b.a.tunnel) }); err != nil {
				t.Error(err)
			}
			if after := b.a.must("ip", "rule") + b.a.must("ip", "-6", "rule"); after != before {
				t.Errorf("the rules were\n%sand are\n%s", before, after)
			}
		})
	}
}

// wgQuick runs wg-quick with our daemon, even if the kernel has WireGuard.
func (s *side) wgQuick(verb, config string) (string, error) {
	s.t.Helper()
	shims := s.t.TempDir()
	ip, err := exec.LookPath("ip")
	if err != nil {
		s.t.Fatal(err)
	}
	script := "#!/bin/sh\ncase \"$*\" in *'type wireguard') exit 2;; esac\nexec " + ip + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(shims, "ip"), []byte(script), 0o755); err != nil {
		s.t.Fatal(err)
	}
	cmd := s.in("unshare", "--mount", "sh", "-c", `mount -t tmpfs none /sys/module && exec wg-quick "$@"`, "sh", verb, config)
	cmd.Env = append(os.Environ(), "WG_QUICK_USERSPACE_IMPLEMENTATION="+string(ours),
		"PATH="+shims+":"+filepath.Dir(ours.path())+":"+os.Getenv("PATH"))
	cmd.WaitDelay = waitLimit // for when the daemon keeps stdout or stderr open
	out, err := cmd.CombinedOutput()
	return string(out), err
}
