package engine

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"throughline/packet"
)

// Grouping is a stable sort by the order in which the peers first appear.
func TestGroupingIsAStableSort(t *testing.T) {
	var g grouping // one for all, as in a batch that is reused
	rapid.Check(t, func(t *rapid.T) {
		peers := make([]*Peer, rapid.IntRange(1, 40).Draw(t, "peers"))
		for i := range peers {
			// Ids that collide in the table, and nil for what has no peer.
			if i > 0 || rapid.Bool().Draw(t, "all known") {
				peers[i] = &Peer{id: rapid.Uint32().Draw(t, "id")}
			}
		}
		b := newOutBatch()
		n := rapid.IntRange(0, packet.MaxPackets).Draw(t, "packets")
		var order []*Peer
		for i := range n {
			p := peers[rapid.IntRange(0, len(peers)-1).Draw(t, "peer")]
			b.Packets = append(b.Packets, packet.Packet{Off: i})
			b.owners = append(b.owners, p)
			if !slices.Contains(order, p) {
				order = append(order, p)
			}
		}
		type pair struct {
			at    int
			owner *Peer
		}
		var want []pair
		for _, p := range order {
			for i, owner := range b.owners {
				if owner == p {
					want = append(want, pair{i, p})
				}
			}
		}
		g.byOwner(b)
		for i, w := range want {
			if b.Packets[i].Off != w.at || b.owners[i] != w.owner {
				t.Fatalf("at %d: packet %d, want %d", i, b.Packets[i].Off, w.at)
			}
		}
		for i, slot := range g.table {
			if slot != 0 {
				t.Fatalf("slot %d of the table was left in use", i)
			}
		}
	})
}

func BenchmarkGrouping(b *testing.B) {
	for name, n := range map[string]int{"1peer": 1, "8peers": 8, "512peers": 512} {
		b.Run(name, func(b *testing.B) {
			batch := newOutBatch()
			peers := make([]*Peer, n)
			for i := range peers {
				peers[i] = &Peer{id: uint32(i + 1)}
			}
			b.ReportAllocs()
			for b.Loop() {
				batch.Packets, batch.owners = batch.Packets[:0], batch.owners[:0]
				for i := range packet.MaxPackets {
					batch.Packets = append(batch.Packets, packet.Packet{Off: i})
					batch.owners = append(batch.owners, peers[i*7%n])
				}
				batch.group.byOwner(batch)
			}
		})
	}
}
