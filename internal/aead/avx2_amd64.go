package aead

//go:generate go -C gen run ./avx2 -out ../avx2_amd64.s

import (
	"sync"

	"golang.org/x/sys/cpu"

	"throughline/internal/wire"
	"throughline/packet"
)

// avx2 does two things at a time: while the vector units compute eight blocks of ChaCha20, each lane any block of any
// packet, the scalar units multiply the Poly1305 blocks of packets whose ChaCha20 is done. That pays for trains; what is
// alone, or few and long, is left to the library.
//
// The blocks of a train are laid out in groups of up to 128, first the one of the packet's one-time key, then those of its
// text. A group is computed in passes of eight, and in the pass after its last block a packet becomes a job for
// Poly1305; to open it, in the pass after its first, as the ciphertext is there. Jobs that are left when a group ends are
// done beside the next: hence two groups, by turns.
var avx2 = &Implementation{name: "avx2", seal: sealAVX2, open: openAVX2, supported: hasAVX2}

func hasAVX2() bool { return cpu.X86.HasAVX2 && cpu.X86.HasBMI2 }

const (
	avx2Lanes = 128                  // of a group
	avx2Wide  = 8                    // lanes of a pass
	avx2Spare = 16                   // room behind the lanes for avx2Lay
	avx2Full  = 40                   // lanes from which a group ends as soon as its last pass has no idle lane
	avx2Max   = (avx2Lanes - 1) * 64 // the longest text that a group holds, one lane being for the one-time key

	// avx2Longest is the longest text that isn't left to the library: longer ones cost the same there.
	avx2Longest = 63 * 64
)

// What packets cost in the library and here, in nanoseconds, found on Zen 3, with another thread on the other half of
// the core and without. Here it is the start, each packet's job, the passes, and what is left of the last packet's Poly1305
// when nothing else is to be computed beside it.
func libraryCost(text int) int { return 140 + text*2/5 }
func avx2Cost(packets, lanes, longest int) int {
	return 200 + 10*packets + (lanes+avx2Wide-1)/avx2Wide*185 + longest/4
}

// avx2Blocks returns how many blocks of ChaCha20 a packet takes, with the one of the one-time key. RFC 8439 §2.8.
func avx2Blocks(text int) int { return 1 + int((uint(text)+63)/64) }

// avx2Work is what the assembly works in. gen/avx2 knows its layout.
type avx2Work struct {
	avx2Secrets
	job    uint64 // where the job under way lies, from the beginning of avx2Work
	end    uint64 // where the next job will
	active uint64 // whether the job under way has begun
	rounds uint64
	pass   uint64
	done   uint64 // jobs done
	_      [8]uint64
	groups [2]avx2Group
	_      [128]byte // Poly1305 may run on behind the last job, with no effect
}

type avx2Secrets struct {
	rows [4][8]uint32 // of the state, when they aren't in registers
	key  [8][8]uint32
	lane [3][8]uint32
	hash [5]uint64
	s1   uint64
}

type avx2Group struct {
	block, low, high [avx2Lanes + avx2Spare]uint32 // the block counter and the nonce of each lane
	ready            [32]uint64                    // for each pass where the jobs end that are ready before it; 0: as before
	stream           [avx2Lanes][64]byte
	jobs             [avx2Lanes]avx2Job
}

// An avx2Job is a packet of a group.
type avx2Job struct {
	off, n int    // the text in the slab
	stream uint64 // where its first lane's block lies, from the beginning of avx2Work
	wrong  uint64 // when opening: zero if the tag was right
	tail   [16]byte
	length [2]uint64
	r      [3]uint64
	next   uint64 // where the next job lies
	s      [2]uint64
	index  int // in the train
	lane   int // its first
}

const (
	avx2Groups    = 640 // where the parts of avx2Work and avx2Group begin
	avx2Stream    = 12*(avx2Lanes+avx2Spare) + 32*8
	avx2Jobs      = avx2Stream + avx2Lanes*64
	avx2JobSize   = 128
	avx2GroupSize = avx2Jobs + avx2Lanes*avx2JobSize
)

// avx2FirstJob is where the jobs of a group begin, from the beginning of avx2Work.
func avx2FirstJob(group int) uint64 { return uint64(avx2Groups + group*avx2GroupSize + avx2Jobs) }

// avx2Passes computes passes of the group that lies at group, beside the jobs that are or become ready. With drain it
// goes on until none is left. It keeps an address in the slab for the next call, so the slab must not be on a stack:
// therefore no noescape here.
func avx2Passes(w *avx2Work, slab *byte, group, passes, open, drain int)

// avx2Lay gives a packet its lanes: their block counters and nonce.
//
//go:noescape
func avx2Lay(group *avx2Group, lane, blocks int, counter uint64)

// avx2Key lays out the key for the passes.
//
//go:noescape
func avx2Key(w *avx2Work, key *byte)

// avx2XOR adds n bytes of stream to text.
//
//go:noescape
func avx2XOR(text, stream *byte, n int)

var avx2Works = sync.Pool{New: func() any { return new(avx2Work) }}

func sealAVX2(k *Key, slab []byte, train []packet.Packet) {
	if len(train) == 1 || !avx2Pays(train, 0) {
		sealXCrypto(k, slab, train)
		return
	}
	r := avx2Run{k: k, slab: slab, train: train, w: avx2Works.Get().(*avx2Work), longest: avx2Longest}
	r.run()
}

func openAVX2(k *Key, slab []byte, train []packet.Packet) {
	if len(train) == 1 || !avx2Pays(train, wire.TagSize) {
		openXCrypto(k, slab, train)
		return
	}
	r := avx2Run{k: k, slab: slab, train: train, w: avx2Works.Get().(*avx2Work), longest: avx2Longest, open: 1}
	r.run()
}

// avx2Pays says whether the train costs less here than in the library. As every single packet costs less than there, it
// can stop as soon as the beginning is paid.
func avx2Pays(train []packet.Packet, tag int) bool {
	packets, library, lanes, longest := 0, 0, 0, 0
	for i := range train {
		p := &train[i]
		text := p.Len - tag
		if p.Drop != 0 || text < 0 || text > avx2Longest {
			continue
		}
		packets++
		library += libraryCost(text)
		lanes += avx2Blocks(text)
		longest = max(longest, text)
		if library > avx2Cost(packets, lanes, longest) {
			return true
		}
	}
	return false
}

// An avx2Run is the work on one train.
type avx2Run struct {
	k     *Key
	slab  []byte
	train []packet.Packet
	w     *avx2Work
	open  int // 1 to open

	longest int // text that isn't left to the library; at most avx2Max

	taken  int    // packets of the train that are behind us
	group  int    // the group in turn
	jobs   [2]int // the most jobs and lanes that each group had
	lanes  [2]int
	opened struct{ group, job, n int } // the next job to be opened, and how many have been
}

func (r *avx2Run) run() {
	w := r.w
	avx2Key(w, &r.k.raw[0])
	w.job, w.end, w.active, w.done = avx2FirstJob(0), avx2FirstJob(0), 0, 0
	for last := false; !last; r.group = 1 - r.group {
		passes := r.lay()
		last = r.taken == len(r.train)
		r.call(passes, last)
		if !last && w.job-avx2FirstJob(r.group) >= avx2Lanes*avx2JobSize {
			// Poly1305 lags behind so far that it is at the other group still, whose turn comes.
			w.groups[r.group].ready[0] = 0
			r.call(0, true)
		}
		if r.open != 0 {
			r.settle()
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

func (r *avx2Run) call(passes int, drain bool) {
	to := 0
	if drain {
		to = 1
	}
	avx2Passes(r.w, &r.slab[0], avx2Groups+r.group*avx2GroupSize, passes, r.open, to)
}

// lay lays out as many packets as the group in turn can have, and returns how many passes they are. Packets that are too
// long for it go to the library on the way.
func (r *avx2Run) lay() (passes int) {
	group, open, slab := &r.w.groups[r.group], r.open != 0, r.slab
	start := avx2Groups + r.group*avx2GroupSize
	next := avx2FirstJob(r.group)
	clear(group.ready[:])
	group.ready[0] = next // whatever is left of the other group is ready
	var j *avx2Job
	n, lane, ready, i := 0, 0, 0, r.taken
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
		if lane+blocks > avx2Lanes || lane >= avx2Full && lane%avx2Wide == 0 {
			break
		}
		_ = slab[p.Off : p.Off+text][:text+wire.TagSize] // the assembly trusts what lies in a job
		next += avx2JobSize
		j = &group.jobs[n%avx2Lanes]
		j.off, j.n, j.index, j.lane, j.next = p.Off, text, i, lane, next
		j.stream = uint64(start + avx2Stream + 64*lane)
		avx2Lay(group, lane, blocks, p.Counter())
		ready = lane/avx2Wide + 1 // the pass before which the one-time key is there: to open, that is enough
		lane += blocks
		if !open {
			ready = (lane-1)/avx2Wide + 1
		}
		group.ready[ready%32] = next
		n++
		if !open {
			p.Len += wire.TagSize
		}
	}
	r.taken = i
	passes = (lane + avx2Wide - 1) / avx2Wide
	if n > 0 {
		j.next = avx2FirstJob(1 - r.group)
		group.ready[ready%32] = j.next
	}
	r.jobs[r.group] = max(r.jobs[r.group], n)
	r.lanes[r.group] = max(r.lanes[r.group], passes*avx2Wide)
	return passes
}

// settle decrypts the packets of the jobs that are done, or clears those whose tag was wrong.
func (r *avx2Run) settle() {
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
