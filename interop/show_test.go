package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestShow asks: does wg(8) show the same of our daemon as of wireguard-go after the same changes?
func TestShow(t *testing.T) {
	b := newBed(t, plan{b: theirs})
	b.b.private = b.a.private
	var public [5]string
	for i := range public {
		_, public[i] = newKey()
	}
	psk := newPSK()
	section := func(i int, rest string) string { return fmt.Sprintf("[Peer]\nPublicKey = %s\n%s\n", public[i], rest) }
	whole := fmt.Sprintf("[Interface]\nPrivateKey = %s\nListenPort = %d\nFwMark = 0x51\n", b.a.private, port) +
		section(0, "AllowedIPs = 10.1.0.0/16, 10.2.3.4/8, fd01::ff/16") +
		section(1, "AllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = [fd77::9]:1\nPresharedKey = "+psk+"\nPersistentKeepalive = 65535") +
		section(2, "Endpoint = 127.0.0.1:65535\nAllowedIPs = 10.1.0.0/16, ::1") + // takes the prefixes that the first peer has
		section(3, "PersistentKeepalive = off")
	synced := strings.Replace(whole, "FwMark = 0x51\n", "", 1) + section(4, "AllowedIPs = 10.1.0.0/16")
	file := filepath.Join(t.TempDir(), "wg.conf")
	write := func(text string) string {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for _, change := range [][]string{
		{"setconf", "TUNNEL", write(whole)},
		{"set", "TUNNEL", "peer", public[1], "remove", "peer", public[3], "allowed-ips", "192.0.2.0/24", "persistent-keepalive", "1"},
		{"set", "TUNNEL", "peer", public[0], "allowed-ips", ""},
		{"set", "TUNNEL", "peer", public[2], "preshared-key", b.a.keyFile(psk), "endpoint", "[::1]:77"},
		{"set", "TUNNEL", "peer", public[2], "preshared-key", "/dev/null"},
		{"addconf", "TUNNEL", file},
		{"syncconf", "TUNNEL", "SYNCED"},
		{"set", "TUNNEL", "fwmark", "7"},
		{"set", "TUNNEL", "fwmark", "off", "private-key", "/dev/null"},
	} {
		var saw [2]string
		for i, s := range []*side{b.a, b.b} {
			args := slices.Clone(change)
			args[1] = s.tunnel
			if args[2] == "SYNCED" {
				args[2] = write(synced)
			}
			s.must("wg", args...)
			saw[i] = sorted(s.must("wg", "showconf", s.tunnel))
		}
		if saw[0] != saw[1] {
			t.Errorf("after wg %s ours is\n%s\nand wireguard-go\n%s", strings.Join(change, " "), saw[0], saw[1])
		}
	}
}

// sorted returns a configuration with its peers, and their allowed IPs, in alphabetical order.
func sorted(conf string) string {
	parts := strings.Split(strings.TrimSpace(conf), "\n\n")
	for i, part := range parts {
		lines := strings.Split(part, "\n")
		for j, line := range lines {
			if list, ok := strings.CutPrefix(line, "AllowedIPs = "); ok {
				ips := strings.Split(list, ", ")
				slices.Sort(ips)
				lines[j] = "AllowedIPs = " + strings.Join(ips, ", ")
			}
		}
		parts[i] = strings.Join(lines, "\n")
	}
	slices.Sort(parts[1:])
	return strings.Join(parts, "\n\n")
}
