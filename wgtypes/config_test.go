package wgtypes_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"throughline/wgtypes"
)

func prefixes(list ...string) (ps []netip.Prefix) {
	for _, s := range list {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func TestCanonical(t *testing.T) {
	key, preshared := wgtypes.PrivateKey{0: 255, 31: 255}, wgtypes.PresharedKey{1}
	endpoint, keepalive := netip.MustParseAddrPort("[::ffff:192.0.2.1]:51820"), 25*time.Second
	c := wgtypes.Config{PrivateKey: &key, ReplacePeers: true, Peers: []wgtypes.PeerConfig{{
		PublicKey: wgtypes.PublicKey{2}, PresharedKey: &preshared, Endpoint: &endpoint, PersistentKeepalive: &keepalive,
		AllowedIPs:       prefixes("10.1.2.3/8", "::ffff:10.0.0.1/104", "fe80::1/10"),
		RemoveAllowedIPs: prefixes("::ffff:0.0.0.0/96", "::ffff:0.0.0.0/95"),
	}}}
	got, err := c.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	p := got.Peers[0]
	if *got.PrivateKey != (wgtypes.PrivateKey{0: 248, 31: 127}) || !got.ReplacePeers {
		t.Error("the private key isn't clamped, or a switch is lost")
	}
	if p.Endpoint.String() != "192.0.2.1:51820" || *p.PersistentKeepalive != keepalive || *p.PresharedKey != preshared {
		t.Errorf("endpoint %v, keepalive %v", p.Endpoint, *p.PersistentKeepalive)
	}
	if want := prefixes("10.0.0.0/8", "10.0.0.0/8", "fe80::/10"); !reflect.DeepEqual(p.AllowedIPs, want) {
		t.Errorf("allowed IPs %v, want %v", p.AllowedIPs, want)
	}
	if want := prefixes("0.0.0.0/0", "::fffe:0:0/95"); !reflect.DeepEqual(p.RemoveAllowedIPs, want) {
		t.Errorf("allowed IPs to remove %v, want %v", p.RemoveAllowedIPs, want)
	}

	// What was given is the caller's, as it was.
	if key != (wgtypes.PrivateKey{0: 255, 31: 255}) || endpoint.Addr().Is4() || c.Peers[0].AllowedIPs[0] != netip.MustParsePrefix("10.1.2.3/8") {
		t.Error("the caller's change was changed")
	}
	c.Peers[0].AllowedIPs[0], endpoint = netip.Prefix{}, netip.AddrPort{}
	if !p.AllowedIPs[0].IsValid() || !p.Endpoint.IsValid() {
		t.Error("the canonical change shares memory with the caller's")
	}
}

func TestCanonicalRefuses(t *testing.T) {
	ptr := func(s string) *netip.AddrPort { ap, _ := netip.ParseAddrPort(s); return &ap }
	seconds := func(d time.Duration) *time.Duration { return &d }
	name := wgtypes.PublicKey{7}.String()
	for want, p := range map[string]wgtypes.PeerConfig{
		"endpoint invalid AddrPort is not":          {Endpoint: ptr("")},
		"endpoint 192.0.2.1:0 is not":               {Endpoint: ptr("192.0.2.1:0")},
		"keepalive -1s is not":                      {PersistentKeepalive: seconds(-time.Second)},
		"keepalive 1.5s is not":                     {PersistentKeepalive: seconds(1500 * time.Millisecond)},
		"keepalive 18h12m16s is not":                {PersistentKeepalive: seconds(wgtypes.MaxKeepalive + time.Second)},
		"allowed IP invalid Prefix is not a prefix": {AllowedIPs: make([]netip.Prefix, 1)},
		"allowed IP invalid Prefix is not":          {RemoveAllowedIPs: make([]netip.Prefix, 1)},
	} {
		p.PublicKey = wgtypes.PublicKey{7}
		c := wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: wgtypes.PublicKey{1}}, p}}
		if _, err := c.Canonical(); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%v; want peer %s: %s", err, name, want)
		}
	}
}
