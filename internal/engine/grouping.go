package engine

import "throughline/packet"

// A grouping brings the packets of a batch that belong to one peer together, so that each peer's packets are one train:
// packets of several flows arrive mixed, and each train costs a look-up, a reservation and a send. Packets of one peer
// keep their order. It is a counting sort over a small table of the peers seen; it allocates once.
type grouping struct {
	packets []packet.Packet
	owners  []*Peer
	groups  []group
	of      []int32 // the group of each packet
	table   [groupSlots]int32
}

type group struct {
	owner *Peer
	n     int32
	start int32
	slot  uint32
}

// groupSlots is a power of two, twice the packets of a batch: an open-addressed table never more than half full.
const groupSlots = 2 * packet.MaxPackets

// byOwner sorts the batch's packets by peer, in the order in which the peers first appear.
func (g *grouping) byOwner(b *outBatch) {
	mixed := false
	for i := 1; i < len(b.owners); i++ {
		if b.owners[i] != b.owners[i-1] {
			mixed = true
			break
		}
	}
	if !mixed {
		return
	}
	g.groups, g.of = g.groups[:0], g.of[:0]
	for _, owner := range b.owners {
		k := g.find(owner)
		g.groups[k].n++
		g.of = append(g.of, k)
	}
	start := int32(0)
	for k := range g.groups {
		g.groups[k].start = start
		start += g.groups[k].n
		g.table[g.groups[k].slot] = 0
	}
	g.packets = append(g.packets[:0], b.Packets...)
	g.owners = append(g.owners[:0], b.owners...)
	for i, k := range g.of {
		at := g.groups[k].start
		g.groups[k].start++
		b.Packets[at], b.owners[at] = g.packets[i], g.owners[i]
	}
	clear(g.owners)
	clear(g.groups) // no peer outlives its removal here
}

// find returns the group of a peer, a new one if need be. Slots hold group+1; zero is free.
func (g *grouping) find(owner *Peer) int32 {
	var id uint32
	if owner != nil {
		id = owner.id
	}
	slot := id * 2654435769 >> 8 % groupSlots // Fibonacci hashing
	for ; g.table[slot] != 0; slot = (slot + 1) % groupSlots {
		if k := g.table[slot] - 1; g.groups[k].owner == owner {
			return k
		}
	}
	g.groups = append(g.groups, group{owner: owner, slot: slot})
	g.table[slot] = int32(len(g.groups))
	return int32(len(g.groups) - 1)
}
