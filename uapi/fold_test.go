package uapi

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"throughline/uapi/text"
	"throughline/wgtypes"
)

// TestFoldedMeansLineByLine compares a request's Config with its lines applied one after the other.
func TestFoldedMeansLineByLine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(device bool) []string {
			var said []string
			if device && rapid.Bool().Draw(t, "replace peers") {
				said = append(said, "replace_peers=true")
			}
			lines := []string{"remove=true", "update_only=true", "replace_allowed_ips=true", "protocol_version=1",
				"preshared_key=" + hexOf(0), "preshared_key=" + hexOf(9), "endpoint=192.0.2.1:1", "endpoint=192.0.2.2:2",
				"persistent_keepalive_interval=0", "persistent_keepalive_interval=5"}
			for _, p := range []string{"10.0.0.0/8", "10.1.0.0/16", "::/0"} {
				lines = append(lines, "allowed_ip="+p, "allowed_ip=-"+p, "allowed_ip="+p)
			}
			for range rapid.IntRange(0, 5).Draw(t, "mentions") {
				said = append(said, "public_key="+hexOf(byte(rapid.IntRange(1, 3).Draw(t, "peer"))))
				said = append(said, rapid.SliceOfN(rapid.SampledFrom(lines), 0, 7).Draw(t, "lines")...)
			}
			return said
		}
		before, request := draw(false), draw(true)

		slow := &byLine{}
		slow.apply(before)
		fast := &model{}
		fast.st.Peers = slices.Clone(slow.m.st.Peers)
		slow.apply(request)

		cfg, err := text.ReadConfig(bufio.NewReader(strings.NewReader(strings.Join(append(request, "", ""), "\n"))))
		if err != nil {
			t.Fatal(err)
		}
		fast.Configure(cfg)

		got, want := fast.st.Peers, slow.m.st.Peers
		if cfg.ReplacePeers { // peers that stay keep their place, and their endpoint if none is given
			order := func(a, b wgtypes.PeerStatus) int { return bytes.Compare(a.PublicKey[:], b.PublicKey[:]) }
			slices.SortFunc(got, order)
			slices.SortFunc(want, order)
			for i := range min(len(got), len(want)) {
				if !want[i].Endpoint.IsValid() {
					got[i].Endpoint = netip.AddrPort{}
				}
			}
		}
		if len(got) != len(want) || len(got) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("%s\nthen\n%s\n got %+v\nwant %+v\n cfg %+v", strings.Join(before, "\n"), strings.Join(request, "\n"), got, want, cfg)
		}
	})
}

// byLine applies lines one by one, as https://www.wireguard.com/xplatform/ says. update_only applies to
// all lines of its peer.
type byLine struct {
	m   model
	cur *wgtypes.PublicKey // nil: lines have no effect
}

func (d *byLine) apply(said []string) {
	for i, line := range said {
		name, value, _ := strings.Cut(line, "=")
		if name == "public_key" {
			var k wgtypes.PublicKey
			hex.Decode(k[:], []byte(value))
			rest := said[i+1:]
			if end := slices.IndexFunc(rest, func(s string) bool { return strings.HasPrefix(s, "public_key=") }); end >= 0 {
				rest = rest[:end]
			}
			if end := slices.Index(rest, "remove=true"); end >= 0 {
				rest = rest[:end]
			}
			d.cur = &k
			if d.m.find(k) == nil {
				if slices.Contains(rest, "update_only=true") {
					d.cur = nil
				} else {
					d.m.add(k)
				}
			}
			continue
		}
		if name == "replace_peers" {
			d.m.st.Peers = nil
		}
		if d.cur == nil {
			continue
		}
		p := d.m.find(*d.cur)
		switch name {
		case "remove":
			d.m.remove(*d.cur)
			d.cur = nil
		case "preshared_key":
			hex.Decode(p.PresharedKey[:], []byte(value))
		case "endpoint":
			p.Endpoint = netip.MustParseAddrPort(value)
		case "persistent_keepalive_interval":
			p.PersistentKeepalive, _ = time.ParseDuration(value + "s")
		case "replace_allowed_ips":
			p.AllowedIPs = nil
		case "allowed_ip":
			if rest, minus := strings.CutPrefix(value, "-"); minus {
				p.AllowedIPs = without(p.AllowedIPs, netip.MustParsePrefix(rest))
			} else {
				d.m.grant(p, netip.MustParsePrefix(value))
			}
		}
	}
}
