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
var avx512 = &Way{name: "avx512", seal: sealAVX512, open: openAVX512, runs: hasAVX512}

func hasAVX512() bool {
	x := &cpu.X86
	return x.HasAVX512F && x.HasAVX512BW && x.HasAVX512VL && x.HasAVX512DQ && x.HasAVX512IFMA
}

const (
	chunkPackets = 16  // packets that go through together: one pass makes their one-time keys
	passLanes    = 16  // lanes of a pass of ChaCha20
	maxLanes     = 384 // lanes that are laid out at once: 24 passes, about 5 µs
	maxSteps     = 192 // steps of Poly1305 in one call, about 6 µs
	maxPhases    = 20
	maxPackets   = 512

	// aloneBelow is the size from which a packet alone is worth a train's trouble.
	aloneBelow = 768
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
	ptrs     [8]uint64 // the same
	incs     [8]uint64
	segments [chunkPackets]segment
	lanes    struct {
		key              [8]uint64
		head             [8]int
		headMask         [8]uint64
		tail             [8]int
		tailMask, length [8]uint64
	}
	counts struct{ phases, steps, stripes, _, _, _, _, _ uint64 }

	// From here on the assembly knows no places.
	phases   [maxPhases]phase
	even     [3]phase // heads, whole blocks and tails of packets of one length
	slab     []byte   // also holds it on the heap, as addresses into it lie above
	stripes  [8]stripe
	pieces   [maxPackets]piece // the train's living packets, longest first
	unsorted [maxPackets]piece
	order    [maxPackets]uint16
}

const (
	offZeros = 3776 // of zeros in the workspace
	offHeads = 3904
	offTails = 4416
)

// A segment is a row of lanes: consecutive blocks of one packet.
type segment struct {
	off     int // where in the slab
	left    int // bytes from there to the packet's end
	counter uint64
	block   int // the number of the first block; 0 is the one-time key
	lanes   int
}

// A phase is a number of steps of Poly1305, four blocks each, in which every lane does the same.
type phase struct {
	steps int
	pads  uint32 // which lanes have a block there at all, a byte for each of the four
	own   uint32 // which lanes read from the workspace, not from the slab
	off   [8]int // where they begin to; those in the slab go on by 64 with each step
}

// A piece is one packet's text, without the tag.
type piece struct {
	off, len int
	counter  uint64
	index    int // in the train
}

// A stripe is what one lane of Poly1305 does: some of a packet's blocks, in steps of four, and right-aligned so that all
// lanes end together. A packet's last blocks, with its lengths, are the tail of its last stripe.
type stripe struct {
	start int // the step it begins in
	head  int // blocks in that step
	tail  int // blocks in the last step, if that is the tail; else 0
	off   int // where it would read in its first step, were that not the head
}

var spaces512 = sync.Pool{New: func() any {
	ws := new(space512)
	ws.even[0].own, ws.even[2].own = 0xff, 0xff
	ws.even[1].pads = padsOf(4) * 0xff
	for l := range 8 {
		ws.even[0].off[l] = offHeads + 64*l
		ws.even[2].off[l] = offTails + 64*l
	}
	return ws
}}

// expand lays out the lanes of segments, beginning with lane first, and lanes that do nothing behind them.
//
//go:noescape
func expand(ws *space512, slab *byte, first, segments int)

// firstPass computes the key stream of lanes 0 to 15.
//
//go:noescape
func firstPass(ws *space512, key *[wire.KeySize]byte)

// otherPasses applies the key stream of the first pass to lanes stream to 15, and then makes and applies that of lanes
// from to to-1, 16 at a time, in place.
//
//go:noescape
func otherPasses(ws *space512, key *[wire.KeySize]byte, stream, from, to int)

// authenticate goes through the phases that counts tells of. With flagBegin eight lanes begin, with flagEnd they end and
// leave their tags; in between their accumulators stay in the workspace.
//
//go:noescape
func authenticate(ws *space512, slab *byte, phases *phase, flags int)

// wipe clears the workspace's secrets, and the vector registers.
//
//go:noescape
func wipe(ws *space512)

func sealAVX512(k *Key, slab []byte, train []packet.Packet) { trainAVX512(k, slab, train, true) }
func openAVX512(k *Key, slab []byte, train []packet.Packet) { trainAVX512(k, slab, train, false) }

func trainAVX512(k *Key, slab []byte, train []packet.Packet, seal bool) {
	var ws *space512
	for len(train) > 0 {
		some := train[:min(len(train), maxPackets)]
		train = train[len(some):]
		if ws == nil {
			ws = spaces512.Get().(*space512)
			ws.slab = slab
		}
		n := ws.take(some, seal)
		if n == 1 && ws.pieces[0].len < aloneBelow {
			i := ws.pieces[0].index
			if seal {
				sealXCrypto(k, slab, some[i:i+1])
			} else {
				openXCrypto(k, slab, some[i:i+1])
			}
			continue
		}
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
	if ws != nil {
		wipe(ws)
		ws.slab = nil
		spaces512.Put(ws)
	}
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
		ws.pieces[n] = piece{off: p.Off, len: text, counter: p.Counter(), index: i}
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
			copy(ws.slab[p.off+p.len:][:wire.TagSize], ws.tag(i * each)[:])
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
			ws.segments[segments] = segment{
				off: p.off + 64*at.done, left: p.len - 64*at.done, counter: p.counter, block: 1 + at.done, lanes: n,
			}
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
	blocks, same := 0, true
	for i := range chunk {
		blocks = max(blocks, blocksOf(chunk[i].len))
		same = same && chunk[i].len == chunk[0].len
	}
	if same && len(chunk) > 4 && blocks < 4*maxSteps {
		ws.lineUp(chunk, first)
		authenticate(ws, base, &ws.even[0], flagBegin|flagEnd)
		return 1
	}
	// Up to four packets are cut in stripes of the same number of steps: of the first, blocks may be missing.
	each = 1
	for 2*each*len(chunk) <= 8 && 4*each < blocks {
		each *= 2
	}
	steps := (blocks + 4*each - 1) / (4 * each)
	l := 0
	for i := range chunk {
		for j := range each {
			ws.stripe(l, &chunk[i], first+i, steps, each-1-j)
			l++
		}
	}
	for ; l < 8; l++ {
		ws.lanes.key[l], ws.lanes.headMask[l], ws.lanes.tailMask[l] = 0, 0, 0
		ws.lanes.head[l], ws.lanes.tail[l] = 0, 0
		ws.stripes[l] = stripe{start: steps}
	}
	ws.counts.steps, ws.counts.stripes = uint64(steps), uint64(each)

	flags := flagBegin
	for t := 0; t < steps; {
		n, budget := 0, maxSteps
		for t < steps && n < maxPhases && budget > 0 {
			taken := ws.phase(&ws.phases[n], t, steps, budget)
			t, budget, n = t+taken, budget-taken, n+1
		}
		ws.counts.phases = uint64(n)
		if t == steps {
			flags |= flagEnd
		}
		authenticate(ws, base, &ws.phases[0], flags)
		flags = 0
	}
	return each
}

const (
	flagBegin = 1
	flagEnd   = 2
)

// blocksOf is how many blocks of 16 bytes Poly1305 has for n bytes of text, with that of the lengths. RFC 8439 §2.8.
func blocksOf(n int) int { return (n+15)/16 + 1 }

// lineUp prepares the lanes and phases for packets of one length, a lane each. Idle lanes do the last packet again.
func (ws *space512) lineUp(chunk []piece, first int) {
	n := chunk[0].len
	blocks := blocksOf(n)
	skipped := 16 * (blocks - 4) // what comes before the tail, negative if it is shorter
	tailMask := tailMask(n-skipped, min(blocks, 4))
	head, missing, headMask := 0, 0, uint64(0)
	if blocks > 4 && blocks%4 != 0 {
		head = blocks % 4
		missing = 16 * (4 - head)
		headMask = ^uint64(0) << uint(missing)
	}
	for l := range 8 {
		i := min(l, len(chunk)-1)
		off := chunk[i].off
		ws.lanes.key[l] = uint64(64 * (first + i))
		ws.lanes.head[l], ws.lanes.headMask[l] = off-missing, headMask
		ws.lanes.tail[l], ws.lanes.tailMask[l] = off+skipped, tailMask
		ws.lanes.length[l] = uint64(n)
		ws.even[1].off[l] = off + 16*head
	}
	ws.even[0].steps, ws.even[0].pads = min(head, 1), padsOf(head)*0xff
	ws.even[1].steps = max(0, (blocks-4)/4)
	ws.even[2].steps, ws.even[2].pads = 1, padsOf(min(blocks, 4))*0xff
	ws.counts.phases, ws.counts.stripes = 3, 1
}

// tailMask says which bytes of the last four blocks are text, if text lies in the first n of them and only the last
// blocks of them are the packet's.
func tailMask(n, blocks int) uint64 { return (1<<uint(n) - 1) &^ (1<<uint(16*(4-blocks)) - 1) }

// stripe prepares lane l for a packet's stripe that has behind others of the given number of steps behind it.
func (ws *space512) stripe(l int, p *piece, key, steps, behind int) {
	l &= 7
	blocks := blocksOf(p.len)
	end := blocks - 4*steps*behind
	first := max(0, end-4*steps)
	n := max(0, end-first)
	ws.lanes.key[l] = uint64(64 * key)
	ws.lanes.length[l] = uint64(p.len)
	ws.lanes.head[l], ws.lanes.headMask[l] = p.off, 0
	ws.lanes.tail[l], ws.lanes.tailMask[l] = p.off, 0
	s := stripe{start: steps - (n+3)/4, head: 4}
	if behind == 0 {
		s.tail = min(n, 4)
		skipped := 16 * (blocks - 4) // what comes before those four, negative if they aren't four
		ws.lanes.tail[l] = p.off + skipped
		ws.lanes.tailMask[l] = tailMask(p.len-skipped, s.tail)
	}
	s.off = p.off + 16*first
	if n > s.tail && n%4 != 0 {
		s.head = n % 4
		missing := 16 * (4 - s.head)
		s.off -= missing
		ws.lanes.head[l] = s.off
		ws.lanes.headMask[l] = ^uint64(0) << uint(missing)
	}
	ws.stripes[l] = s
}

// phase describes what the lanes do from step t on, for as long as none changes, but for at most limit steps.
func (ws *space512) phase(ph *phase, t, steps, limit int) (taken int) {
	next := min(steps, t+limit)
	var pads, own uint32
	for l := range ws.stripes {
		s := &ws.stripes[l]
		switch {
		case t < s.start:
			ph.off[l] = offZeros
			own |= 1 << l
			next = min(next, s.start)
		case t == steps-1 && s.tail > 0:
			ph.off[l] = offTails + 64*l
			own |= 1 << l
			pads |= padsOf(s.tail) << l
		case t == s.start && s.head < 4:
			ph.off[l] = offHeads + 64*l
			own |= 1 << l
			pads |= padsOf(s.head) << l
			next = t + 1
		default:
			ph.off[l] = s.off + 64*(t-s.start)
			pads |= padsOf(4) << l
			if s.tail > 0 {
				next = min(next, steps-1)
			}
		}
	}
	ph.steps, ph.pads, ph.own = next-t, pads, own
	return next - t
}

// padsOf has a byte for each of four blocks, not 0 for the last n.
func padsOf(n int) uint32 { return 0x01010101 << uint(8*(4-n)) }
