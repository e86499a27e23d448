//go:build unix

package uapi

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"throughline/wgtypes"
)

// A wg runs the installed wg(8) on an interface that it can find.
type wg struct {
	t    *testing.T
	path string
	name string
}

// newWG serves dev where wg(8) looks, under a name that no other interface has.
func newWG(t *testing.T, dev Device) *wg {
	t.Helper()
	path, err := exec.LookPath("wg")
	need := func(err error) {
		if err == nil {
			return
		}
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("wg(8) can't be tested here:", err)
	}
	need(err)
	if os.Geteuid() != 0 {
		need(fmt.Errorf("only root may make sockets in %s", Dir))
	}
	name := fmt.Sprintf("tl%d", os.Getpid())
	l, err := Listen(name)
	need(err)
	t.Cleanup(func() { l.Close() })
	serveOn(t, l, dev)
	return &wg{t: t, path: path, name: name}
}

// run runs wg with a configuration on its standard input and returns its output.
func (w *wg) run(stdin string, args ...string) (string, error) {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), w.path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "WG_COLOR_MODE=never", "WG_HIDE_KEYS=never")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (w *wg) must(stdin string, args ...string) string {
	w.t.Helper()
	out, err := w.run(stdin, args...)
	if err != nil {
		w.t.Fatalf("wg %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

func TestStockShow(t *testing.T) {
	st := fullStatus
	st.Peers = append([]wgtypes.PeerStatus(nil), fullStatus.Peers...)
	st.Peers[0].Endpoint = netip.MustParseAddrPort("[2001:db8::1]:4500")
	for i := range 5 { // more, in an order that is neither that of their keys nor of their handshakes
		st.Peers = append(st.Peers, wgtypes.PeerStatus{PublicKey: key[wgtypes.PublicKey](byte(100 + i*37)), RxBytes: uint64(i)})
	}
	w := newWG(t, &model{st: st})

	want := []string{st.PrivateKey.Base64() + "\t" + st.PublicKey.String() + "\t51820\t0x33"}
	for i, p := range st.Peers {
		psk, endpoint, ips, sec, keepalive := "(none)", "(none)", "(none)", 0, "off"
		if i == 0 {
			psk, endpoint, ips, sec, keepalive = p.PresharedKey.Base64(), "[2001:db8::1]:4500", "10.1.0.0/16,::/0", 1700000000, "25"
		}
		want = append(want, fmt.Sprintf("%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s", p.PublicKey, psk, endpoint, ips, sec, p.RxBytes, p.TxBytes, keepalive))
	}
	if got := w.must("", "show", w.name, "dump"); got != strings.Join(want, "\n")+"\n" {
		t.Errorf("wg show dump:\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	if got := w.must("", "show", w.name); !strings.Contains(got, "listening port: 51820") || !strings.Contains(got, "allowed ips: 10.1.0.0/16, ::/0") {
		t.Errorf("wg show:\n%s", got)
	}
	if got := w.must("", "show", "interfaces"); !strings.Contains(" "+strings.TrimSpace(got)+" ", " "+w.name+" ") {
		t.Errorf("wg show interfaces: %s", got)
	}
}

func TestStockSet(t *testing.T) {
	dev := &model{}
	w := newWG(t, dev)
	private, psk := wgtypes.NewPrivateKey(), wgtypes.NewPresharedKey()
	a, b := wgtypes.NewPrivateKey().Public(), wgtypes.NewPrivateKey().Public()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	w.must("", "set", w.name, "listen-port", "51820", "fwmark", "0x33", "private-key", file("private", private.Base64()),
		"peer", a.String(), "preshared-key", file("psk", psk.Base64()), "endpoint", "[2001:db8::1]:7", "persistent-keepalive", "25", "allowed-ips", "10.0.0.0/8,fd00::/8",
		"peer", b.String(), "allowed-ips", "10.1.0.0/16")
	want := wgtypes.Status{
		PrivateKey: private, PublicKey: private.Public(), ListenPort: 51820, Mark: 0x33,
		Peers: []wgtypes.PeerStatus{{
			PublicKey: a, PresharedKey: psk, Endpoint: netip.MustParseAddrPort("[2001:db8::1]:7"), PersistentKeepalive: 25 * time.Second,
			AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")},
		}, {
			PublicKey: b, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")},
		}},
	}
	if got := dev.Status(); !reflect.DeepEqual(got, want) {
		t.Errorf("wg set:\n got %+v\nwant %+v", got, want)
	}
	w.must("", "set", w.name, "fwmark", "off", "private-key", os.DevNull,
		"peer", a.String(), "remove", "peer", b.String(), "persistent-keepalive", "off", "allowed-ips", "")
	want = wgtypes.Status{ListenPort: 51820, Peers: []wgtypes.PeerStatus{{PublicKey: b}}}
	if got := dev.Status(); !reflect.DeepEqual(got, want) {
		t.Errorf("wg set again:\n got %+v\nwant %+v", got, want)
	}
}

func TestStockConf(t *testing.T) {
	dev := &model{}
	w := newWG(t, dev)
	a, b, c := wgtypes.NewPrivateKey().Public(), wgtypes.NewPrivateKey().Public(), wgtypes.NewPrivateKey().Public()
	psk := wgtypes.NewPresharedKey()
	private := wgtypes.NewPrivateKey()
	conf := "[Interface]\nPrivateKey = " + private.Base64() + "\nListenPort = 7\n"
	peer := func(k wgtypes.PublicKey, more string) string {
		return "[Peer]\nPublicKey = " + k.String() + "\n" + more
	}
	ten := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	eleven := []netip.Prefix{netip.MustParsePrefix("11.0.0.0/8")}

	w.must(conf+peer(a, "PresharedKey = "+psk.Base64()+"\nAllowedIPs = 10.0.0.0/8\nPersistentKeepalive = 5\n")+peer(b, "AllowedIPs = 11.0.0.0/8\n"), "setconf", w.name, "/dev/stdin")
	want := wgtypes.Status{PrivateKey: private, PublicKey: private.Public(), ListenPort: 7, Peers: []wgtypes.PeerStatus{
		{PublicKey: a, PresharedKey: psk, PersistentKeepalive: 5 * time.Second, AllowedIPs: ten}, {PublicKey: b, AllowedIPs: eleven}}}
	if got := dev.Status(); !reflect.DeepEqual(got, want) {
		t.Errorf("setconf:\n got %+v\nwant %+v", got, want)
	}

	// Another file: a loses what the new one doesn't set, b is removed, c is added and takes b's prefix.
	w.must(conf+peer(a, "AllowedIPs = 10.0.0.0/8\n")+peer(c, "AllowedIPs = 11.0.0.0/8\n"), "setconf", w.name, "/dev/stdin")
	want.Peers = []wgtypes.PeerStatus{{PublicKey: a, AllowedIPs: ten}, {PublicKey: c, AllowedIPs: eleven}}
	if got := dev.Status(); !reflect.DeepEqual(got, want) {
		t.Errorf("setconf again:\n got %+v\nwant %+v", got, want)
	}

	w.must(conf+peer(c, "AllowedIPs = 10.0.0.0/8\n")+peer(b, ""), "syncconf", w.name, "/dev/stdin")
	want.Peers = []wgtypes.PeerStatus{{PublicKey: c, AllowedIPs: ten}, {PublicKey: b}}
	if got := dev.Status(); !reflect.DeepEqual(got, want) {
		t.Errorf("syncconf:\n got %+v\nwant %+v", got, want)
	}

	w.must("[Peer]\nPublicKey = "+a.String()+"\nAllowedIPs = 11.0.0.0/8\n", "addconf", w.name, "/dev/stdin")
	want.Peers = append(want.Peers, wgtypes.PeerStatus{PublicKey: a, AllowedIPs: eleven})
	if got := dev.Status(); !reflect.DeepEqual(got, want) {
		t.Errorf("addconf:\n got %+v\nwant %+v", got, want)
	}

	// What wg writes, wg reads back.
	text := w.must("", "showconf", w.name)
	w.must(text, "setconf", w.name, "/dev/stdin")
	if got := dev.Status(); !reflect.DeepEqual(got, want) {
		t.Errorf("showconf and setconf:\n got %+v\nwant %+v", got, want)
	}
}

func TestStockErrors(t *testing.T) {
	dev := &model{}
	w := newWG(t, dev)
	for err, want := range map[error]string{
		fmt.Errorf("udp: %w", syscall.EADDRINUSE): "Address already in use",
		syscall.EPERM:          "Operation not permitted",
		fmt.Errorf("no"):       "Invalid argument",
		os.ErrDeadlineExceeded: "Invalid argument",
	} {
		dev.setRefuse(err)
		out, rerr := w.run("", "set", w.name, "listen-port", "7")
		if rerr == nil || !strings.Contains(out, want) {
			t.Errorf("%v: wg says %q, want %q", err, out, want)
		}
	}
}

// TestStockMany sets and shows as many peers as a gateway has.
func TestStockMany(t *testing.T) {
	dev := &model{st: wgtypes.Status{ListenPort: 51820}}
	for i := range 500 {
		b := [4]byte{10, 0, byte(i >> 8), byte(i)}
		p := wgtypes.PeerStatus{
			PublicKey: wgtypes.PublicKey{0: b[3], 1: b[2]}, PresharedKey: wgtypes.PresharedKey{0: 1, 1: b[3]},
			Endpoint: netip.AddrPortFrom(netip.AddrFrom4(b), 51820), PersistentKeepalive: time.Duration(i) * time.Second,
			AllowedIPs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4(b), 32), netip.MustParsePrefix(fmt.Sprintf("fd00:%x::/64", i))},
		}
		dev.st.Peers = append(dev.st.Peers, p)
	}
	want := dev.Status()
	w := newWG(t, dev)
	out := w.must("", "showconf", w.name)
	w.must("[Interface]\nListenPort = 7\n", "setconf", w.name, "/dev/stdin")
	if got := dev.Status(); len(got.Peers) != 0 {
		t.Fatalf("%d peers are left", len(got.Peers))
	}
	w.must(out, "setconf", w.name, "/dev/stdin")
	if got := dev.Status(); !reflect.DeepEqual(got, want) {
		t.Errorf("%d peers came back as %d, or otherwise", len(want.Peers), len(got.Peers))
	}
}
