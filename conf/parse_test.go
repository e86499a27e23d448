package conf

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"throughline/wgtypes"
)

const (
	private   = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
	public    = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
	public2   = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="
	preshared = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE="
)

func parse(t *testing.T, text string) *File {
	t.Helper()
	f, err := Parse("wg0.conf", strings.NewReader(text))
	if err != nil {
		t.Fatalf("Parse:\n%v", err)
	}
	return f
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestEveryKey(t *testing.T) {
	f := parse(t, "\ufeff# a comment\r\n"+`
[interface] # in whatever case
privatekey=`+private+`
  ListenPort = 51820
FWMARK = 0xca6c # the mark
Address = 10.0.0.2/24, fd00::2/64
Address = 10.0.1.2
DNS = 10.0.0.1, example.net,fd00::1
DNS = corp.example
MTU	=	1420
Table = 1234
PreUp = echo "$HOME"
PostUp = iptables -A FORWARD -i %i; echo a = b
PostUp = second # why
PreDown = three
PostDown = four
SaveConfig = true

[Peer]
PublicKey = `+public+`
PresharedKey = `+preshared+`
AllowedIPs = 10.0.0.9/24 ,  ::ffff:192.0.2.1/128,fd01::/16
AllowedIPs = 192.0.2.7
AllowedIPs =
Endpoint = vpn.example.net:51820
PersistentKeepalive = 25
[PEER]
PublicKey = `+public2+`
Endpoint = [2001:db8::1]:1
PersistentKeepalive = off`)
	i := f.Interface
	if i.PrivateKey.Base64() != must(wgtypes.ParsePrivateKey(private)).Base64() || *i.ListenPort != 51820 || *i.Mark != 0xca6c ||
		!reflect.DeepEqual(i.Address, prefixes("10.0.0.2/24", "fd00::2/64", "10.0.1.2/32")) ||
		fmt.Sprint(i.DNS, i.Search) != "[10.0.0.1 fd00::1] [example.net corp.example]" || i.MTU != 1420 || i.Table != "1234" ||
		fmt.Sprintf("%q", [][]string{i.PreUp, i.PostUp, i.PreDown, i.PostDown}) != `[["echo \"$HOME\""] ["iptables -A FORWARD -i %i; echo a = b" "second"] ["three"] ["four"]]` ||
		!i.SaveConfig || i.Pos.String() != "wg0.conf:3:1" {
		t.Errorf("interface: %+v", i)
	}
	if len(f.Peers) != 2 {
		t.Fatalf("%d peers, want 2", len(f.Peers))
	}
	p := f.Peers[0]
	if p.PublicKey.String() != public || p.PresharedKey.Base64() != preshared ||
		!reflect.DeepEqual(p.AllowedIPs, prefixes("10.0.0.0/24", "192.0.2.1/32", "fd01::/16", "192.0.2.7/32")) ||
		p.Endpoint.String() != "vpn.example.net:51820" || *p.PersistentKeepalive != 25*time.Second {
		t.Errorf("peer: %+v", p)
	}
	if _, ok := p.Endpoint.AddrPort(); ok {
		t.Error("a name was read as an address")
	}
	if ap, ok := f.Peers[1].Endpoint.AddrPort(); !ok || ap != netip.MustParseAddrPort("[2001:db8::1]:1") || *f.Peers[1].PersistentKeepalive != 0 {
		t.Errorf("second peer: %+v", f.Peers[1])
	}
	if err := f.Plain(); err != nil {
		t.Error(err)
	}
}

// TestMistakes has a row for each mistake: one line of a file, below a header, and the whole error.
func TestMistakes(t *testing.T) {
	const use = "; use "
	for _, tt := range []struct{ section, line, want string }{
		{"Peer", `AllowedIPs = 10.0.0.0/33`, `wg0.conf:2:14: AllowedIPs "10.0.0.0/33": not a prefix; use address/length`},
		{"Peer", `AllowedIPs = 10.0.0.0/8,  fd00::/129 , ::/0`, `wg0.conf:2:27: AllowedIPs "fd00::/129": not a prefix; use address/length`},
		{"Peer", `AllowedIPs = 10.0.0.0 / 8`, `wg0.conf:2:14: AllowedIPs "10.0.0.0 / 8": not a prefix; use address/length`},
		{"Peer", `Allowed IPs = ::/0`, `wg0.conf:2:15: there is no such key in [Peer]; use one of AllowedIPs, Endpoint, PersistentKeepalive, PresharedKey, PublicKey`},
		{"Peer", `AllowedIPs = 10.0.0.0/8,`, `wg0.conf:2:25: AllowedIPs: not a prefix; use address/length`},
		{"Peer", `AllowedIPs = ::ffff:10.0.0.0/64`, `wg0.conf:2:14: AllowedIPs "::ffff:10.0.0.0/64": not a prefix; use address/length`},
		{"Peer", `AllowedIPs = fe80::1%eth0`, `wg0.conf:2:14: AllowedIPs "fe80::1%eth0": not a prefix; use address/length`},
		{"Peer", `PublicKey = ` + private[1:], `wg0.conf:2:13: PublicKey: not a key; use 32 bytes in base64, 44 characters that end in '='`},
		{"Peer", `PublicKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=`, `wg0.conf:2:13: PublicKey: not a key; use 32 bytes in base64, 44 characters that end in '='`},
		{"Peer", `PresharedKey = short`, `wg0.conf:2:16: PresharedKey: not a key; use 32 bytes in base64, 44 characters that end in '='`},
		{"Peer", `Endpoint = example.net`, `wg0.conf:2:12: Endpoint "example.net": not host:port; use name:51820, 192.0.2.1:51820 or [2001:db8::1]:51820`},
		{"Peer", `Endpoint = 2001:db8::1:51820`, `wg0.conf:2:12: Endpoint "2001:db8::1:51820": not host:port; use name:51820, 192.0.2.1:51820 or [2001:db8::1]:51820`},
		{"Peer", `Endpoint = example.net:0`, `wg0.conf:2:12: Endpoint "example.net:0": has no port from 1 to 65535; add one, like :51820`},
		{"Peer", `Endpoint = 192.0.2.256:51820`, `wg0.conf:2:12: Endpoint "192.0.2.256:51820": its host is neither an address nor a name`},
		{"Peer", `Endpoint = a b:51820`, `wg0.conf:2:12: Endpoint "a b:51820": its host is neither an address nor a name`},
		{"Peer", `Endpoint = ` + private + `:51820`, `wg0.conf:2:12: Endpoint: its host is neither an address nor a name`},
		{"Peer", `PersistentKeepalive = 65536`, `wg0.conf:2:23: PersistentKeepalive "65536": not an interval; use seconds from 0 to 65535, or off`},
		{"Peer", `ListenPort = 1`, `wg0.conf:2:14: ListenPort: belongs below [Interface], not below [Peer]`},
		{"Peer", `AllowedIP = 10.0.0.0/8`, `wg0.conf:2:13: AllowedIP: there is no such key in [Peer]; use one of AllowedIPs, Endpoint, PersistentKeepalive, PresharedKey, PublicKey`},
		{"Interface", `PrivateKey = ` + private + `x`, `wg0.conf:2:14: PrivateKey: not a key; use 32 bytes in base64, 44 characters that end in '='`},
		{"Interface", `PrivateKey = $KEY`, `wg0.conf:2:14: PrivateKey: not a key; use 32 bytes in base64, 44 characters that end in '='`},
		{"Interface", private, `wg0.conf:2:45: there is no such key in [Interface]` + use + `one of Address, DNS, FwMark, ListenPort, MTU, PostDown, PostUp, PreDown, PreUp, PrivateKey, SaveConfig, Table`},
		{"Interface", `PrivateKey ` + private, `wg0.conf:2:56: there is no such key in [Interface]` + use + `one of Address, DNS, FwMark, ListenPort, MTU, PostDown, PostUp, PreDown, PreUp, PrivateKey, SaveConfig, Table`},
		{"Interface", `ListenPort = 65536`, `wg0.conf:2:14: ListenPort "65536": not a port; use a number from 0 to 65535, where 0 picks a free one`},
		{"Interface", `FwMark = -1`, `wg0.conf:2:10: FwMark "-1": not a mark; use a number of 32 bits like 51820 or 0xca6c, or off`},
		{"Interface", `Address = 10.0.0.1/24/3`, `wg0.conf:2:11: Address "10.0.0.1/24/3": not a prefix; use address/length`},
		{"Interface", `DNS = 10.0.0.1, 10.0.0.300`, `wg0.conf:2:17: DNS "10.0.0.300": neither an address nor a search domain; use the address of a DNS server`},
		{"Interface", `MTU = 100`, `wg0.conf:2:7: MTU "100": too small for an MTU; use a number from 576 to 65535, or leave it out`},
		{"Interface", `MTU = big`, `wg0.conf:2:7: MTU "big": not an MTU; use a number from 576 to 65535, or leave it out`},
		{"Interface", `Table =`, `wg0.conf:2:8: Table: not a routing table; use off, auto, or the number or name of a table`},
		{"Interface", `SaveConfig = yes`, `wg0.conf:2:14: SaveConfig "yes": use true or false`},
		{"Interface", `PostUp = # nothing`, `wg0.conf:2:10: PostUp: no command; write one, or leave the line out`},
		{"Interface", `AllowedIPs = ::/0`, `wg0.conf:2:14: AllowedIPs: belongs below [Peer], not below [Interface]`},
		{"Interface", "MTU = 1420\nmtu = 1421", `wg0.conf:3:7: mtu: a second mtu in this section; the first is on line 2`},
		{"Interface", "[Interface]", `wg0.conf:2:1: a second [Interface]; the first is on line 1`},
		{"Interface", "[Peer", `wg0.conf:2:1: not a section; use [Name]`},
		{"Interface", "[Peer] x", `wg0.conf:2:1: not a section; use [Name]`},
		{"Interface", "just words", `wg0.conf:2:1: neither [Section] nor Key = Value`},
		{"Interface", "# x\n  = 5", `wg0.conf:3:3: a value without a key; use Key = Value`},
		{"Interface", "MTU = 1\x00", `wg0.conf:2:1: not text in UTF-8; save the file as UTF-8`},
		{"Interface", "PostUp = \xff", `wg0.conf:2:1: not text in UTF-8; save the file as UTF-8`},
		{"Socks5", "Password = a#secret", "wg0.conf:2:12: Password: a '#' or ';' inside of a value; put the value in `backquotes`, or a space before the comment"},
	} {
		text := "[" + tt.section + "]\n" + tt.line + "\n"
		if tt.section == "Peer" && !strings.HasPrefix(tt.line, "PublicKey") {
			text += "PublicKey = " + public + "\n"
		}
		f, err := Parse("wg0.conf", strings.NewReader(text))
		if err == nil || f != nil {
			t.Errorf("%q: no error", tt.line)
			continue
		}
		if err.Error() != tt.want {
			t.Errorf("%q:\n got %s\nwant %s", tt.line, err, tt.want)
		}
		if _, ok := errors.AsType[*Error](err); !ok {
			t.Errorf("%q: the error is a %T", tt.line, err)
		}
	}
}

func TestMistakesAreJoined(t *testing.T) {
	_, err := Parse("x", strings.NewReader("[Peer]\n\n[Peer]\nPublicKey = "+public+"\n[Peer]\nPublicKey = "+public+"\n[Interface]\nMTU=1"))
	want := "x:1:1: [Peer] has no PublicKey; add one\n" +
		"x:5:1: a second [Peer] with the PublicKey of the one on line 3; put both into one\n" +
		"x:8:5: MTU \"1\": too small for an MTU; use a number from 576 to 65535, or leave it out"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	_, err = Parse("x", strings.NewReader("[Interface]\n"+strings.Repeat("junk\n", 1000)))
	if lines := strings.Split(err.Error(), "\n"); len(lines) != maxMistakes+1 || lines[maxMistakes] != "and 980 more mistakes" {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
}

func TestBounds(t *testing.T) {
	ok := "[Interface]\nPostUp = " + strings.Repeat("x", maxLine-9)
	for _, end := range []string{"", "\n", "\r\n"} {
		parse(t, ok+end)
		if _, err := Parse("x", strings.NewReader(ok+"x"+end)); err == nil || err.Error() != "x:2:1: the line is longer than 64 KiB" {
			t.Errorf("a line of 64 KiB and a byte: %v", err)
		}
	}
	line := strings.Repeat("#", 1023) + "\n"
	parse(t, strings.Repeat(line, maxFile/1024))
	if _, err := Parse("x", strings.NewReader(strings.Repeat(line, maxFile/1024)+"\n")); err == nil || err.Error() != "x:16385:1: the file is longer than 16 MiB" {
		t.Errorf("a file of 16 MiB and a byte: %v", err)
	}
	broken := errors.New("broken disk")
	_, err := Parse("x", io.MultiReader(strings.NewReader("[Interface]\n"), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || err.Error() != "x: broken disk" {
		t.Errorf("an error of the reader: %v", err)
	}
}

func TestOtherSections(t *testing.T) {
	f := parse(t, "WGConfig = /etc/wg0.conf ; where\n[Socks5] ; a proxy\nBindAddress = 127.0.0.1:1080 # here\nUsername = `a#b;c`\nPassword = ' x ' # quoted\nTarget = \"unclosed\n\n[http]\n[http]\nKey=\n")
	want := []struct{ key, value, pos string }{
		{"BindAddress", "127.0.0.1:1080", "wg0.conf:3:15"},
		{"Username", "a#b;c", "wg0.conf:4:13"},
		{"Password", " x ", "wg0.conf:5:13"},
		{"Target", `"unclosed`, "wg0.conf:6:10"},
	}
	if len(f.Sections) != 3 || f.Sections[0].Name != "Socks5" || f.Sections[2].Pos.String() != "wg0.conf:9:1" || len(f.Sections[0].Entries) != len(want) {
		t.Fatalf("sections: %v", f.Sections)
	}
	for i, e := range f.Sections[0].Entries {
		if e.Key != want[i].key || e.Value != want[i].value || e.Pos.String() != want[i].pos {
			t.Errorf("%s: key %q, value %q; want %v", e.Pos, e.Key, e.Value, want[i])
		}
	}
	if len(f.Globals) != 1 || f.Globals[0].Value != "/etc/wg0.conf" || !f.Globals[0].Is("wgconfig") {
		t.Errorf("globals: %v", f.Globals)
	}
	if shown := fmt.Sprintf("%v %+v %#v", f.Sections, f.Sections, f.Sections); strings.Contains(shown, " x ") {
		t.Errorf("printing a section shows a password: %s", shown)
	}
	if err := f.Plain(); err == nil || err.Error() != "wg0.conf:1:12: WGConfig: stands outside of a section; put it below [Interface] or [Peer]\n"+
		"wg0.conf:2:1: there is no section [Socks5]; use [Interface] or [Peer]\n"+
		"wg0.conf:8:1: there is no section [http]; use [Interface] or [Peer]\n"+
		"wg0.conf:9:1: there is no section [http]; use [Interface] or [Peer]" {
		t.Errorf("Plain: %v", err)
	}
}

func TestEnv(t *testing.T) {
	env := map[string]string{"KEY": private + "\n", "IPS": "10.0.0.1/32, 10.0.0.2/32", "BAD": "hunter2"}
	p := &Parser{Env: func(k string) (string, bool) { v, ok := env[k]; return v, ok }, Extra: []string{"CheckAlive"}}
	f, err := p.Parse("x", strings.NewReader("[Interface]\nPrivateKey = $KEY\nAddress = $IPS\nPostUp = $KEY\ncheckalive = $$1\n[Socks5]\nA = $KEY\nB = `$KEY`\n"))
	if err != nil {
		t.Fatal(err)
	}
	if f.Interface.PrivateKey == nil || len(f.Interface.Address) != 2 || f.Interface.PostUp[0] != "$KEY" || f.Interface.Extra[0].Value != "$1" ||
		f.Sections[0].Entries[0].Value != private || f.Sections[0].Entries[1].Value != "$KEY" {
		t.Errorf("%+v", f)
	}
	_, err = p.Parse("x", strings.NewReader("[Interface]\nMTU = $BAD\n[Socks5]\nPassword = $ecret\n"))
	want := "x:2:7: MTU: not an MTU; use a number from 576 to 65535, or leave it out\n" +
		"x:4:12: Password: the environment variable it names is not set; set it, or write $$ for a value that begins with '$'"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestConfig(t *testing.T) {
	f := parse(t, "[Peer]\nPublicKey="+public+"\nEndpoint=a.example:1\nAllowedIPs=10.0.0.0/8\n[Peer]\nPublicKey="+public2+"\nEndpoint=192.0.2.1:2\n")
	c, err := f.Config(nil)
	if err != nil {
		t.Fatal(err)
	}
	if !c.PrivateKey.IsZero() || *c.ListenPort != 0 || *c.Mark != 0 || !c.ReplacePeers || len(c.Peers) != 2 {
		t.Errorf("what the file doesn't set must get its default: %+v", c)
	}
	if p := c.Peers[0]; p.Endpoint != nil || !p.ReplaceAllowedIPs || !p.PresharedKey.IsZero() || *p.PersistentKeepalive != 0 || len(p.AllowedIPs) != 1 {
		t.Errorf("first peer: %+v", p)
	}
	if p := c.Peers[1]; *p.Endpoint != netip.MustParseAddrPort("192.0.2.1:2") {
		t.Errorf("second peer: %+v", p)
	}
	asked := 0
	c, err = f.Config(func(e Endpoint) (netip.AddrPort, error) {
		asked++
		return netip.MustParseAddrPort("198.51.100.1:1"), nil
	})
	if err != nil || asked != 1 || c.Peers[0].Endpoint.String() != "198.51.100.1:1" {
		t.Errorf("resolve was called %d times, %v", asked, err)
	}
	none := errors.New("no such host")
	if _, err = f.Config(func(Endpoint) (netip.AddrPort, error) { return netip.AddrPort{}, none }); !errors.Is(err, none) ||
		!strings.HasPrefix(err.Error(), `wg0.conf:3:10: Endpoint "a.example:1": no such host`) {
		t.Errorf("a name that doesn't resolve: %v", err)
	}
}

// TestNoSecretInErrors puts a key in place of each value, and beside it, and looks for it in the error.
func TestNoSecretInErrors(t *testing.T) {
	secret := strings.TrimRight(private, "=")
	for _, table := range []map[string]key{interfaceKeys, peerKeys} {
		for _, k := range table {
			for _, v := range []string{" = " + private, " " + private, " = x" + private, " = " + private + " " + private, "=" + private + ":51820", " = 10.0.0.1," + private} {
				for _, section := range []string{"", "[Interface]\n", "[Peer]\n", "[Socks5]\n"} {
					for _, line := range []string{k.name + v, strings.TrimPrefix(v, " = ")} {
						f, err := Parse("x", strings.NewReader(section+line))
						if err != nil && strings.Contains(err.Error(), secret) {
							t.Errorf("%q: %v", section+line, err)
						} else if err == nil {
							if err := f.Plain(); err != nil && strings.Contains(err.Error(), secret) {
								t.Errorf("%q: Plain: %v", section+line, err)
							}
						}
					}
				}
			}
		}
	}
}
