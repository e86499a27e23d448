package main

import (
	"bytes"
	"fmt"
	"testing"

	"throughline"
	"throughline/proxy/wireproxy"
)

// quickFile is a file as "wg-quick save" writes it for a default route, with what only an interface has a use for.
func quickFile(more string) string {
	return fmt.Sprintf(`[Interface]
Address = 10.77.0.1/32
MTU = 1420
Table = off
SaveConfig = true
PostUp = echo up
PostUp = touch /nowhere/%%i
PreDown =
FwMark = 0xca6c
IncludedApplications = org.example.app
PrivateKey = %s

[Peer]
PublicKey = %v
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = 127.0.0.1:9
`, throughline.NewPrivateKey().Base64(), throughline.NewPrivateKey().Public()) + more
}

const quickKeys = "FwMark, Table, PostUp, SaveConfig, IncludedApplications"

// TestProxyPassesOver checks that what needs an interface is named once, by -n and in the log, and not used.
func TestProxyPassesOver(t *testing.T) {
	path := writeFile(t, "wg0.conf", quickFile("[Socks5]\nBindAddress = 127.0.0.1:0\n"))
	f, _, err := wireproxy.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := complete(f); err != nil {
		t.Fatal(err)
	}
	if c, err := deviceConfig(f); err != nil || c.Mark != nil || *c.ListenPort != 0 || len(c.Peers) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	want := path + ": without meaning where there is no interface, and passed over: " + quickKeys
	var stdout, stderr bytes.Buffer
	cmd := program(t, "proxy", "-n", path)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil || stdout.String() != path+": ok\n" || stderr.String() != "throughline: "+want+"\n" {
		t.Errorf("-n: %v, %q, %q", err, &stdout, &stderr)
	}
}
