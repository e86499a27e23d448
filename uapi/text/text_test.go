package text

import (
	"bufio"
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"throughline/wgtypes"
)

// key returns a key of one repeated byte.
func key[K ~[32]byte](b byte) (k K) {
	for i := range k {
		k[i] = b
	}
	return k
}

// hexOf returns what key returns, as the protocol spells it.
func hexOf(b byte) string {
	const digits = "0123456789abcdef"
	return strings.Repeat(string([]byte{digits[b>>4], digits[b&15]}), 32)
}

func readConfig(text string) (wgtypes.Config, error) {
	return ReadConfig(bufio.NewReader(strings.NewReader(text)))
}

func readStatus(text string) (wgtypes.Status, error) {
	return ReadStatus(bufio.NewReader(strings.NewReader(text)))
}

func configText(t testing.TB, cfg wgtypes.Config) string {
	t.Helper()
	var b bytes.Buffer
	if err := WriteConfig(&b, &cfg); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// statusOf returns the status of a new device that cfg was applied to, if cfg names no peer twice.
func statusOf(cfg wgtypes.Config) wgtypes.Status {
	var st wgtypes.Status
	if cfg.PrivateKey != nil {
		st.PrivateKey = *cfg.PrivateKey
		st.PublicKey = cfg.PrivateKey.Public()
	}
	if cfg.ListenPort != nil {
		st.ListenPort = *cfg.ListenPort
	}
	if cfg.Mark != nil {
		st.Mark = *cfg.Mark
	}
	for _, p := range cfg.Peers {
		ps := wgtypes.PeerStatus{PublicKey: p.PublicKey, AllowedIPs: p.AllowedIPs}
		if p.PresharedKey != nil {
			ps.PresharedKey = *p.PresharedKey
		}
		if p.Endpoint != nil {
			ps.Endpoint = *p.Endpoint
		}
		if p.PersistentKeepalive != nil {
			ps.PersistentKeepalive = *p.PersistentKeepalive
		}
		st.Peers = append(st.Peers, ps)
	}
	return st
}

// A peer and a device with everything set, and their text.
var (
	fullConfig = wgtypes.Config{
		PrivateKey: new(key[wgtypes.PrivateKey](0x11)),
		ListenPort: new(uint16(51820)),
		Mark:       new(uint32(51)),
		Peers: []wgtypes.PeerConfig{{
			PublicKey:           key[wgtypes.PublicKey](0x22),
			UpdateOnly:          true,
			PresharedKey:        new(key[wgtypes.PresharedKey](0x33)),
			Endpoint:            new(netip.MustParseAddrPort("[fe80::1%eth0]:4500")),
			PersistentKeepalive: new(25 * time.Second),
			ReplaceAllowedIPs:   true,
			RemoveAllowedIPs:    []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16")},
			AllowedIPs:          []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("::/0")},
		}, {
			PublicKey: key[wgtypes.PublicKey](0x44), Remove: true,
		}},
	}
	fullConfigText = "private_key=" + hexOf(0x11) + "\nlisten_port=51820\nfwmark=51\n" +
		"public_key=" + hexOf(0x22) + "\nupdate_only=true\npreshared_key=" + hexOf(0x33) + "\nendpoint=[fe80::1%eth0]:4500\n" +
		"persistent_keepalive_interval=25\nreplace_allowed_ips=true\nallowed_ip=-10.2.0.0/16\nallowed_ip=10.1.0.0/16\nallowed_ip=::/0\n" +
		"public_key=" + hexOf(0x44) + "\nremove=true\n\n"

	fullStatus = wgtypes.Status{
		PrivateKey: key[wgtypes.PrivateKey](0x11),
		PublicKey:  key[wgtypes.PrivateKey](0x11).Public(),
		ListenPort: 51820,
		Mark:       51,
		Peers: []wgtypes.PeerStatus{{
			PublicKey:           key[wgtypes.PublicKey](0x22),
			PresharedKey:        key[wgtypes.PresharedKey](0x33),
			Endpoint:            netip.MustParseAddrPort("192.0.2.1:4500"),
			PersistentKeepalive: 25 * time.Second,
			LastHandshake:       time.Unix(1700000000, 5),
			RxBytes:             1<<64 - 1,
			TxBytes:             148,
			AllowedIPs:          []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("::/0")},
		}, {
			PublicKey: key[wgtypes.PublicKey](0x04),
		}},
	}
	fullStatusText = "private_key=" + hexOf(0x11) + "\nlisten_port=51820\nfwmark=51\n" +
		"public_key=" + hexOf(0x22) + "\npreshared_key=" + hexOf(0x33) + "\nprotocol_version=1\nendpoint=192.0.2.1:4500\n" +
		"last_handshake_time_sec=1700000000\nlast_handshake_time_nsec=5\ntx_bytes=148\nrx_bytes=18446744073709551615\n" +
		"persistent_keepalive_interval=25\nallowed_ip=10.1.0.0/16\nallowed_ip=::/0\n" +
		"public_key=" + hexOf(0x04) + "\npreshared_key=" + hexOf(0) + "\nprotocol_version=1\n" +
		"last_handshake_time_sec=0\nlast_handshake_time_nsec=0\ntx_bytes=0\nrx_bytes=0\npersistent_keepalive_interval=0\n" +
		"errno=0\n\n"
)
