package text

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"throughline/wgtypes"
)

func TestReadConfig(t *testing.T) {
	k := key[wgtypes.PublicKey](0xab)
	peer := "public_key=" + hexOf(0xab) + "\n"
	prefix := netip.MustParsePrefix
	one := func(p wgtypes.PeerConfig) wgtypes.Config {
		p.PublicKey = k
		return wgtypes.Config{Peers: []wgtypes.PeerConfig{p}}
	}
	psk := key[wgtypes.PresharedKey](0xcd)
	for _, tc := range []struct {
		name, text string
		want       wgtypes.Config
	}{
		{"nothing", "", wgtypes.Config{}},
		{"everything", strings.TrimSuffix(fullConfigText, "\n"), fullConfig},
		{"no private key", "private_key=" + hexOf(0) + "\n", wgtypes.Config{PrivateKey: new(wgtypes.PrivateKey{})}},
		{"upper case", "private_key=" + strings.ToUpper(hexOf(0xab)) + "\n", wgtypes.Config{PrivateKey: new(key[wgtypes.PrivateKey](0xab))}},
		{"the last of two wins", "listen_port=1\nlisten_port=2\n", wgtypes.Config{ListenPort: new(uint16(2))}},
		{"port 0", "listen_port=0\n", wgtypes.Config{ListenPort: new(uint16(0))}},
		{"port 65535", "listen_port=65535\n", wgtypes.Config{ListenPort: new(uint16(65535))}},
		{"mark 0", "fwmark=0\n", wgtypes.Config{Mark: new(uint32(0))}},
		{"mark in full", "fwmark=4294967295\n", wgtypes.Config{Mark: new(uint32(1<<32 - 1))}},
		{"mark in hexadecimal", "fwmark=0xCa6c\n", wgtypes.Config{Mark: new(uint32(0xca6c))}},
		{"mark with zeros", "fwmark=0X00000000ffffffff\n", wgtypes.Config{Mark: new(uint32(1<<32 - 1))}},
		{"replace peers", "replace_peers=true\n", wgtypes.Config{ReplacePeers: true}},

		{"peer", peer, one(wgtypes.PeerConfig{})},
		{"zero public key", "public_key=" + hexOf(0) + "\n", wgtypes.Config{Peers: make([]wgtypes.PeerConfig, 1)}},
		{"version", peer + "protocol_version=1\n", one(wgtypes.PeerConfig{})},
		{"update only", peer + "update_only=true\n", one(wgtypes.PeerConfig{UpdateOnly: true})},
		{"remove", peer + "remove=true\n", one(wgtypes.PeerConfig{Remove: true})},
		{"preshared key", peer + "preshared_key=" + hexOf(0xcd) + "\n", one(wgtypes.PeerConfig{PresharedKey: &psk})},
		{"no preshared key", peer + "preshared_key=" + hexOf(0) + "\n", one(wgtypes.PeerConfig{PresharedKey: new(wgtypes.PresharedKey{})})},
		{"two preshared keys", peer + "preshared_key=" + hexOf(1) + "\npreshared_key=" + hexOf(0xcd) + "\n", one(wgtypes.PeerConfig{PresharedKey: &psk})},
		{"endpoint", peer + "endpoint=192.0.2.1:65535\n", one(wgtypes.PeerConfig{Endpoint: new(netip.MustParseAddrPort("192.0.2.1:65535"))})},
		{"endpoint 6", peer + "endpoint=[2001:db8::1]:1\n", one(wgtypes.PeerConfig{Endpoint: new(netip.MustParseAddrPort("[2001:db8::1]:1"))})},
		{"endpoint with a zone", peer + "endpoint=[fe80::1%3]:1\n", one(wgtypes.PeerConfig{Endpoint: new(netip.MustParseAddrPort("[fe80::1%3]:1"))})},
		{"endpoint 4 in 6", peer + "endpoint=[::ffff:192.0.2.1]:1\n", one(wgtypes.PeerConfig{Endpoint: new(netip.MustParseAddrPort("192.0.2.1:1"))})},
		{"two endpoints", peer + "endpoint=1.1.1.1:1\nendpoint=2.2.2.2:2\n", one(wgtypes.PeerConfig{Endpoint: new(netip.MustParseAddrPort("2.2.2.2:2"))})},
		{"keepalive off", peer + "persistent_keepalive_interval=0\n", one(wgtypes.PeerConfig{PersistentKeepalive: new(time.Duration(0))})},
		{"keepalive", peer + "persistent_keepalive_interval=65535\n", one(wgtypes.PeerConfig{PersistentKeepalive: new(65535 * time.Second)})},
		{"no allowed IPs", peer + "replace_allowed_ips=true\nreplace_allowed_ips=true\n", one(wgtypes.PeerConfig{ReplaceAllowedIPs: true})},
		{"allowed IPs", peer + "allowed_ip=0.0.0.0/0\nallowed_ip=::/0\nallowed_ip=10.9.8.7/8\nallowed_ip=fd00::1/128\n",
			one(wgtypes.PeerConfig{AllowedIPs: []netip.Prefix{prefix("0.0.0.0/0"), prefix("::/0"), prefix("10.0.0.0/8"), prefix("fd00::1/128")}})},
		{"removed and added", peer + "allowed_ip=-10.0.0.0/8\nallowed_ip=-fd00::/8\nallowed_ip=10.0.0.0/8\n",
			one(wgtypes.PeerConfig{RemoveAllowedIPs: []netip.Prefix{prefix("10.0.0.0/8"), prefix("fd00::/8")}, AllowedIPs: []netip.Prefix{prefix("10.0.0.0/8")}})},

		{"added and removed", peer + "update_only=true\nallowed_ip=10.0.0.0/8\nallowed_ip=-10.0.0.0/8\n", wgtypes.Config{Peers: []wgtypes.PeerConfig{
			{PublicKey: k, UpdateOnly: true, AllowedIPs: []netip.Prefix{prefix("10.0.0.0/8")}},
			{PublicKey: k, UpdateOnly: true, RemoveAllowedIPs: []netip.Prefix{prefix("10.0.0.0/8")}}}}},
		{"update only comes last", peer + "allowed_ip=10.0.0.0/8\nreplace_allowed_ips=true\nupdate_only=true\n", wgtypes.Config{Peers: []wgtypes.PeerConfig{
			{PublicKey: k, UpdateOnly: true, AllowedIPs: []netip.Prefix{prefix("10.0.0.0/8")}},
			{PublicKey: k, UpdateOnly: true, ReplaceAllowedIPs: true}}}},
		{"remove ends it", peer + "preshared_key=" + hexOf(1) + "\nallowed_ip=-10.0.0.0/8\nremove=true\nallowed_ip=10.0.0.0/8\nendpoint=1.1.1.1:1\npreshared_key=" + hexOf(1) + "\npersistent_keepalive_interval=1\nreplace_allowed_ips=true\nupdate_only=true\nremove=true\n",
			one(wgtypes.PeerConfig{Remove: true})},
		{"taken from another, then removed", peer + "allowed_ip=10.0.0.0/8\nremove=true\n", wgtypes.Config{Peers: []wgtypes.PeerConfig{
			{PublicKey: k, AllowedIPs: []netip.Prefix{prefix("10.0.0.0/8")}}, {PublicKey: k, Remove: true}}}},
		{"named twice", peer + "allowed_ip=10.0.0.0/8\n" + peer + "remove=true\n" + peer, wgtypes.Config{Peers: []wgtypes.PeerConfig{
			{PublicKey: k, AllowedIPs: []netip.Prefix{prefix("10.0.0.0/8")}}, {PublicKey: k, Remove: true}, {PublicKey: k}}}},
		{"from nothing", "replace_peers=true\n" + peer + "update_only=true\n" + peer + "remove=true\n" + peer + "allowed_ip=-10.0.0.0/8\n" + peer + "allowed_ip=10.0.0.0/8\n",
			wgtypes.Config{ReplacePeers: true, Peers: []wgtypes.PeerConfig{
				{PublicKey: k, PresharedKey: new(wgtypes.PresharedKey{}), PersistentKeepalive: new(time.Duration(0)), ReplaceAllowedIPs: true},
				{PublicKey: k, AllowedIPs: []netip.Prefix{prefix("10.0.0.0/8")}}}}},
	} {
		r := bufio.NewReader(strings.NewReader(tc.text + "\nnext"))
		got, err := ReadConfig(r)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if len(got.Peers) == 0 {
			got.Peers = nil
		}
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", tc.name, got, tc.want)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "next" {
			t.Errorf("%s: %q is left to read", tc.name, rest)
		}
	}
}

func TestReadConfigRefuses(t *testing.T) {
	peer := "public_key=" + hexOf(0xab) + "\n"
	secret := hexOf(0x5e)
	for _, tc := range []struct{ text, want string }{
		{"private_key=" + secret[1:], "line 1: private_key: not a key (64 hexadecimal digits)"},
		{"private_key=" + secret + "0", "line 1: private_key: not a key (64 hexadecimal digits)"},
		{"private_key=g" + secret[1:], "line 1: private_key: not a key (64 hexadecimal digits)"},
		{"private_key=", "line 1: private_key: not a key (64 hexadecimal digits)"},
		{"listen_port=1\nfwmark=1\nlisten_port=70000", `line 3: listen_port "70000": not a port (0 to 65535)`},
		{"listen_port=65536", `line 1: listen_port "65536": not a port (0 to 65535)`},
		{"listen_port=-1", `line 1: listen_port "-1": not a port (0 to 65535)`},
		{"listen_port=+1", `line 1: listen_port "+1": not a port (0 to 65535)`},
		{"listen_port=", `line 1: listen_port: not a port (0 to 65535)`},
		{"listen_port= 1", `line 1: listen_port " 1": not a port (0 to 65535)`},
		{"listen_port=1\r", `line 1: listen_port "1\r": not a port (0 to 65535)`},
		{"listen_port=0x10", `line 1: listen_port "0x10": not a port (0 to 65535)`},
		{"listen_port=18446744073709551617", `line 1: listen_port "18446744073709551617": not a port (0 to 65535)`},
		{"fwmark=4294967296", `line 1: fwmark "4294967296": ` + badMark},
		{"fwmark=0x", `line 1: fwmark "0x": ` + badMark},
		{"fwmark=0x100000000", `line 1: fwmark "0x100000000": ` + badMark},
		{"fwmark=0xg", `line 1: fwmark "0xg": ` + badMark},
		{"fwmark=off", `line 1: fwmark "off": ` + badMark},
		{"replace_peers=false", `line 1: replace_peers "false": not "true"`},
		{"replace_peers=", `line 1: replace_peers: not "true"`},
		{"errno=0", `line 1: errno "0": not a key of the protocol`},
		{"privatekey=" + secret, "line 1: privatekey: not a key of the protocol"},
		{"private_key =" + secret, "line 1: not a key of the protocol"},
		{secret + "=" + secret, "line 1: not a key of the protocol"},
		{"=" + secret, "line 1: not a key of the protocol"},
		{secret, `line 1: no "=" in it`},
		{"get", `line 1: no "=" in it`},
		{"endpoint=1.1.1.1:1", `line 1: endpoint "1.1.1.1:1": no public_key comes before it`},
		{"preshared_key=" + secret, "line 1: preshared_key: no public_key comes before it"},
		{peer + "private_key=" + secret, "line 2: private_key: it must come before the first public_key"},
		{peer + "replace_peers=true", `line 2: replace_peers "true": it must come before the first public_key`},
		{"public_key=" + secret[2:], "line 1: public_key: not a key (64 hexadecimal digits)"},
		{peer + "preshared_key=" + secret[2:], "line 2: preshared_key: not a key (64 hexadecimal digits)"},
		{peer + "remove=1", `line 2: remove "1": not "true"`},
		{peer + "update_only=yes", `line 2: update_only "yes": not "true"`},
		{peer + "replace_allowed_ips=TRUE", `line 2: replace_allowed_ips "TRUE": not "true"`},
		{peer + "protocol_version=2", `line 2: protocol_version "2": ` + badVersion},
		{peer + "rx_bytes=0", `line 2: rx_bytes "0": not a key of the protocol`},
		{peer + "endpoint=", "line 2: endpoint: " + badEndpoint},
		{peer + "endpoint=example.com:51820", `line 2: endpoint "example.com:51820": ` + badEndpoint},
		{peer + "endpoint=1.1.1.1", `line 2: endpoint "1.1.1.1": ` + badEndpoint},
		{peer + "endpoint=1.1.1.1:0", `line 2: endpoint "1.1.1.1:0": ` + badEndpoint},
		{peer + "endpoint=1.1.1.1:65536", `line 2: endpoint "1.1.1.1:65536": ` + badEndpoint},
		{peer + "endpoint=::1:80", `line 2: endpoint "::1:80": ` + badEndpoint},
		{peer + "endpoint=[fe80::1%a b]:80", `line 2: endpoint "[fe80::1%a b]:80": ` + badEndpoint},
		{peer + "endpoint=[fe80::1%]:80", `line 2: endpoint "[fe80::1%]:80": ` + badEndpoint},
		{peer + "endpoint=[fe80::1%abcdefghijklmnop]:80", `line 2: endpoint "[fe80::1%abcdefghijklmnop]:80": ` + badEndpoint},
		{peer + "endpoint=" + secret, "line 2: endpoint: " + badEndpoint},
		{peer + "persistent_keepalive_interval=65536", `line 2: persistent_keepalive_interval "65536": not an interval (0 to 65535 seconds)`},
		{peer + "persistent_keepalive_interval=off", `line 2: persistent_keepalive_interval "off": not an interval (0 to 65535 seconds)`},
		{peer + "allowed_ip=", "line 2: allowed_ip: not a prefix (address/length)"},
		{peer + "allowed_ip=-", `line 2: allowed_ip "-": not a prefix (address/length)`},
		{peer + "allowed_ip=--10.0.0.0/8", `line 2: allowed_ip "--10.0.0.0/8": not a prefix (address/length)`},
		{peer + "allowed_ip=10.0.0.1", `line 2: allowed_ip "10.0.0.1": not a prefix (address/length)`},
		{peer + "allowed_ip=10.0.0.1/33", `line 2: allowed_ip "10.0.0.1/33": not a prefix (address/length)`},
		{peer + "allowed_ip=10.0.0.1/-1", `line 2: allowed_ip "10.0.0.1/-1": not a prefix (address/length)`},
		{peer + "allowed_ip=10.0.0.1/08", `line 2: allowed_ip "10.0.0.1/08": not a prefix (address/length)`},
		{peer + "allowed_ip=10.0.0.256/8", `line 2: allowed_ip "10.0.0.256/8": not a prefix (address/length)`},
		{peer + "allowed_ip=::1/129", `line 2: allowed_ip "::1/129": not a prefix (address/length)`},
		{peer + "allowed_ip=fe80::1%eth0/64", `line 2: allowed_ip "fe80::1%eth0/64": not a prefix (address/length)`},
		{peer + "remove=true\nallowed_ip=x", `line 3: allowed_ip "x": not a prefix (address/length)`},
		{"listen_port=" + strings.Repeat("1", maxLine), "line 1: a line longer than 4096 bytes"},
		{"private_key=" + strings.Repeat("5e", 3*maxLine), "line 1: a line longer than 4096 bytes"},
	} {
		r := bufio.NewReader(strings.NewReader(tc.text + "\nprivate_key=" + secret + "\nx\n\nnext"))
		cfg, err := ReadConfig(r)
		bad, ok := errors.AsType[*ParseError](err)
		if !ok || err.Error() != "uapi: "+tc.want {
			t.Errorf("%.80q:\n got %v\nwant uapi: %s", tc.text, err, tc.want)
			continue
		}
		if !reflect.DeepEqual(cfg, wgtypes.Config{}) {
			t.Errorf("%.80q: refused, yet there is a Config", tc.text)
		}
		if strings.Contains(err.Error(), secret[:12]) || strings.Contains(fmt.Sprintf("%+v", *bad), secret[:12]) {
			t.Errorf("%.80q: the error has the secret in it: %v", tc.text, err)
		}
		want := syscall.EINVAL
		if bad.Key == "" && bad.Reason != unknownKey {
			want = syscall.EPROTO
		}
		if !errors.Is(err, want) {
			t.Errorf("%.80q: errno %d, want %d", tc.text, bad.Errno, want)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "next" {
			t.Errorf("%.80q: %q is left to read", tc.text, rest)
		}
	}
}

// TestErrorsHideBase64 puts keys in base64, as users of wg(8) know them, where they don't belong.
func TestErrorsHideBase64(t *testing.T) {
	secret := wgtypes.NewPrivateKey().Base64()
	for _, before := range []string{"", "private_key=", "listen_port=", "endpoint=", "allowed_ip=-", "x=", "replace_peers= "} {
		for _, peer := range []string{"", "public_key=" + hexOf(1) + "\n"} {
			_, err := readConfig(peer + before + secret + "\n\n")
			if err == nil || strings.Contains(err.Error(), secret[:8]) {
				t.Errorf("%s: %v", before, err)
			}
		}
	}
	if _, err := base64.StdEncoding.DecodeString(secret); err != nil {
		t.Fatal("not base64:", err)
	}
}

func TestReadConfigCutShort(t *testing.T) {
	text := fullConfigText
	for n := range len(text) {
		cfg, err := readConfig(text[:n])
		if !errors.Is(err, io.ErrUnexpectedEOF) || !reflect.DeepEqual(cfg, wgtypes.Config{}) {
			t.Fatalf("the first %d bytes of a request: %+v, %v", n, cfg, err)
		}
	}
	broken := errors.New("broken")
	if _, err := ReadConfig(bufio.NewReader(io.MultiReader(strings.NewReader("fwmark=1\n"), iotest.ErrReader(broken)))); !errors.Is(err, broken) {
		t.Errorf("a reader's error came back as %v", err)
	}
}

func TestReadConfigWipes(t *testing.T) {
	text := []byte("private_key=" + hexOf(0x5e) + "\npublic_key=" + hexOf(1) + "\npreshared_key=" + hexOf(0x5e) + "\nx\npreshared_key=" + hexOf(0x5e) + "\n\n")
	r := bufio.NewReader(bytes.NewReader(text))
	if _, err := r.Peek(len(text)); err != nil {
		t.Fatal(err)
	}
	window, _ := r.Peek(len(text)) // into the reader's own buffer
	if _, err := ReadConfig(r); err == nil {
		t.Fatal("x is no line")
	}
	if bytes.Contains(window, []byte("5e5e")) {
		t.Errorf("the reader's buffer still holds a key")
	}
}

func TestReadConfigLimits(t *testing.T) {
	peer := "public_key=" + hexOf(1) + "\n"
	for _, tc := range []struct{ text, want string }{
		{strings.Repeat(peer, 3), ""},
		{strings.Repeat(peer, 4), "uapi: line 4: public_key: more than 1048576 peers"},
		{peer + strings.Repeat("allowed_ip=::/0\nreplace_allowed_ips=true\n", 2), ""},
		{peer + strings.Repeat("allowed_ip=::/0\nreplace_allowed_ips=true\n", 3), "uapi: line 7: replace_allowed_ips: more than 1048576 peers"},
		{peer + strings.Repeat("allowed_ip=::/0\nallowed_ip=-::/0\n", 2) + "allowed_ip=::/0\nreplace_allowed_ips=true\n", "uapi: line 7: replace_allowed_ips: more than 1048576 peers"},
		{peer + peer + peer + "allowed_ip=::/0\nremove=true\n", "uapi: line 5: remove: more than 1048576 peers"},
		{peer + strings.Repeat("allowed_ip=::/0\n", 5), ""},
		{peer + strings.Repeat("allowed_ip=::/0\n", 6), "uapi: line 7: allowed_ip: more than 8388608 allowed IPs"},
		{peer + strings.Repeat("allowed_ip=-::/0\n", 6), "uapi: line 7: allowed_ip: more than 8388608 allowed IPs"},
		{peer + "remove=true\n" + strings.Repeat("allowed_ip=::/0\n", 9), ""},
	} {
		r := bufio.NewReader(strings.NewReader(tc.text + "fwmark=x\n\nnext"))
		if tc.want == "" {
			r = bufio.NewReader(strings.NewReader(tc.text + "\nnext"))
		}
		c := configReader{lines: lines{r: r}, mention: -1, maxPeers: 3, maxPrefixes: 5}
		_, err := c.read()
		if err == nil && tc.want != "" || err != nil && (err.Error() != tc.want || !errors.Is(err, syscall.E2BIG)) {
			t.Errorf("%q: got %v, want %s", tc.text, err, tc.want)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "next" {
			t.Errorf("%q: %q is left to read", tc.text, rest)
		}
	}
}

// drawConfig draws a configuration as ReadConfig returns them.
func drawConfig(t *rapid.T) wgtypes.Config {
	var cfg wgtypes.Config
	array := func(name string) (k [32]byte) {
		copy(k[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, name))
		return k
	}
	yes := func(name string) bool { return rapid.Bool().Draw(t, name) }
	if yes("private") {
		cfg.PrivateKey = new(wgtypes.PrivateKey(array("private key")))
	}
	if yes("port") {
		cfg.ListenPort = new(rapid.Uint16().Draw(t, "listen port"))
	}
	if yes("mark") {
		cfg.Mark = new(rapid.Uint32().Draw(t, "fwmark"))
	}
	cfg.ReplacePeers = yes("replace peers")
	for i := range rapid.IntRange(0, 4).Draw(t, "peers") {
		p := wgtypes.PeerConfig{PublicKey: wgtypes.PublicKey(array("public key"))}
		p.PublicKey[0] = byte(i) // named once
		if !cfg.ReplacePeers && yes("remove") {
			p.Remove = true
			cfg.Peers = append(cfg.Peers, p)
			continue
		}
		p.UpdateOnly = !cfg.ReplacePeers && yes("update only")
		if cfg.ReplacePeers || yes("preshared") {
			p.PresharedKey = new(wgtypes.PresharedKey(array("preshared key")))
		}
		if yes("endpoint") {
			a := drawAddr(t)
			if a.Is6() && yes("zone") {
				a = a.WithZone(rapid.StringMatching(`[a-z0-9.]{1,15}`).Draw(t, "zone name"))
			}
			p.Endpoint = new(netip.AddrPortFrom(a, uint16(rapid.IntRange(1, 65535).Draw(t, "endpoint port"))))
		}
		if cfg.ReplacePeers || yes("keepalive") {
			p.PersistentKeepalive = new(time.Duration(rapid.Uint16().Draw(t, "interval")) * time.Second)
		}
		p.ReplaceAllowedIPs = cfg.ReplacePeers || yes("replace allowed IPs")
		p.AllowedIPs = drawPrefixes(t)
		if !cfg.ReplacePeers {
			p.RemoveAllowedIPs = drawPrefixes(t)
		}
		cfg.Peers = append(cfg.Peers, p)
	}
	return cfg
}

func drawAddr(t *rapid.T) netip.Addr {
	n := rapid.SampledFrom([]int{4, 16}).Draw(t, "family")
	a, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "address"))
	return a.Unmap()
}

func drawPrefixes(t *rapid.T) (list []netip.Prefix) {
	for range rapid.IntRange(0, 5).Draw(t, "prefixes") {
		a := drawAddr(t)
		p, _ := a.Prefix(rapid.IntRange(0, a.BitLen()).Draw(t, "bits"))
		list = append(list, p)
	}
	return list
}

func TestConfigThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := drawConfig(t)
		var text bytes.Buffer
		if err := WriteConfig(&text, &cfg); err != nil {
			t.Fatal(err)
		}
		got, err := ReadConfig(bufio.NewReaderSize(iotest.OneByteReader(&text), 128))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, cfg) {
			t.Fatalf("there and back:\n got %+v\nwant %+v", got, cfg)
		}
	})
}

func TestParsePrefix4(t *testing.T) {
	for _, s := range []string{"0.0.0.0/0", "10.0.0.0/8", "255.255.255.255/32", "1.2.3.4/9", "1.2.3.4/", "1.2.3.4", "1.2.3/8", "1.2.3.4.5/8",
		"01.2.3.4/8", "1.2.3.04/8", "1.2.3.256/8", "1.2.3.4/33", "1.2.3.4/00", "1.2.3.4/1 ", "1.2.3.4/123", "", "/", "....", ".../8", "1...4/8", "1000.2.3.4/8"} {
		want, err := netip.ParsePrefix(s)
		got, ok := parsePrefix4([]byte(s))
		if ok != (err == nil) || got != want.Masked() {
			t.Errorf("%q: %v, %v; netip has %v, %v", s, got, ok, want.Masked(), err)
		}
	}
}

func FuzzReadConfig(f *testing.F) {
	f.Add([]byte(fullConfigText))
	f.Add([]byte("replace_peers=true\nfwmark=0x1\npublic_key=" + hexOf(1) + "\nallowed_ip=1.2.3.4/32\nallowed_ip=-::1/1\nremove=true\n\n"))
	f.Add([]byte("x=\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg, err := ReadConfig(bufio.NewReader(bytes.NewReader(text)))
		if err != nil {
			return
		}
		var first, second bytes.Buffer
		if err := WriteConfig(&first, &cfg); err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
		again, err := ReadConfig(bufio.NewReader(bytes.NewReader(first.Bytes())))
		if err != nil {
			t.Fatalf("what was written can't be read: %v\n%s", err, first.Bytes())
		}
		WriteConfig(&second, &again)
		if !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Fatalf("there and back:\n%s\n\n%s", first.Bytes(), second.Bytes())
		}
	})
}
