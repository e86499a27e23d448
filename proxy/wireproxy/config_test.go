package wireproxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"throughline/conf"
	"throughline/proxy"
)

const everySection = `
[Interface]
Address = 10.0.0.2/32
DNS = 10.0.0.1
CheckAlive = 192.0.2.1, 2001:db8::1
CheckAliveInterval = 3
[TCPCLIENTTUNNEL]
bindaddress = 127.0.0.1:1
TARGET = a.example:2
[TCPServerTunnel]
ListenPort = 3
Target = localhost:4
[STDIOTunnel]
Target = b.example:5
ResolveLocally = true
[Socks5]
BindAddress = :6
Username = user
Password = pass
MaxConnections = 7
IdleTimeout = 90s
[http]
BindAddress = [::1]:8
CertFile = c
KeyFile = k
[UDPClientTunnel]
BindAddress = 127.0.0.1:9
Target = c.example:10
IdleTimeout = off
[UDPServerTunnel]
ListenPort = 11
Target = d.example:12
IdleTimeout = 5
[UDPProxyTunnel]
BindAddress = 127.0.0.1:13
Target = e.example:14
InactivityTimeout = 0
[Resolve]
ResolveStrategy = ipv6
`

// TestIdleDefaults holds for how long nothing may move where a file doesn't say it: in [UDPProxyTunnel], which is wireproxy's, for ever.
func TestIdleDefaults(t *testing.T) {
	for section, want := range map[string]time.Duration{
		"[UDPProxyTunnel]\nBindAddress=:1\nTarget=a:1":                       0,
		"[udpproxytunnel]\nBindAddress=:1\nTarget=a:1":                       0,
		"[UDPClientTunnel]\nBindAddress=:1\nTarget=a:1":                      proxy.DefaultIdleUDP,
		"[UDPServerTunnel]\nListenPort=1\nTarget=a:1":                        proxy.DefaultIdleUDP,
		"[TCPClientTunnel]\nBindAddress=:1\nTarget=a:1":                      proxy.DefaultIdleTCP,
		"[Socks5]\nBindAddress=:1":                                           proxy.DefaultIdleTCP,
		"[UDPProxyTunnel]\nBindAddress=:1\nTarget=a:1\nInactivityTimeout=30": 30 * time.Second,
	} {
		if got := read(t, "[Interface]\n"+section+"\n").Sections[0].IdleTimeout; got != want {
			t.Errorf("%q: %v, want %v", section, got, want)
		}
	}
}

// read reads a file that is right.
func read(t *testing.T, text string) *proxy.Config {
	t.Helper()
	f, err := Parser(nil).Parse("proxy.conf", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRead(t *testing.T) {
	c := read(t, everySection)
	var got []string
	for _, s := range c.Sections {
		got = append(got, fmt.Sprint(int(s.Kind), s.Name, s.At, s.BindAddress, s.Target, string(s.Username), string(s.Password), s.CertFile, s.KeyFile, s.ResolveLocally, s.MaxConnections, s.IdleTimeout))
	}
	want := []string{
		"0TCPCLIENTTUNNELproxy.conf:7:1127.0.0.1:1a.example:2false 1024 2h0m0s",
		"1TCPServerTunnelproxy.conf:10:1:3localhost:4false 1024 2h0m0s",
		"2STDIOTunnelproxy.conf:13:1b.example:5true 1024 2h0m0s",
		"3Socks5proxy.conf:16:1:6userpassfalse 7 1m30s",
		"4httpproxy.conf:22:1[::1]:8ckfalse 1024 2h0m0s",
		"5UDPClientTunnelproxy.conf:26:1127.0.0.1:9c.example:10false 1024 0s",
		"6UDPServerTunnelproxy.conf:30:1:11d.example:12false 1024 5s",
		"5UDPProxyTunnelproxy.conf:34:1127.0.0.1:13e.example:14false 1024 0s",
	}
	flat := func(l []string) string { return strings.ReplaceAll(strings.Join(l, "\n"), " ", "") }
	if flat(got) != flat(want) {
		t.Errorf("got\n%s\nwant\n%s", flat(got), flat(want))
	}
	if fmt.Sprint(c.CheckAlive, c.CheckAliveInterval, c.PreferIPv4) != "[192.0.2.1 2001:db8::1] 3s false" {
		t.Errorf("%v %v %v", c.CheckAlive, c.CheckAliveInterval, c.PreferIPv4)
	}
	js, _ := json.Marshal(c.Sections)
	if shown := fmt.Sprintf("%v %+v %#v %s", c.Sections, c.Sections, c.Sections, js); strings.Contains(shown, "pass\"") || strings.Contains(shown, " pass ") {
		t.Errorf("printing shows the password: %s", shown)
	}
}

// TestCheck holds that the proxy finds nothing wrong with what is read without a mistake.
func TestCheck(t *testing.T) {
	c := read(t, everySection)
	c.Stdin, c.Stdout = strings.NewReader(""), io.Discard
	if err := c.Check(); err != nil {
		t.Error(err)
	}
	if len(c.Sections) != 8 {
		t.Errorf("%d sections", len(c.Sections))
	}
}

func TestDefaults(t *testing.T) {
	for _, tt := range []struct {
		text     string
		locally  bool
		prefer4  bool
		interval time.Duration
	}{
		{"[Socks5]\nBindAddress=:1", true, true, 5 * time.Second}, // as wireproxy: without DNS, the system's resolver
		{"[Interface]\nDNS=1.1.1.1\nAddress=10.0.0.1, fd00::1\n[Socks5]\nBindAddress=:1", false, false, 5 * time.Second},
		{"[Interface]\nDNS=1.1.1.1\nAddress=10.0.0.1, fe80::1\n[Socks5]\nBindAddress=:1", false, true, 5 * time.Second},
		{"[Interface]\nDNS=1.1.1.1\nAddress=fd00::1\n[Socks5]\nBindAddress=:1\n[Resolve]\nResolveStrategy=ipv4", false, true, 5 * time.Second},
		{"[Interface]\nAddress=10.0.0.1\n[Socks5]\nBindAddress=:1\nResolveLocally=false\n[resolve]\nresolvestrategy=AUTO", false, true, 5 * time.Second},
	} {
		c := read(t, tt.text)
		if s := c.Sections[0]; s.ResolveLocally != tt.locally || c.PreferIPv4 != tt.prefer4 || c.CheckAliveInterval != tt.interval {
			t.Errorf("%q: locally %v, IPv4 first %v, interval %v", tt.text, s.ResolveLocally, c.PreferIPv4, c.CheckAliveInterval)
		}
	}
}

func TestConfigMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"x = 1":                                                        "p:1:5: x: stands outside of a section; only WGConfig may",
		"[Sock5]\nBindAddress=:1":                                      "p:1:1: there is no section of this name; use one of [Interface]",
		"[Socks5]\nBindAdress=:1":                                      "p:2:12: BindAdress: there is no such key in [Socks5]; use one of BindAddress, Username, Password, ResolveLocally, MaxConnections, IdleTimeout",
		"[Socks5]":                                                     "p:1:1: [Socks5] has no BindAddress; add one",
		"[TCPServerTunnel]\nTarget=a:1":                                "p:1:1: [TCPServerTunnel] has no ListenPort; add one",
		"[TCPClientTunnel]\nBindAddress=:1":                            "p:1:1: [TCPClientTunnel] has no Target; add one",
		"[TCPClientTunnel]\nTarget=:1":                                 `p:2:8: Target ":1": not host:port; use one like`,
		"[TCPClientTunnel]\nTarget=a:0":                                `p:2:8: Target "a:0": not host:port`,
		"[TCPServerTunnel]\nListenPort=0":                              `p:2:12: ListenPort "0": not a port`,
		"[Socks5]\nBindAddress=1080":                                   `p:2:13: BindAddress "1080": not host:port; use one like 127.0.0.1:1080 or [::1]:1080`,
		"[Socks5]\nBindAddress=:1\nBindAddress=:2":                     "p:3:13: BindAddress: a second one in this section; the first is on line 2",
		"[Socks5]\nBindAddress=:1\nPassword=hunter2":                   "p:3:10: Password: there is no Username, and SOCKS5 has no password without; add one",
		"[Socks5]\nUsername=" + strings.Repeat("x", 256):               "p:2:10: Username: longer than 255 bytes; choose a shorter one",
		"[http]\nBindAddress=:1\nUsername=":                            "p:3:10: Username: is empty; give it a value, or leave the line out",
		"[Socks5]\nBindAddress=:1\nUsername=a\nPassword=``":            "p:4:11: Password: is empty; give it a value, or leave the line out",
		"[Socks5]\nBindAddress=:1\nUsername=\nPassword=":               "p:3:10: Username: is empty; give it a value, or leave the line out\np:4:10: Password: is empty",
		"[http]\nBindAddress=:1\nCertFile=\nKeyFile=":                  "p:3:10: CertFile: is empty; give it a value, or leave the line out\np:4:9: KeyFile: is empty",
		"[http]\nUsername=a:b":                                         "p:2:10: Username: has a ':'",
		"[http]\nBindAddress=:1\nCertFile=x":                           "p:1:1: CertFile and KeyFile belong together; add the other one",
		"[http]\nMaxConnections=0":                                     `p:2:16: MaxConnections "0": not a limit`,
		"[http]\nIdleTimeout=-1s":                                      `p:2:13: IdleTimeout "-1s": not a time`,
		"[http]\nResolveLocally=maybe":                                 `p:2:16: ResolveLocally "maybe": use true or false`,
		"[STDIOTunnel]\nTarget=a:1\n[STDIOTunnel]\nTarget=a:1":         "p:3:1: a second [STDIOTunnel]",
		"[Interface]\nCheckAlive=1.1.1.1, x":                           `p:2:21: CheckAlive "x": not an address`,
		"[Interface]\nCheckAliveInterval=0":                            `p:2:20: CheckAliveInterval "0": not an interval`,
		"[Resolve]\nResolveStrategy=both":                              `p:2:17: ResolveStrategy "both": use auto, ipv4 or ipv6`,
		"[Resolve]\nStrategy=ipv4":                                     "p:2:10: Strategy: there is no such key in [Resolve]",
		"[STDIOTunnel]\nIdleTimeout=5":                                 "p:2:13: IdleTimeout: there is no such key in [STDIOTunnel]",
		"[UDPProxyTunnel]\nIdleTimeout=5":                              "p:2:13: IdleTimeout: there is no such key in [UDPProxyTunnel]",
		"[UDPClientTunnel]\nInactivityTimeout=5":                       "p:2:19: InactivityTimeout: there is no such key in [UDPClientTunnel]",
		"[TCPServerTunnel]\nListenPort=1\nTarget=a:1\nBindAddress=a:1": "p:4:13: BindAddress: there is no such key in [TCPServerTunnel]",
	} {
		f, err := Parser(nil).Parse("p", strings.NewReader(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		c, err := Read(f)
		if err == nil || c != nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q:\n got %v\nwant %s", text, err, want)
		}
	}
}

// TestAllConfigMistakes has a file with a mistake of every kind: each is reported once, in the order of the file but that
// what a section lacks comes after what is wrong in it, and names its place.
func TestAllConfigMistakes(t *testing.T) {
	const text = `x = hunter2
[Interface]
CheckAlive = 192.0.2.1, x, 192.0.2.2, y
CheckAliveInterval = 0
[Sock5]
BindAddress = 1
[Socks5]
BindAdress = 127.0.0.1:1
Password = hunter2
Password = hunter2
ResolveLocally = maybe
[http]
BindAddress = 8080
Username = hunter:2
MaxConnections = 0
CertFile = c
[Resolve]
Strategy = ipv4
ResolveStrategy = both
[TCPServerTunnel]
ListenPort = 0
[STDIOTunnel]
Target = a:1
[STDIOTunnel]
Target = a
IdleTimeout = soon
`
	f, err := Parser(nil).Parse("p", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Read(f)
	if c != nil || err == nil {
		t.Fatalf("%v, %v", c, err)
	}
	want := []string{
		"p:1:5: x: stands outside of a section; only WGConfig may, so put it below the header of its section",
		`p:3:25: CheckAlive "x": not an address; use one like 192.0.2.1`,
		`p:3:39: CheckAlive "y": not an address; use one like 192.0.2.1`,
		`p:4:22: CheckAliveInterval "0": not an interval; use seconds from 1 up`,
		"p:5:1: there is no section of this name; use one of [Interface]",
		"p:8:14: BindAdress: there is no such key in [Socks5]; use one of BindAddress, Username",
		"p:10:12: Password: a second one in this section; the first is on line 9: keep one",
		`p:11:18: ResolveLocally "maybe": use true or false`,
		"p:7:1: [Socks5] has no BindAddress; add one",
		"p:9:12: Password: there is no Username, and SOCKS5 has no password without; add one",
		`p:13:15: BindAddress "8080": not host:port; use one like 127.0.0.1:1080`,
		"p:14:12: Username: has a ':', which HTTP takes for its end; choose another one",
		`p:15:18: MaxConnections "0": not a limit; use a number from 1 to 1048576`,
		"p:12:1: CertFile and KeyFile belong together; add the other one",
		"p:18:12: Strategy: there is no such key in [Resolve]; use ResolveStrategy",
		`p:19:19: ResolveStrategy "both": use auto, ipv4 or ipv6`,
		`p:21:14: ListenPort "0": not a port; use a number from 1 to 65535`,
		"p:20:1: [TCPServerTunnel] has no Target; add one",
		"p:24:1: a second [STDIOTunnel], the first is on line 22; there is only one standard input, so keep one",
		`p:25:10: Target "a": not host:port; use one like`,
		"and 1 more mistakes",
	}
	got := strings.Split(err.Error(), "\n")
	if len(got) != len(want) {
		t.Errorf("%d mistakes, want %d:\n%v", len(got), len(want), err)
	}
	for i := range min(len(got), len(want)) {
		if !strings.HasPrefix(got[i], want[i]) || strings.Contains(got[i], "hunter") {
			t.Errorf("mistake %d:\n got %s\nwant %s", i, got[i], want[i])
		}
	}
	one, ok := errors.AsType[*conf.Error](err)
	if !ok || one.Pos != (conf.Pos{File: "p", Line: 1, Col: 5}) {
		t.Errorf("the first mistake is %#v", one)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	wg := write("wg.conf", "[Interface]\nListenPort = 5\nDNS = 1.1.1.1\nCheckAlive = 192.0.2.1\n")
	env := func(k string) (string, bool) { return "127.0.0.1:1", k == "BIND" }
	f, c, err := Load(write("p.conf", "WGConfig = "+wg+"\n[Socks5]\nBindAddress = $BIND\n"), env)
	if err != nil {
		t.Fatal(err)
	}
	if *f.Interface.ListenPort != 5 || len(c.CheckAlive) != 1 || c.Sections[0].BindAddress != "127.0.0.1:1" || c.Sections[0].ResolveLocally {
		t.Errorf("%+v %+v", f, c)
	}
	for text, want := range map[string]string{
		"WGConfig = " + wg + "\n[Interface]\n":    "keep one of them",
		"WGConfig = " + wg + ".x":                 ":1:12: WGConfig: open ",
		"WGConfig = " + write("s", "[Socks5]\n"):  "there is no section [Socks5]",
		"WGConfig = " + write("m", "[Peer]\nx=1"): ":2:3: x: there is no such key in [Peer]",
	} {
		if _, _, err := Load(write("p.conf", text), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	text := "[Socks5]\nBindAddress=:1\n[http]\nBindAddress=:2\nCertFile=" + dir + "/none\nKeyFile=" + wg + "\n"
	path := write("p.conf", text)
	if _, c, err := Load(path, nil); c != nil || !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), path+":3:1: [http] CertFile and KeyFile: ") {
		t.Errorf("a certificate that isn't there: %v", err)
	}
	if _, _, err := Load(filepath.Join(dir, "none"), nil); !os.IsNotExist(err) {
		t.Errorf("a file that isn't there: %v", err)
	}
}

// TestNotGiven checks that keys with nothing behind them are read as if they weren't there.
func TestNotGiven(t *testing.T) {
	want := fmt.Sprintf("%+v", read(t, "[Socks5]\nBindAddress=:1\n"))
	got := fmt.Sprintf("%+v", read(t, "[Interface]\nCheckAlive=,\nCheckAliveInterval =\nIncludedApplications = a.b\n[Resolve]\nResolveStrategy=\n[Socks5]\nMaxConnections=\nIdleTimeout = # none\n"+
		"ResolveLocally=\nBindAddress=\nBindAddress=:1\nTunnelDomains=\nLogDomains=no\nLogDomains=\n"))
	at := strings.NewReplacer("proxy.conf:1:1", "", "proxy.conf:7:1", "")
	if at.Replace(got) != at.Replace(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	f, err := Parser(nil).Parse("p", strings.NewReader("WGConfig =\n[Socks5]\nBindAddress ="))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Read(f); err == nil || err.Error() != "p:2:1: [Socks5] has no BindAddress; add one" {
		t.Errorf("an empty BindAddress: %v", err)
	}
}

// TestWireproxyOnly checks what is said of wireproxy's sections and keys that aren't served here.
func TestWireproxyOnly(t *testing.T) {
	for text, want := range map[string]string{
		"[SNI]\nBindAddress = :443\nx = y":                                                         "p:1:1: [SNI] is a transparent proxy for TLS, which there is none of here; take it out, and let clients use [Socks5] or [http]",
		"[Socks5]\nBindAddress=:1\nTunnelDomains = \\.example$":                                    "p:3:17: TunnelDomains: names the only targets that are reached through the tunnel, and here all are; take it out, and let clients choose what they ask this proxy for",
		"[http]\nBindAddress=:1\nLogDomains = true":                                                "p:3:14: LogDomains \"true\": the names that clients ask for aren't logged here; take it out",
		"[http]\nBindAddress=:1\nLogDomains = maybe":                                               "p:3:14: LogDomains \"maybe\": use true or false",
		"[STDIOTunnel]\nTarget=a:1\nTunnelDomains = x":                                             "p:3:17: TunnelDomains: there is no such key in [STDIOTunnel]; use one of Target, ResolveLocally",
		"[Socks5]\nBindAddress=127.0.0.1:1\n[http]\nBindAddress=[::ffff:127.0.0.1]:01":             "p:4:13: BindAddress \"[::ffff:127.0.0.1]:01\": another section listens there already, see line 2; choose another port",
		"[TCPServerTunnel]\nListenPort=5\nTarget=a:1\n[TCPServerTunnel]\nListenPort=5\nTarget=a:2": "p:5:12: ListenPort \"5\": another section listens there already, see line 2; choose another port",
	} {
		f, err := Parser(nil).Parse("p", strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Read(f); err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", text, err, want)
		}
	}
	read(t, "[Socks5]\nBindAddress=127.0.0.1:1\n[http]\nBindAddress=127.0.0.2:1\n[UDPClientTunnel]\nBindAddress=127.0.0.1:1\nTarget=a:1\n[TCPServerTunnel]\nListenPort=1\nTarget=a:1\n"+
		"[UDPServerTunnel]\nListenPort=1\nTarget=a:1\n[Socks5]\nBindAddress=127.0.0.1:0\n[Socks5]\nBindAddress=127.0.0.1:0\n")
}

// TestBesideTheFile checks that a bare name in WGConfig is looked for beside the file, as wireproxy does, and not in the
// directory in which the program was started.
func TestBesideTheFile(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"wg.conf": "[Interface]\nMTU = 1400\n", "p.conf": "WGConfig = wg.conf\n[Socks5]\nBindAddress=:1\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if f, _, err := Load(filepath.Join(dir, "p.conf"), nil); err != nil || f.Interface.MTU != 1400 {
		t.Errorf("%v", err)
	}
}
