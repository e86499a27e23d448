package aead

//go:generate go -C gen run ./avx512 -out ../avx512_amd64.s -pkg aead

import (
	"encoding/binary"
	"sync"

	"golang.org/x/sys/cpu"

	"throughline/internal/wire"
	"throughline/packet"
)

// avx512 works on up to 16 packets at a time. ChaCha20 runs in 16 lanes of 32 bits, each lane any block of any packet, and
// Poly1305 in eight lanes of 64 bits with the 52-bit multiplier of IFMA, each lane a packet or a stripe of one.
var avx512 = &Implementation{name: "avx512", seal: sealAVX512, open: openAVX512, supported: hasAVX512}

func hasAVX512() bool {
	x := &cpu.X86
	return x.HasAVX512F && x.HasAVX512BW && x.HasAVX512VL && x.HasAVX512DQ && x.HasAVX512IFMA
}

const (
	chunkPackets = 16  // packets processed together: one pass makes their one-time keys
	passLanes    = 16  // lanes of a pass of ChaCha20
	maxLanes     = 384 // lanes that are laid out at once: 24 passes, about 5 µs
	maxSteps     = 192 // steps of Poly1305 in one call, about 6 µs
	maxPackets   = 512 // of a train processed at once; longer trains are split

	// A train costs less here than in x/crypto from minBytes512 bytes on, packetBytes512 being added for each packet. As
	// measured on Zen 5: one packet pays from 640 bytes on, two of any size by 4 to 17 percent, three by half.
	minBytes512    = 1280
	packetBytes512 = 640
)

// secrets512 are wiped after each train.
type secrets512 struct {
	stream [passLanes][64]byte // blocks with the one-time keys, then key stream of the first text blocks
	words  [16][64]byte        // ChaCha20 state, a vector for each word
	powers [20][64]byte        // r⁴, r³, r² and r
	acc    [3][64]byte
	s      [2][64]byte
	tags   [8][wire.TagSize]byte
}

// workspace512 is the assembly's workspace; gen/avx512/layout.go has the same offsets. It is so large that the heap aligns
// it to a page, and so its vectors to cache lines.
type workspace512 struct {
	secrets512
	zeros    [64]byte                     // never written
	idle     [64]byte                     // the address of idle lanes
	heads    [8][64]byte                  // each Poly1305 lane's first blocks
	tails    [8][64]byte                  // and its last blocks, with the lengths
	block    [maxLanes + passLanes]uint32 // each ChaCha20 lane's block counter
	low      [maxLanes + passLanes]uint32 // and nonce
	high     [maxLanes + passLanes]uint32
	addr     [maxLanes + passLanes]uint64 // in the slab; meaningless outside a call
	mask     [maxLanes + passLanes]uint64 // which of the 64 bytes there belong to the packet
	segments [chunkPackets]segment
	stripes  struct {
		key [8]int // offset of each lane's one-time key in the workspace
		off [8]int // offset of its packet in the slab
		len [8]int // length of the packet
	}
	steps   int // of each stripe
	each    int // stripes of each packet
	_       [6]uint64
	scratch [9][64]byte // what the assembly computes from stripes

	// The assembly doesn't use what follows.
	slab     []byte                 // keeps it on the heap, as addr has addresses in it
	texts    [maxPackets]packetText // of the packets that aren't dropped, longest first
	unsorted [maxPackets]packetText
	order    [maxPackets]uint16
}

// A segment is consecutive blocks of one packet, in consecutive lanes.
type segment struct {
	off     int // offset in the slab
	left    int // bytes from there to the packet's end
	counter uint64
	block   int // the first block's counter; block 0 has the one-time key
	lanes   int
}

// A packetText is where a packet's text is, without the tag.
type packetText struct {
	off, len int
	counter  uint64
	index    int // in the train
}

var workspaces512 = sync.Pool{New: func() any { return new(workspace512) }}

// expand lays out the lanes of segments, from lane first on, and idle lanes after them.
//
//go:noescape
func expand(ws *workspace512, slab *byte, first, segments int)

// firstPass computes the key stream of lanes 0 to 15.
//
//go:noescape
func firstPass(ws *workspace512, key *[wire.KeySize]byte)

// otherPasses XORs the key stream of the first pass into the texts of lanes stream to 15, and then computes and XORs that
// of lanes from to to-1: 16 at a time, and up to eight that are left in half a pass.
//
//go:noescape
func otherPasses(ws *workspace512, key *[wire.KeySize]byte, stream, from, to int)

// authenticate does steps from to to-1 of Poly1305 in eight lanes, four blocks of each. It begins the lanes at step 0, and
// stores the tags after the last step; between calls the accumulators are in the workspace.
//
// A lane has one stripe: consecutive blocks of a packet, right-aligned, so that all lanes end in the same step. A stripe
// of fewer blocks than others begins in a later step.
//
//go:noescape
func authenticate(ws *workspace512, slab *byte, from, to int)

// wipe clears the workspace's secrets, and the vector registers.
//
//go:noescape
func wipe(ws *workspace512)

func sealAVX512(k *Key, slab []byte, train []packet.Packet) {
	if !avx512Pays(train, 0) {
		sealXCrypto(k, slab, train)
		return
	}
	trainAVX512(k, slab, train, true)
}

func openAVX512(k *Key, slab []byte, train []packet.Packet) {
	if !avx512Pays(train, wire.TagSize) {
		openXCrypto(k, slab, train)
		return
	}
	trainAVX512(k, slab, train, false)
}

// avx512Pays reports whether the train costs less here than in x/crypto.
func avx512Pays(train []packet.Packet, tag int) bool {
	n := 0
	for i := range train {
		if p := &train[i]; p.Drop == 0 {
			if n += packetBytes512 + p.Len - tag; n >= minBytes512 {
				return true
			}
		}
	}
	return false
}

func trainAVX512(k *Key, slab []byte, train []packet.Packet, seal bool) {
	ws := workspaces512.Get().(*workspace512)
	ws.slab = slab
	for len(train) > 0 {
		part := train[:min(len(train), maxPackets)]
		train = train[len(part):]
		n := ws.collect(part, seal)
		chunks := (n + chunkPackets - 1) / chunkPackets
		for i := range chunks {
			chunk := ws.texts[n*i/chunks : n*(i+1)/chunks]
			if seal {
				ws.seal(k, chunk, part)
			} else {
				ws.open(k, chunk, part)
			}
		}
	}
	wipe(ws)
	ws.slab = nil
	workspaces512.Put(ws)
}

// collect lists the texts of packets that aren't dropped, longest first, to within 64 bytes, and returns their number.
// Packets too short for a tag are dropped.
func (ws *workspace512) collect(train []packet.Packet, seal bool) int {
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
		length := p.Len - overhead
		if length < 0 && !seal {
			p.Drop = packet.DropTag
			continue
		}
		_ = ws.slab[p.Off : p.Off+length : p.Off+length+wire.TagSize] // the assembly checks no bounds
		t := &ws.texts[n]
		t.off, t.len, t.counter, t.index = p.Off, length, p.Counter(), i
		count[bucket(length)+1]++
		n++
	}
	if n == 0 || int(count[bucket(ws.texts[0].len)+1]) == n {
		return n
	}
	for b := range buckets {
		count[b+1] += count[b]
	}
	for i, p := range ws.texts[:n] {
		b := bucket(p.len)
		ws.order[count[b]] = uint16(i)
		count[b]++
	}
	copy(ws.unsorted[:n], ws.texts[:n])
	for i, o := range ws.order[:n] {
		ws.texts[i] = ws.unsorted[o]
	}
	return n
}

const buckets = 64

// bucket is the bucket of a length n, 0 for the longest packets.
func bucket(n int) int { return max(0, buckets-1-n/64) }

func (ws *workspace512) seal(k *Key, chunk []packetText, train []packet.Packet) {
	base := &ws.slab[0]
	pr := ws.cipherFirst(k, base, chunk)
	ws.cipherRemaining(k, base, chunk, pr)
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

func (ws *workspace512) open(k *Key, chunk []packetText, train []packet.Packet) {
	base := &ws.slab[0]
	pr := ws.cipherFirst(k, base, chunk)
	valid := 0
	for done := 0; done < len(chunk); {
		n := min(len(chunk)-done, 8)
		each := ws.authenticate(base, chunk[done:done+n], done)
		for i := range n {
			p := &chunk[done+i]
			sealed := ws.slab[p.off : p.off+p.len+wire.TagSize]
			tag, want := sealed[p.len:], ws.tag(i*each)
			wrong := binary.LittleEndian.Uint64(tag) ^ binary.LittleEndian.Uint64(want[:])
			wrong |= binary.LittleEndian.Uint64(tag[8:]) ^ binary.LittleEndian.Uint64(want[8:])
			if wrong != 0 {
				clear(sealed[:p.len])
				train[p.index].Drop = packet.DropTag
				continue
			}
			train[p.index].Len = p.len
			valid++
		}
		done += n
	}
	if valid == len(chunk) {
		ws.cipherRemaining(k, base, chunk, pr)
		return
	}
	// The first pass's key stream isn't used: its lanes were laid out for all packets.
	left := chunk[:0]
	for _, p := range chunk {
		if train[p.index].Drop == 0 {
			left = append(left, p)
		}
	}
	ws.cipherRemaining(k, base, left, progress{stream: passLanes})
}

// A progress is how far a chunk's blocks are laid out.
type progress struct {
	packet, done int // the next packet, and how many of its blocks are laid out
	stream       int // the first pass's first lane that isn't a one-time key
	lanes        int // lanes laid out
}

// cipherFirst makes the chunk's one-time keys, and key stream of the first text blocks in the pass's remaining lanes.
func (ws *workspace512) cipherFirst(k *Key, base *byte, chunk []packetText) progress {
	for i := range chunk {
		counter := chunk[i].counter
		ws.block[i&15], ws.low[i&15], ws.high[i&15] = 0, uint32(counter), uint32(counter>>32)
	}
	pr := progress{stream: len(chunk), lanes: len(chunk)}
	ws.layOut(base, chunk, &pr)
	firstPass(ws, &k.raw)
	return pr
}

// cipherRemaining encrypts what is laid out, and then all remaining blocks.
func (ws *workspace512) cipherRemaining(k *Key, base *byte, chunk []packetText, pr progress) {
	otherPasses(ws, &k.raw, pr.stream, passLanes, pr.lanes)
	for pr.packet < len(chunk) {
		pr.lanes = 0
		ws.layOut(base, chunk, &pr)
		otherPasses(ws, &k.raw, passLanes, 0, pr.lanes)
	}
}

// layOut lays out as many lanes of the chunk as there is room for, after those that are there already.
func (ws *workspace512) layOut(base *byte, chunk []packetText, pr *progress) {
	first, segments := pr.lanes, 0
	for pr.packet < len(chunk) && pr.lanes < maxLanes {
		p := &chunk[pr.packet]
		all := (p.len + 63) / 64
		n := min(all-pr.done, maxLanes-pr.lanes)
		if n > 0 {
			s := &ws.segments[segments] // field by field: a composite literal would be copied
			s.off, s.left = p.off+64*pr.done, p.len-64*pr.done
			s.counter, s.block, s.lanes = p.counter, 1+pr.done, n
			segments++
			pr.lanes += n
			pr.done += n
		}
		if pr.done == all {
			pr.packet++
			pr.done = 0
		}
	}
	expand(ws, base, first, segments)
}

// tag is the tag that authenticate stored for a lane.
func (ws *workspace512) tag(lane int) *[wire.TagSize]byte { return &ws.tags[lane>>1&3+4*(lane&1)] }

// authenticate computes the tags of up to eight packets, whose one-time keys are those from first on. The tag of packet i
// is that of lane i*each.
func (ws *workspace512) authenticate(base *byte, chunk []packetText, first int) (each int) {
	blocks := 0
	for i := range chunk {
		blocks = max(blocks, (chunk[i].len+15)/16+1) // including that of the lengths. RFC 8439 §2.8
	}
	// Up to four packets are split into stripes of the same number of steps.
	shift := uint(0)
	for len(chunk)<<(shift+1) <= 8 && 4<<shift < blocks {
		shift++
	}
	steps := (blocks-1)>>(2+shift) + 1
	ws.steps, ws.each = steps, 1<<shift
	for l := range 8 {
		i := min(l>>shift, len(chunk)-1) // unused lanes repeat the last packet
		p := &chunk[i]
		ws.stripes.key[l] = 64 * (first + i)
		ws.stripes.off[l], ws.stripes.len[l] = p.off, p.len
	}
	for t := 0; t < steps; t += maxSteps {
		authenticate(ws, base, t, min(t+maxSteps, steps))
	}
	return ws.each
}
