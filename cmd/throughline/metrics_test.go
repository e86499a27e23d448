package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"throughline"
	"throughline/packet"
)

func TestMetrics(t *testing.T) {
	var b bytes.Buffer
	peer := throughline.NewPrivateKey().Public()
	err := writeMetrics(&b, throughline.Status{
		Peers:                []throughline.PeerStatus{{PublicKey: peer, RxBytes: 5, TxBytes: 6, LastHandshake: time.Unix(1700000000, 0)}},
		CipherImplementation: "xcrypto",
		Drops:                map[packet.Drop]uint64{packet.DropReplay: 7, packet.DropTag: 8},
		Offloads:             packet.OffloadStates{packet.GSO: packet.OffloadOn, packet.GRO: packet.OffloadWithdrawn},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"throughline_peers 1\n",
		"throughline_cipher{name=\"xcrypto\"} 1\n",
		fmt.Sprintf("throughline_peer_received_bytes_total{public_key=%q} 5\n", peer.String()),
		fmt.Sprintf("throughline_peer_sent_bytes_total{public_key=%q} 6\n", peer.String()),
		fmt.Sprintf("throughline_peer_last_handshake_timestamp_seconds{public_key=%q} 1700000000\n", peer.String()),
		"throughline_drops_total{reason=\"bad_tag\"} 8\nthroughline_drops_total{reason=\"replay\"} 7\n",
		"throughline_offload{name=\"gro\",state=\"withdrawn\"} 0\nthroughline_offload{name=\"gso\",state=\"on\"} 1\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
	// Every line is a comment, or a sample of a metric whose type was given before. Prometheus' text format, 0.0.4.
	known := map[string]bool{}
	for line := range strings.Lines(b.String()) {
		if f := strings.Fields(line); f[0] == "#" {
			known[f[2]] = true
		} else if name, _, _ := strings.Cut(f[0], "{"); !known[name] || len(f) != 2 {
			t.Errorf("not a sample: %q", line)
		}
	}
}

// TestMetricsText checks the whole text, to the byte.
func TestMetricsText(t *testing.T) {
	want, err := os.ReadFile("testdata/metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	err = writeMetrics(&b, throughline.Status{
		Peers: []throughline.PeerStatus{
			{PublicKey: throughline.PublicKey{0xff}, RxBytes: 1 << 63, TxBytes: 6, LastHandshake: time.Unix(1700000000, 999)},
			{PublicKey: throughline.PublicKey{1}, RxBytes: 1},
		},
		CipherImplementation: "xcrypto",
		Drops:                map[packet.Drop]uint64{packet.DropMalformed: 1, packet.DropReplay: 7, packet.DropTag: 8},
		Offloads:             packet.OffloadStates{packet.TSO: packet.OffloadOff, packet.GSO: packet.OffloadOn, packet.GRO: packet.OffloadWithdrawn},
	})
	if err != nil || b.String() != string(want) {
		t.Errorf("%v, got\n%s\nwant\n%s", err, &b, want)
	}
}
