package aead

//go:generate go -C gen run ./avx512 -out ../avx512_amd64.s -pkg aead

import (
	"encoding/binary"
	"sync"

	"golang.org/x/sys/cpu"

	"throughline/internal/wire"
	"throughline/packet"
)

// avx512 works on 16 packets at a time. ChaCha20 runs in 16 lanes of 32 bits, each lane any block of any packet, and
// Poly1305 in eight lanes of 64 bits with 52-bit multipliers, each lane a packet or a stripe of one.
var avx512 = &Implementation{name: "avx512", seal: sealAVX512, open: openAVX512, supported: hasAVX512}

func hasAVX512() bool {
	x := &cpu.X86
	return x.HasAVX512F && x.HasAVX512BW && x.HasAVX512VL && x.HasAVX512DQ && x.HasAVX512IFMA
}

const (
	chunkPackets = 16  // packets that go through together: one pass makes their one-time keys
	passLanes    = 16  // lanes of a pass of ChaCha20
	maxLanes     = 384 // lanes that are laid out at once: 24 passes, about 5 µs
	maxSteps     = 192 // steps of Poly1305 in one call, about 6 µs
	maxPackets   = 512

	// A train is worth its beginning from so many bytes on, of which each packet counts as some more: until the assembly
	// could be timed these are llvm-mca's word for a Sapphire Rapids.
	worthBytes512  = 880
	packetBytes512 = 240
)

// secrets512 are wiped after each train.
type secrets512 struct {
	stream [passLanes][64]byte // one-time keys, and behind them key stream of the first blocks
	words  [16][64]byte
	powers [20][64]byte
	acc    [3][64]byte
	add    [2][64]byte
	tags   [8][wire.TagSize]byte
}

// space512 is what the assembly works in; gen/avx512/layout.go is its twin. It is so large that the heap begins it on
// a page, and its vectors on cache lines.
type space512 struct {
	secrets512
	zeros    [64]byte // never written
	idle     [64]byte
	heads    [8][64]byte
	tails    [8][64]byte
	block    [maxLanes + passLanes]uint32
	low      [maxLanes + passLanes]uint32
	high     [maxLanes + passLanes]uint32
	addr     [maxLanes + passLanes]uint64 // into the slab; meaningless outside a call
	mask     [maxLanes + passLanes]uint64
	segments [chunkPackets]segment
	stripes  struct {
		key [8]int // where in the workspace each lane's one-time key lies
		off [8]int // where in the slab its packet begins
		len [8]int // and how many bytes it has
	}
	steps int // of each stripe
	each  int // stripes of a packet
	_     [6]uint64
	own   [9][64]byte // what the assembly makes of stripes, and keeps

	// From here on the assembly knows no places.
	slab     []byte            // also holds it on the heap, as addresses into it lie above
	pieces   [maxPackets]piece // the train's living packets, longest first
	unsorted [maxPackets]piece
	order    [maxPackets]uint16
}

// A segment is a row of lanes: consecutive blocks of one packet.
type segment struct {
	off     int // where in the slab
	left    int // bytes from there to the packet's end
	counter uint64
	block   int // the number of the first block; 0 is the one-time key
	lanes   int
}

// A piece is one packet's text, without the tag.
type piece struct {
	off, len int
	counter  uint64
	index    int // in the train
}

var spaces512 = sync.Pool{New: func() any { return new(space512) }}

// expand lays out the lanes of segments, beginning with lane first, and lanes that do nothing behind them.
//
//go:noescape
func expand(ws *space512, slab *byte, first, segments int)

// firstPass computes the key stream of lanes 0 to 15.
//
//go:noescape
func firstPass(ws *space512, key *[wire.KeySize]byte)

// otherPasses applies the key stream of the first pass to lanes stream to 15, and then makes and applies that of lanes
// from to to-1, 16 at a time and up to eight that are left in half a pass, in place.
//
//go:noescape
func otherPasses(ws *space512, key *[wire.KeySize]byte, stream, from, to int)

// authenticate does steps from to to-1 of Poly1305 in eight lanes, four blocks each. At step 0 the lanes begin, behind the
// last they end and leave the tags; in between their accumulators stay in the workspace.
//
// A lane does a packet's stripe: some of its blocks, right-aligned, so that all lanes end together with packets' ends. A
// stripe of fewer blocks than others begins later.
//
//go:noescape
func authenticate(ws *space512, slab *byte, from, to int)

// wipe clears the workspace's secrets, and the vector registers.
//
//go:noescape
func wipe(ws *space512)

func sealAVX512(k *Key, slab []byte, train []packet.Packet) {
	if !worth512(train, 0) {
		sealXCrypto(k, slab, train)
		return
	}
	trainAVX512(k, slab, train, true)
}

func openAVX512(k *Key, slab []byte, train []packet.Packet) {
	if !worth512(train, wire.TagSize) {
		openXCrypto(k, slab, train)
		return
	}
	trainAVX512(k, slab, train, false)
}

// worth512 says whether the train costs less here than in the library.
func worth512(train []packet.Packet, tag int) bool {
	n := 0
	for i := range train {
		if p := &train[i]; p.Drop == 0 {
			if n += packetBytes512 + p.Len - tag; n >= worthBytes512 {
				return true
			}
		}
	}
	return false
}

func trainAVX512(k *Key, slab []byte, train []packet.Packet, seal bool) {
	ws := spaces512.Get().(*space512)
	ws.slab = slab
	for len(train) > 0 {
		some := train[:min(len(train), maxPackets)]
		train = train[len(some):]
		n := ws.take(some, seal)
		chunks := (n + chunkPackets - 1) / chunkPackets
		for i := range chunks {
			chunk := ws.pieces[n*i/chunks : n*(i+1)/chunks]
			if seal {
				ws.seal(k, chunk, some)
			} else {
				ws.open(k, chunk, some)
			}
		}
	}
	wipe(ws)
	ws.slab = nil
	spaces512.Put(ws)
}

// take lists the train's living packets, longest first, more or less: their order within 64 bytes doesn't matter. Those
// that can't be opened are dropped.
func (ws *space512) take(train []packet.Packet, seal bool) int {
	overhead := wire.TagSize
	if seal {
		overhead = 0
	}
	var count [buckets + 1]uint16
	n := 0
	for i := range train {
		p := &train[i]
		if p.Drop != 0 {
			continue
		}
		text := p.Len - overhead
		if text < 0 && !seal {
			p.Drop = packet.DropTag
			continue
		}
		_ = ws.slab[p.Off : p.Off+text : p.Off+text+wire.TagSize] // the assembly checks no bounds
		at := &ws.pieces[n]
		at.off, at.len, at.counter, at.index = p.Off, text, p.Counter(), i
		count[bucket(text)+1]++
		n++
	}
	if n == 0 || int(count[bucket(ws.pieces[0].len)+1]) == n {
		return n
	}
	for b := range buckets {
		count[b+1] += count[b]
	}
	for i, p := range ws.pieces[:n] {
		b := bucket(p.len)
		ws.order[count[b]] = uint16(i)
		count[b]++
	}
	copy(ws.unsorted[:n], ws.pieces[:n])
	for i, o := range ws.order[:n] {
		ws.pieces[i] = ws.unsorted[o]
	}
	return n
}

const buckets = 64

// bucket is 0 for the longest packets.
func bucket(n int) int { return max(0, buckets-1-n/64) }

func (ws *space512) seal(k *Key, chunk []piece, train []packet.Packet) {
	base := &ws.slab[0]
	at := ws.cipherFirst(k, base, chunk)
	ws.cipherRest(k, base, chunk, at)
	for done := 0; done < len(chunk); {
		n := min(len(chunk)-done, 8)
		each := ws.authenticate(base, chunk[done:done+n], done)
		for i := range n {
			p := &chunk[done+i]
			*(*[wire.TagSize]byte)(ws.slab[p.off+p.len:]) = *ws.tag(i * each)
			train[p.index].Len = p.len + wire.TagSize
		}
		done += n
	}
}

func (ws *space512) open(k *Key, chunk []piece, train []packet.Packet) {
	base := &ws.slab[0]
	at := ws.cipherFirst(k, base, chunk)
	good := 0
	for done := 0; done < len(chunk); {
		n := min(len(chunk)-done, 8)
		each := ws.authenticate(base, chunk[done:done+n], done)
		for i := range n {
			p := &chunk[done+i]
			text := ws.slab[p.off : p.off+p.len+wire.TagSize]
			tag, want := text[p.len:], ws.tag(i*each)
			wrong := binary.LittleEndian.Uint64(tag) ^ binary.LittleEndian.Uint64(want[:])
			wrong |= binary.LittleEndian.Uint64(tag[8:]) ^ binary.LittleEndian.Uint64(want[8:])
			if wrong != 0 {
				clear(text[:p.len])
				train[p.index].Drop = packet.DropTag
				continue
			}
			train[p.index].Len = p.len
			good++
		}
		done += n
	}
	if good == len(chunk) {
		ws.cipherRest(k, base, chunk, at)
		return
	}
	// The first pass is lost: its lanes belong to the packets as they were.
	left := chunk[:0]
	for _, p := range chunk {
		if train[p.index].Drop == 0 {
			left = append(left, p)
		}
	}
	ws.cipherRest(k, base, left, place{stream: passLanes})
}

// A place is how far a chunk's ChaCha20 has come.
type place struct {
	packet, done int // the next packet, and how many of its blocks are laid out
	stream       int // the first lane of the first pass that isn't a one-time key
	lanes        int // how many lanes are laid out
}

// cipherFirst makes the one-time keys of the chunk, and key stream of the first blocks with what remains of the pass.
func (ws *space512) cipherFirst(k *Key, base *byte, chunk []piece) place {
	for i := range chunk {
		counter := chunk[i].counter
		ws.block[i&15], ws.low[i&15], ws.high[i&15] = 0, uint32(counter), uint32(counter>>32)
	}
	at := place{stream: len(chunk), lanes: len(chunk)}
	ws.layOut(base, chunk, &at)
	firstPass(ws, &k.raw)
	return at
}

// cipherRest encrypts what is laid out, and then all the rest.
func (ws *space512) cipherRest(k *Key, base *byte, chunk []piece, at place) {
	otherPasses(ws, &k.raw, at.stream, passLanes, at.lanes)
	for at.packet < len(chunk) {
		at.lanes = 0
		ws.layOut(base, chunk, &at)
		otherPasses(ws, &k.raw, passLanes, 0, at.lanes)
	}
}

// layOut lays out as many lanes of the chunk as there is room for, behind those that are there already.
func (ws *space512) layOut(base *byte, chunk []piece, at *place) {
	first, segments := at.lanes, 0
	for at.packet < len(chunk) && at.lanes < maxLanes {
		p := &chunk[at.packet]
		all := (p.len + 63) / 64
		n := min(all-at.done, maxLanes-at.lanes)
		if n > 0 {
			s := &ws.segments[segments] // field by field: a literal would be made elsewhere and copied
			s.off, s.left = p.off+64*at.done, p.len-64*at.done
			s.counter, s.block, s.lanes = p.counter, 1+at.done, n
			segments++
			at.lanes += n
			at.done += n
		}
		if at.done == all {
			at.packet++
			at.done = 0
		}
	}
	expand(ws, base, first, segments)
}

// tag is the tag that authenticate left for a lane.
func (ws *space512) tag(lane int) *[wire.TagSize]byte { return &ws.tags[lane>>1&3+4*(lane&1)] }

// authenticate makes the tags of up to eight packets, whose one-time keys are those from first on. The tag of packet i
// is that of lane i*each.
func (ws *space512) authenticate(base *byte, chunk []piece, first int) (each int) {
	blocks := 0
	for i := range chunk {
		blocks = max(blocks, (chunk[i].len+15)/16+1) // with that of the lengths. RFC 8439 §2.8
	}
	// Up to four packets are cut in stripes of the same number of steps.
	shift := uint(0)
	for len(chunk)<<(shift+1) <= 8 && 4<<shift < blocks {
		shift++
	}
	steps := (blocks-1)>>(2+shift) + 1
	ws.steps, ws.each = steps, 1<<shift
	for l := range 8 {
		i := min(l>>shift, len(chunk)-1) // idle lanes do the last packet again
		p := &chunk[i]
		ws.stripes.key[l] = 64 * (first + i)
		ws.stripes.off[l], ws.stripes.len[l] = p.off, p.len
	}
	for t := 0; t < steps; t += maxSteps {
		authenticate(ws, base, t, min(t+maxSteps, steps))
	}
	return ws.each
}
