package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"throughline"
	"throughline/packet"
)

// writeMetrics writes a device's counters in Prometheus' text format.
func writeMetrics(w io.Writer, s throughline.Status) error {
	var b strings.Builder
	head := func(name, kind, help string) {
		fmt.Fprintf(&b, "# HELP throughline_%s %s\n# TYPE throughline_%[1]s %[3]s\n", name, help, kind)
	}
	head("peers", "gauge", "Peers that are configured.")
	fmt.Fprintf(&b, "throughline_peers %d\n", len(s.Peers))
	slices.SortFunc(s.Peers, func(a, b throughline.PeerStatus) int { return cmp.Compare(a.PublicKey.String(), b.PublicKey.String()) })
	for _, m := range []struct {
		name, kind, help string
		value            func(*throughline.PeerStatus) uint64
	}{
		{"peer_received_bytes_total", "counter", "Bytes of datagrams received from a peer.", func(p *throughline.PeerStatus) uint64 { return p.RxBytes }},
		{"peer_sent_bytes_total", "counter", "Bytes of datagrams sent to a peer.", func(p *throughline.PeerStatus) uint64 { return p.TxBytes }},
		{"peer_last_handshake_timestamp_seconds", "gauge", "When the last handshake with a peer was completed; 0: never.", func(p *throughline.PeerStatus) uint64 {
			if p.LastHandshake.IsZero() {
				return 0
			}
			return uint64(p.LastHandshake.Unix())
		}},
	} {
		head(m.name, m.kind, m.help)
		for i := range s.Peers {
			fmt.Fprintf(&b, "throughline_%s{public_key=\"%v\"} %d\n", m.name, s.Peers[i].PublicKey, m.value(&s.Peers[i]))
		}
	}
	head("drops_total", "counter", "Packets that went no further, by reason.")
	for _, why := range slices.SortedFunc(maps.Keys(s.Drops), func(a, b packet.Drop) int { return cmp.Compare(a.String(), b.String()) }) {
		fmt.Fprintf(&b, "throughline_drops_total{reason=\"%s\"} %d\n", why, s.Drops[why])
	}
	head("cipher", "gauge", "The way in which packets are sealed and opened.")
	fmt.Fprintf(&b, "throughline_cipher{name=\"%s\"} 1\n", s.CipherImplementation)
	head("offload", "gauge", "Work for many packets at once that the kernel does (1) or doesn't (0), and why.")
	byName := func(a, b packet.Offload) int { return cmp.Compare(a.String(), b.String()) }
	for _, o := range slices.SortedFunc(maps.Keys(s.Offloads), byName) {
		on := 0
		if s.Offloads[o] == packet.OffloadOn {
			on = 1
		}
		fmt.Fprintf(&b, "throughline_offload{name=\"%s\",state=\"%s\"} %d\n", o, s.Offloads[o], on)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
