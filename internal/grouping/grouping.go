// Package grouping brings the packets of a batch that belong to one owner together, so that each owner's packets are
// consecutive: packets of several flows come mixed, and each train costs a reservation and a send.
//
// It is generic over the owners and knows nothing of peers: a number, the key, identifies an owner. Packets of one owner
// keep their order, and the owners come in the order in which they first appear. It is a counting sort over a small table
// of the keys seen.
//
// A Grouping has no lock: it belongs to the goroutine that the batch belongs to. It keeps no reference to an owner
// between two calls, and allocates memory once. Limits: at most [packet.MaxPackets] packets.
package grouping

import "throughline/packet"

// A Grouping is the memory that grouping needs. The zero Grouping is ready.
type Grouping[O any] struct {
	packets []packet.Packet
	owners  []O
	groups  []group
	of      []int32 // the group of each packet
	table   [tableSize]int32
}

type group struct {
	key   uint64
	n     int32
	start int32
	slot  uint32
}

// tableSize is a power of two, twice the packets of a batch: an open-addressed table never more than half full.
const tableSize = 2 * packet.MaxPackets

// Group brings packets together by key, and moves owners as it moves packets: before, keys[i] and owners[i] are those of
// packets[i]; keys stay as they are. Equal keys stand for one owner.
func (g *Grouping[O]) Group(packets []packet.Packet, owners []O, keys []uint64) {
	mixed := false
	for i := 1; i < len(keys); i++ {
		if keys[i] != keys[i-1] {
			mixed = true
			break
		}
	}
	if !mixed {
		return
	}
	g.groups, g.of = g.groups[:0], g.of[:0]
	for _, key := range keys {
		k := g.find(key)
		g.groups[k].n++
		g.of = append(g.of, k)
	}
	start := int32(0)
	for k := range g.groups {
		g.groups[k].start = start
		start += g.groups[k].n
		g.table[g.groups[k].slot] = 0
	}
	g.packets = append(g.packets[:0], packets...)
	g.owners = append(g.owners[:0], owners...)
	for i, k := range g.of {
		at := g.groups[k].start
		g.groups[k].start++
		packets[at], owners[at] = g.packets[i], g.owners[i]
	}
	clear(g.owners) // no reference is kept
}

// find returns the group of a key, a new one if need be. Slots hold group+1; zero is free.
func (g *Grouping[O]) find(key uint64) int32 {
	slot := uint32(key) * 2654435769 >> 8 % tableSize // Fibonacci hashing
	for ; g.table[slot] != 0; slot = (slot + 1) % tableSize {
		if k := g.table[slot] - 1; g.groups[k].key == key {
			return k
		}
	}
	g.groups = append(g.groups, group{key: key, slot: slot})
	g.table[slot] = int32(len(g.groups))
	return int32(len(g.groups) - 1)
}
