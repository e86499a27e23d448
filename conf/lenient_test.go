package conf

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestNotGiven checks that a key with nothing behind it and an empty item of a list mean what a file without them does.
func TestNotGiven(t *testing.T) {
	const head = "[Interface]\nPrivateKey = " + private + "\nAddress = 10.0.0.1/32\n"
	const peer = "[Peer]\nPublicKey = " + public + "\nAllowedIPs = ::/0\n"
	want := forget(parse(t, head+peer))
	for _, line := range []string{
		"ListenPort =", "FwMark=", "PrivateKey = # none", "Address = ", "Address = ,", "DNS =", "DNS = , ,", "MTU = ", "Table =", "PreUp =", "PostUp = ",
		"PreDown =\t", "PostDown =# x", "SaveConfig =", "MTU =\nMTU =", "CheckAlive =",
	} {
		p := Parser{Extra: []string{"CheckAlive"}}
		f, err := p.Parse("f", strings.NewReader(head+line+"\n"+peer))
		if err != nil {
			t.Errorf("%q: %v", line, err)
		} else if got := forget(again(t, f)); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v", line, got)
		}
	}
	for _, line := range []string{"PresharedKey =", "AllowedIPs =", "AllowedIPs = ,", "Endpoint =", "PersistentKeepalive = ", "PublicKey ="} {
		f, err := Parse("f", strings.NewReader(head+peer+line+"\n"))
		if err != nil || !reflect.DeepEqual(forget(f), want) {
			t.Errorf("%q: %+v, %v", line, f, err)
		}
	}
	if t.Failed() {
		return
	}
	f := parse(t, head+"MTU =\nMTU = 1400\nMTU =\nDNS = 1.1.1.1,,example.net,\nAddress = , 10.0.0.2/32,\n"+peer+"AllowedIPs = 10.0.0.0/8, ,\n")
	if i := f.Interface; i.MTU != 1400 || fmt.Sprint(i.DNS, i.Search, i.Address, f.Peers[0].AllowedIPs) != "[1.1.1.1] [example.net] [10.0.0.1/32 10.0.0.2/32] [::/0 10.0.0.0/8]" {
		t.Errorf("%+v, %+v", i, f.Peers)
	}
	env := func(string) (string, bool) { return "", true }
	if _, err := (&Parser{Env: env}).Parse("f", strings.NewReader("[Interface]\nDNS = $DNS\nMTU = $MTU")); err == nil || !strings.HasPrefix(err.Error(), "f:2:7: DNS: ") {
		t.Errorf("empty variables, which aren't the same as nothing: %v", err)
	}
}

// TestWhatWgTakes has what wg(8) and wg-quick(8) of wireguard-tools 1.0.20210914 were seen to take, and the value they take it
// for.
func TestWhatWgTakes(t *testing.T) {
	peer := func(line string) string { return "[Peer]\nPublicKey=" + public + "\n" + line }
	for text, want := range map[string]string{
		"[Interface]\n\tListenPort\t=\t1 \t": "1", "[Interface]\nListenPort=00080": "80", "[INTERFACE]\nlistenport=1": "1", "[Interface]\r\nListenPort = 1\r\n": "1",
		"[Interface]\nListen Port = 1": "1", "# joined from two files\r\n\ufeff[Interface]\nListenPort = 1": "1", "[Interface]\n\vListenPort\f= 1": "1", "[Interface] # x\nListenPort = 1 # \xe9": "1",
		"# caf\xe9\n[Interface] # caf\xe9\nListenPort = 1#\xff\xfe": "1",
		"[Interface]\nFwMark = 0xca6c":                              "51820", "[Interface]\nFwMark = OFF": "0", "[Interface]\nFwMark = 010": "10",
		"[Interface]\nAddress = 10.0.0.1/8 10.0.0.2,fd00::1/64": "[10.0.0.1/8 10.0.0.2/32 fd00::1/64]",
		"[Interface]\nDNS = 1.1.1.1 example.net\tfd00::1":       "[1.1.1.1 fd00::1] [example.net]",
		"[Interface]\nSaveConfig = TRUE":                        "true", "[Interface]\nTable = AUTO": "auto", "[Interface]\nMTU = 01400": "1400", "[Interface]\nMTU = 0x580": "1408",
		"[Interface]\nPreUp = a\nPreUp = b %i = c # d": `["a" "b %i = c"]`, "[Interface]\nPreUp = echo 'a#b'": `["echo 'a"]`, "[Interface]\nPreUp = [ -f x ] && y": `["[ -f x ] && y"]`,
		peer("AllowedIPs = 10.0.0.0 / 8"): "[10.0.0.0/8]", peer("Allowed IPs = 10.0.0.1, fd00::1"): "[10.0.0.1/32 fd00::1/128]", peer("AllowedIPs = 10.0.0.1/08"): "[10.0.0.0/8]",
		peer("AllowedIPs = 10.0.0.0/8\nAllowedIPs = 10.1.0.0/16"): "[10.0.0.0/8 10.1.0.0/16]",
		peer("Endpoint = 192.0.2.1 : 51820"):                      "192.0.2.1:51820", peer("Endpoint = [2001:db8::1] : 51820"): "[2001:db8::1]:51820", peer("Endpoint = [fe80::1%lo]:51820"): "[fe80::1%lo]:51820",
		peer("Endpoint = [192.0.2.1]:51820"): "192.0.2.1:51820", peer("Endpoint = [localhost]:00051"): "localhost:51", peer("Endpoint = 192.0.2.1:1#frankfurt"): "192.0.2.1:1",
		peer("PersistentKeepalive = Off"): "0s", peer("PersistentKeepalive = 025"): "25s",
	} {
		f, err := Parse("f", strings.NewReader(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		i, got := f.Interface, ""
		switch {
		case i.ListenPort != nil:
			got = fmt.Sprint(*i.ListenPort)
		case i.Mark != nil:
			got = fmt.Sprint(*i.Mark)
		case i.Address != nil:
			got = fmt.Sprint(i.Address)
		case i.DNS != nil:
			got = fmt.Sprint(i.DNS, i.Search)
		case i.SaveConfig:
			got = "true"
		case i.PreUp != nil:
			got = fmt.Sprintf("%q", i.PreUp)
		case i.MTU != 0:
			got = fmt.Sprint(i.MTU)
		case i.Table != "":
			got = i.Table
		case f.Peers[0].AllowedIPs != nil:
			got = fmt.Sprint(f.Peers[0].AllowedIPs)
		case f.Peers[0].PersistentKeepalive != nil:
			got = f.Peers[0].PersistentKeepalive.String()
		default:
			got = f.Peers[0].Endpoint.String()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// TestSamples reads files as other programs write them; their keys are invented.
func TestSamples(t *testing.T) {
	paths, err := filepath.Glob("testdata/samples/*.conf")
	if err != nil || len(paths) < 10 {
		t.Fatalf("%d samples, %v", len(paths), err)
	}
	for _, path := range paths {
		in, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := Parse(path, in)
		in.Close()
		if err != nil {
			t.Error(err)
			continue
		}
		if f.Interface.PrivateKey == nil || len(f.Interface.Address) == 0 || len(f.Peers) == 0 || len(f.Peers[0].AllowedIPs) == 0 || f.Plain() != nil {
			t.Errorf("%s: %+v", path, f)
		}
		if got := again(t, f); !reflect.DeepEqual(forget(got), forget(f)) {
			t.Errorf("%s: what was read back differs", path)
		}
	}
}
