package main

import (
	"cmp"
	"io"
	"slices"

	"throughline"
	"throughline/internal/promtext"
	"throughline/netstack"
	"throughline/packet"
)

// writeMetrics writes a device's counters in Prometheus' text format.
func writeMetrics(w io.Writer, s throughline.Status) error {
	defer s.Wipe()
	var t promtext.Text
	t.Metric("throughline_peers", promtext.Gauge, "Peers that are configured.")
	t.Sample(uint64(len(s.Peers)))
	slices.SortFunc(s.Peers, func(a, b throughline.PeerStatus) int { return cmp.Compare(a.PublicKey.String(), b.PublicKey.String()) })
	for _, m := range []struct {
		name  string
		kind  promtext.Kind
		help  string
		value func(*throughline.PeerStatus) uint64
	}{
		{"received_bytes_total", promtext.Counter, "Bytes of datagrams received from a peer.", func(p *throughline.PeerStatus) uint64 { return p.RxBytes }},
		{"sent_bytes_total", promtext.Counter, "Bytes of datagrams sent to a peer.", func(p *throughline.PeerStatus) uint64 { return p.TxBytes }},
		{"last_handshake_timestamp_seconds", promtext.Gauge, "When the last handshake with a peer was completed; 0: never.", lastHandshake},
	} {
		t.Metric("throughline_peer_"+m.name, m.kind, m.help)
		for i := range s.Peers {
			t.Sample(m.value(&s.Peers[i]), "public_key", s.Peers[i].PublicKey.String())
		}
	}
	t.Metric("throughline_drops_total", promtext.Counter, "Packets that went no further, by reason.")
	for _, why := range promtext.Sorted(s.Drops) {
		t.Sample(s.Drops[why], "reason", why.String())
	}
	t.Metric("throughline_cipher", promtext.Gauge, "The code that seals and opens packets.")
	t.Sample(1, "name", s.CipherImplementation)
	t.Metric("throughline_offload", promtext.Gauge, "Work for many packets at once that the kernel does (1) or doesn't (0), and why.")
	for _, o := range promtext.Sorted(s.Offloads) {
		on := uint64(0)
		if s.Offloads[o] == packet.OffloadOn {
			on = 1
		}
		t.Sample(on, "name", o.String(), "state", s.Offloads[o].String())
	}
	_, err := w.Write(t.Bytes())
	return err
}

// writeStackMetrics writes what a stack in user space uses in Prometheus' text format.
func writeStackMetrics(w io.Writer, s netstack.Status) error {
	var t promtext.Text
	t.Metric("throughline_netstack_buffers", promtext.Gauge, "TCP connections and UDP sockets in the tunnel that are open.")
	t.Sample(uint64(s.Buffers))
	t.Metric("throughline_netstack_receive_reserved_bytes", promtext.Gauge, "What their receive buffers may hold together.")
	t.Sample(uint64(s.Reserved))
	t.Metric("throughline_netstack_receive_shortened_total", promtext.Counter, "How often one got a smaller receive buffer than it had use for.")
	t.Sample(s.Shortened)
	_, err := w.Write(t.Bytes())
	return err
}

// lastHandshake is when the last handshake was completed, in Unix seconds; 0: never.
func lastHandshake(p *throughline.PeerStatus) uint64 {
	if p.LastHandshake.IsZero() {
		return 0
	}
	return uint64(p.LastHandshake.Unix())
}
