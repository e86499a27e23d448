package aead

//go:generate go -C gen run ./avx2 -out ../avx2_amd64.s

import (
	"sync"

	"golang.org/x/sys/cpu"

	"throughline/internal/wire"
	"throughline/packet"
)

// avx2 overlaps two computations: while the vector units compute eight blocks of ChaCha20, one in each 32-bit lane and
// each of any packet, the scalar units multiply the Poly1305 blocks of packets whose ChaCha20 is done. That pays for
// trains; single packets, and few long ones, are left to x/crypto.
//
// The blocks of a train are laid out in groups of up to 128: for each packet that of the one-time key, then those of its
// text. A group is computed in passes of eight blocks. In the pass after its last block a packet becomes a job for
// Poly1305; when opening, in the pass after its first, as the ciphertext is there already. Jobs left at the end of a
// group are done during the next: hence two groups, used alternately.
var avx2 = &Implementation{name: "avx2", seal: sealAVX2, open: openAVX2, supported: hasAVX2}

func hasAVX2() bool { return cpu.X86.HasAVX2 && cpu.X86.HasBMI2 }

const (
	avx2Lanes = 128                  // of a group
	avx2Width = 8                    // lanes of a pass
	avx2Spare = 16                   // padding after the lanes, as avx2Lay writes eight at a time
	avx2Full  = 40                   // from so many lanes on a group ends as soon as its last pass has no idle lane
	avx2Max   = (avx2Lanes - 1) * 64 // the longest text that fits in a group, one lane being for the one-time key

	// avx2Longest is the longest text that isn't left to x/crypto: longer ones cost the same there.
	avx2Longest = 63 * 64
)

// What packets cost in x/crypto and here, in nanoseconds, measured on Zen 3, with another hyperthread busy on the same
// core and without. Here it is the set-up, each packet's job, the passes, and what remains of the last packet's Poly1305
// when no ChaCha20 is left to overlap with it.
func xcryptoCost(text int) int { return 140 + text*2/5 }
func avx2Cost(packets, lanes, longest int) int {
	return 200 + 10*packets + (lanes+avx2Width-1)/avx2Width*185 + longest/4
}

// avx2Blocks returns how many blocks of ChaCha20 a packet needs, including that of the one-time key. RFC 8439 §2.8.
func avx2Blocks(text int) int { return 1 + int((uint(text)+63)/64) }

// avx2Work is the assembly's workspace. gen/avx2 has the same offsets; a test compares them.
type avx2Work struct {
	avx2Secrets
	job    uint64 // offset in avx2Work of the job in progress
	end    uint64 // offset of the first job that isn't ready
	active uint64 // whether the job in progress has begun
	rounds uint64 // double rounds to go
	pass   uint64 // passes done
	done   uint64 // jobs done
	_      [8]uint64
	groups [2]avx2Group
	_      [128]byte // Poly1305 may read on after the last job, with no effect
}

type avx2Secrets struct {
	rows [4][8]uint32 // state words 8 to 11 while they aren't in registers
	key  [8][8]uint32 // state words 4 to 11 before the rounds
	lane [3][8]uint32 // state words 12, 14 and 15 before the rounds
	hash [5]uint64    // accumulator, pointer and block count of the job in progress
	s1   uint64       // its r1 + r1/4
}

type avx2Group struct {
	block, low, high [avx2Lanes + avx2Spare]uint32 // each lane's block counter and nonce
	ready            [32]uint64                    // for each pass, the offset where the jobs that are ready before it end; 0: unchanged
	stream           [avx2Lanes][64]byte           // the key stream
	jobs             [avx2Lanes]avx2Job
}

// An avx2Job is a packet of a group.
type avx2Job struct {
	off, n int       // the text in the slab
	stream uint64    // offset in avx2Work of the block of its first lane
	wrong  uint64    // when opening: zero if the tag was right
	tail   [16]byte  // the ciphertext's last, partial block
	length [2]uint64 // the block of lengths. RFC 8439 §2.8
	r      [3]uint64 // r0, r1, r1 + r1/4
	next   uint64    // offset of the next job
	s      [2]uint64
	index  int // in the train
	lane   int // its first
}

const (
	avx2Groups    = 640 // offsets and sizes of parts of avx2Work and avx2Group
	avx2Stream    = 12*(avx2Lanes+avx2Spare) + 32*8
	avx2Jobs      = avx2Stream + avx2Lanes*64
	avx2JobSize   = 128
	avx2GroupSize = avx2Jobs + avx2Lanes*avx2JobSize
)

// avx2FirstJob is the offset in avx2Work of a group's jobs.
func avx2FirstJob(group int) uint64 { return uint64(avx2Groups + group*avx2GroupSize + avx2Jobs) }

// avx2Passes computes passes of the group at the offset group, and the jobs that are or become ready. With drain it goes
// on until no job is left. It keeps an address in the slab for the next call, so the slab must not be on a stack:
// therefore no noescape here.
func avx2Passes(w *avx2Work, slab *byte, group, passes, open, drain int)

// avx2Lay sets block counters and nonce of a packet's lanes.
//
//go:noescape
func avx2Lay(group *avx2Group, lane, blocks int, counter uint64)

// avx2Key broadcasts the key's words to all lanes, for the passes.
//
//go:noescape
func avx2Key(w *avx2Work, key *byte)

// avx2XOR XORs n bytes of stream into text.
//
//go:noescape
func avx2XOR(text, stream *byte, n int)

var avx2Works = sync.Pool{New: func() any { return new(avx2Work) }}

func sealAVX2(k *Key, slab []byte, train []packet.Packet) {
	if len(train) == 1 || !avx2Pays(train, 0) {
		sealXCrypto(k, slab, train)
		return
	}
	r := avx2Train{k: k, slab: slab, train: train, w: avx2Works.Get().(*avx2Work), longest: avx2Longest}
	r.run()
}

func openAVX2(k *Key, slab []byte, train []packet.Packet) {
	if len(train) == 1 || !avx2Pays(train, wire.TagSize) {
		openXCrypto(k, slab, train)
		return
	}
	r := avx2Train{k: k, slab: slab, train: train, w: avx2Works.Get().(*avx2Work), longest: avx2Longest, open: 1}
	r.run()
}

// avx2Pays reports whether the train costs less here than in x/crypto. As each further packet costs less than there, it
// can stop as soon as the set-up is paid for.
func avx2Pays(train []packet.Packet, tag int) bool {
	packets, xcrypto, lanes, longest := 0, 0, 0, 0
	for i := range train {
		p := &train[i]
		text := p.Len - tag
		if p.Drop != 0 || text < 0 || text > avx2Longest {
			continue
		}
		packets++
		xcrypto += xcryptoCost(text)
		lanes += avx2Blocks(text)
		longest = max(longest, text)
		if xcrypto > avx2Cost(packets, lanes, longest) {
			return true
		}
	}
	return false
}

// An avx2Train is a train being sealed or opened.
type avx2Train struct {
	k     *Key
	slab  []byte
	train []packet.Packet
	w     *avx2Work
	open  int // 1 to open

	longest int // text that isn't left to x/crypto; at most avx2Max

	next   int    // index of the next packet to be laid out
	group  int    // the current group
	jobs   [2]int // the most jobs and lanes that each group had, to be wiped
	lanes  [2]int
	opened struct{ group, job, n int } // the next job to be decrypted, and how many have been
}

func (r *avx2Train) run() {
	w := r.w
	avx2Key(w, &r.k.raw[0])
	w.job, w.end, w.active, w.done = avx2FirstJob(0), avx2FirstJob(0), 0, 0
	for last := false; !last; r.group = 1 - r.group {
		passes := r.layOut()
		last = r.next == len(r.train)
		r.call(passes, last)
		if !last && w.job-avx2FirstJob(r.group) >= avx2Lanes*avx2JobSize {
			// Poly1305 lags so far behind that it is still in the other group, which is about to be reused.
			w.groups[r.group].ready[0] = 0
			r.call(0, true)
		}
		if r.open != 0 {
			r.finishOpen()
		}
	}
	w.avx2Secrets = avx2Secrets{}
	for i := range w.groups {
		g := &w.groups[i]
		clear(g.stream[:r.lanes[i]])
		clear(g.jobs[:r.jobs[i]])
	}
	avx2Works.Put(w)
}

func (r *avx2Train) call(passes int, drain bool) {
	flag := 0
	if drain {
		flag = 1
	}
	avx2Passes(r.w, &r.slab[0], avx2Groups+r.group*avx2GroupSize, passes, r.open, flag)
}

// layOut lays out as many packets as fit in the current group, and returns how many passes they need. Packets that are
// too long are sealed or opened by x/crypto at once.
func (r *avx2Train) layOut() (passes int) {
	group, open, slab := &r.w.groups[r.group], r.open != 0, r.slab
	start := avx2Groups + r.group*avx2GroupSize
	next := avx2FirstJob(r.group)
	clear(group.ready[:])
	group.ready[0] = next // all jobs left in the other group are ready
	var j *avx2Job
	n, lane, ready, i := 0, 0, 0, r.next
	for ; i < len(r.train); i++ {
		p := &r.train[i]
		if p.Drop != 0 {
			continue
		}
		text := p.Len
		if open {
			if text -= wire.TagSize; text < 0 {
				p.Drop = packet.DropTag
				continue
			}
		}
		if text > r.longest {
			if open {
				openXCrypto(r.k, slab, r.train[i:i+1])
			} else {
				sealXCrypto(r.k, slab, r.train[i:i+1])
			}
			continue
		}
		blocks := avx2Blocks(text)
		if lane+blocks > avx2Lanes || lane >= avx2Full && lane%avx2Width == 0 {
			break
		}
		_ = slab[p.Off : p.Off+text][:text+wire.TagSize] // the assembly checks no bounds
		next += avx2JobSize
		j = &group.jobs[n%avx2Lanes]
		j.off, j.n, j.index, j.lane, j.next = p.Off, text, i, lane, next
		j.stream = uint64(start + avx2Stream + 64*lane)
		avx2Lay(group, lane, blocks, p.Counter())
		ready = lane/avx2Width + 1 // the pass before which the one-time key is there: enough to open
		lane += blocks
		if !open {
			ready = (lane-1)/avx2Width + 1
		}
		group.ready[ready%32] = next
		n++
		if !open {
			p.Len += wire.TagSize
		}
	}
	r.next = i
	passes = (lane + avx2Width - 1) / avx2Width
	if n > 0 {
		j.next = avx2FirstJob(1 - r.group)
		group.ready[ready%32] = j.next
	}
	r.jobs[r.group] = max(r.jobs[r.group], n)
	r.lanes[r.group] = max(r.lanes[r.group], passes*avx2Width)
	return passes
}

// finishOpen decrypts the packets of the jobs that are done, or clears those whose tag was wrong.
func (r *avx2Train) finishOpen() {
	o := &r.opened
	for ; o.n < int(r.w.done); o.n++ {
		g := &r.w.groups[o.group]
		j := &g.jobs[o.job]
		p := &r.train[j.index]
		switch {
		case j.wrong != 0:
			clear(r.slab[j.off : j.off+j.n])
			p.Drop = packet.DropTag
		case j.n > 0:
			avx2XOR(&r.slab[j.off], &g.stream[j.lane+1][0], j.n)
			fallthrough
		default:
			p.Len = j.n
		}
		if o.job++; j.next == avx2FirstJob(1-o.group) {
			o.group, o.job = 1-o.group, 0
		}
	}
}
