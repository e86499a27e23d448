package grouping

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"throughline/packet"
)

// An owner of the tests; nil for nobody.
type owner struct{ id uint64 }

// A batch of the tests.
type batch struct {
	packets []packet.Packet
	owners  []*owner
	keys    []uint64
}

func newBatch() *batch {
	return &batch{make([]packet.Packet, 0, packet.MaxPackets), make([]*owner, 0, packet.MaxPackets), make([]uint64, 0, packet.MaxPackets)}
}

func (b *batch) add(p packet.Packet, o *owner) {
	key := uint64(0)
	if o != nil {
		key = o.id
	}
	b.packets, b.owners, b.keys = append(b.packets, p), append(b.owners, o), append(b.keys, key)
}

// Grouping is a stable sort by the order in which the owners first appear.
func TestGroupingIsAStableSort(t *testing.T) {
	var g Grouping[*owner] // one for all, as in a batch that is reused
	rapid.Check(t, func(t *rapid.T) {
		owners := make([]*owner, rapid.IntRange(1, 40).Draw(t, "owners"))
		ids := rapid.SliceOfNDistinct(rapid.Uint64Min(1), len(owners), len(owners), rapid.ID[uint64]).Draw(t, "ids")
		for i := range owners {
			// Keys that collide in the table, and nil for what has no owner.
			if i > 0 || rapid.Bool().Draw(t, "all known") {
				owners[i] = &owner{id: ids[i]}
			}
		}
		b := newBatch()
		n := rapid.IntRange(0, packet.MaxPackets).Draw(t, "packets")
		var order []*owner
		for i := range n {
			p := owners[rapid.IntRange(0, len(owners)-1).Draw(t, "owner")]
			b.add(packet.Packet{Off: i}, p)
			if !slices.Contains(order, p) {
				order = append(order, p)
			}
		}
		type pair struct {
			at    int
			owner *owner
		}
		var want []pair
		for _, p := range order {
			for i, owner := range b.owners {
				if owner == p {
					want = append(want, pair{i, p})
				}
			}
		}
		g.Group(b.packets, b.owners, b.keys)
		for i, w := range want {
			if b.packets[i].Off != w.at || b.owners[i] != w.owner {
				t.Fatalf("at %d: packet %d, want %d", i, b.packets[i].Off, w.at)
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
	for name, n := range map[string]int{"1owner": 1, "8owners": 8, "512owners": 512} {
		b.Run(name, func(b *testing.B) {
			var g Grouping[*owner]
			batch := newBatch()
			owners := make([]*owner, n)
			for i := range owners {
				owners[i] = &owner{id: uint64(i + 1)}
			}
			b.ReportAllocs()
			for b.Loop() {
				batch.packets, batch.owners, batch.keys = batch.packets[:0], batch.owners[:0], batch.keys[:0]
				for i := range packet.MaxPackets {
					batch.add(packet.Packet{Off: i}, owners[i*7%n])
				}
				g.Group(batch.packets, batch.owners, batch.keys)
			}
		})
	}
}
