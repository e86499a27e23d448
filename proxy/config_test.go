package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestCheck(t *testing.T) {
	const at = "127.0.0.1:0"
	long := Secret(strings.Repeat("x", 256))
	for name, tt := range map[string]struct {
		c    Config
		want []string // how each line begins
	}{
		"nothing": {Config{}, nil},
		"all kinds": {Config{Stdin: strings.NewReader(""), Stdout: io.Discard, CheckAlive: []netip.Addr{loopback}, Sections: []Section{
			{Kind: TCPClientTunnel, BindAddress: at, Target: "a:1"}, {Kind: TCPServerTunnel, BindAddress: ":1", Target: "a:1"},
			{Kind: UDPClientTunnel, BindAddress: at, Target: "[::1]:1"}, {Kind: UDPServerTunnel, BindAddress: ":1", Target: "a:1"},
			{Kind: STDIOTunnel, Target: "a:1"}, {Kind: Socks5, BindAddress: at, Username: "u"},
			{Kind: HTTP, BindAddress: at, Username: "u", Password: "p:p", CertFile: "c", KeyFile: "k", IdleTimeout: time.Hour, MaxConnections: 1},
		}}, nil},
		"kind":        {Config{Sections: []Section{{Kind: 7, At: "f:1"}}}, []string{"f:1: [Kind(7)] there is no such kind; use one of TCPClientTunnel, "}},
		"bind":        {Config{Sections: []Section{{Kind: Socks5, Name: "mine"}}}, []string{`proxy: [mine] BindAddress "": not host:port`}},
		"bind port":   {Config{Sections: []Section{{Kind: Socks5, BindAddress: "a:http"}}}, []string{`proxy: [Socks5] BindAddress "a:http": not host:port`}},
		"target":      {Config{Sections: []Section{{BindAddress: at}}}, []string{`proxy: [TCPClientTunnel] Target "": not host:port`}},
		"target port": {Config{Sections: []Section{{BindAddress: at, Target: "a:0"}}}, []string{`proxy: [TCPClientTunnel] Target "a:0": not host:port`}},
		"secrets": {Config{Sections: []Section{
			{Kind: HTTP, BindAddress: at, Username: "a:b"}, {Kind: Socks5, BindAddress: at, Password: "p"},
			{Kind: Socks5, BindAddress: at, Username: long}, {BindAddress: at, Target: "a:1", Username: "u"},
		}}, []string{"proxy: [HTTP] Username has a ':'", "proxy: [Socks5] there is no Username", "proxy: [Socks5] Username or Password is longer", "proxy: [TCPClientTunnel] Username and Password belong"}},
		"certificates": {Config{Sections: []Section{{Kind: HTTP, BindAddress: at, KeyFile: "k"}, {Kind: Socks5, BindAddress: at, CertFile: "c", KeyFile: "k"}}},
			[]string{"proxy: [HTTP] CertFile and KeyFile belong together", "proxy: [Socks5] CertFile and KeyFile belong to an HTTP"}},
		"numbers": {Config{CheckAliveInterval: -1, CheckAlive: []netip.Addr{{}}, Sections: []Section{{Kind: HTTP, BindAddress: at, MaxConnections: -1, IdleTimeout: -time.Second}}},
			[]string{"proxy: [HTTP] MaxConnections -1: less", "proxy: [HTTP] IdleTimeout -1s: less", "proxy: CheckAlive has", "proxy: CheckAliveInterval -1ns: less"}},
		"stdio": {Config{Sections: []Section{{Kind: STDIOTunnel, Target: "a:1"}, {Kind: STDIOTunnel, Target: "a:1"}}},
			[]string{"proxy: [STDIOTunnel] there is no standard input", "proxy: [STDIOTunnel] a second one"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := tt.c.Check()
			if (err != nil) != (len(tt.want) > 0) {
				t.Fatal(err)
			}
			if err == nil {
				return
			}
			got := strings.Split(err.Error(), "\n")
			if len(got) != len(tt.want) {
				t.Fatalf("%d mistakes, want %d:\n%v", len(got), len(tt.want), err)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(got[i], want) || strings.Contains(got[i], string(long)) {
					t.Errorf("got %s\nwant %s", got[i], want)
				}
			}
			if run := Run(context.Background(), &tt.c, Host{}, Host{}, nil); run == nil || run.Error() != err.Error() {
				t.Errorf("Run: %v, want %v", run, err)
			}
		})
	}
}

func TestSecret(t *testing.T) {
	s := Section{Kind: Socks5, Username: "root", Password: "hunter2"}
	js, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if shown := fmt.Sprintf("%v %+v %#v %s %x %s", s, s, s, js, s.Password, s.Password.LogValue()); strings.Contains(shown, "hunter2") || strings.Contains(shown, "root") || strings.Contains(shown, fmt.Sprintf("%x", "hunter2")) {
		t.Errorf("printing shows a secret: %s", shown)
	}
}
