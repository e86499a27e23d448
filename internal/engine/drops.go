package engine

import (
	"sync/atomic"

	"throughline/packet"
)

// drops counts the packets that went no further, by reason. It is safe for concurrent use.
type drops [packet.NumDrops]atomic.Uint64

// add counts n packets.
func (d *drops) add(why packet.Drop, n int) {
	if n > 0 {
		d[why].Add(uint64(n))
	}
}

// count counts what was dropped of a batch.
func (d *drops) count(b *packet.Batch) {
	for i := range b.Packets {
		if why := b.Packets[i].Drop; why.Counted() {
			d[why].Add(1)
		}
	}
}
