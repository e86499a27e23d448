package main

// Where things lie in the workspace: the twin of type workspace in avx512_amd64.go.
const (
	lanes   = 384        // lanes that are laid out at once
	laneCap = lanes + 16 // their arrays are written 16 at a time

	// What is secret comes first, so that it can be wiped in one go.
	wsStream = 0                 // key stream of the first pass, a block of 64 bytes a lane
	wsWords  = wsStream + 16*64  // state of the pass before, a vector a word
	wsPowers = wsWords + 16*64   // r⁴, r³, r² and r: five vectors each
	wsAcc    = wsPowers + 4*5*64 // accumulator, three limbs
	wsAdd    = wsAcc + 3*64      // what is added to the accumulator in the end, two vectors
	wsTags   = wsAdd + 2*64      // tags: of lanes 0, 2, 4, 6, then of lanes 1, 3, 5, 7
	wsZeros  = wsTags + 2*64     // read by idle lanes
	wsIdle   = wsZeros + 64      // where idle lanes of ChaCha20 write no bytes
	wsHeads  = wsIdle + 64       // the first blocks of each lane of Poly1305, right-aligned
	wsTails  = wsHeads + 8*64    // the last blocks of each, with the lengths
	wsBlock  = wsTails + 8*64    // state words 12, 14 and 15 of each lane of ChaCha20
	wsLow    = wsBlock + 4*laneCap
	wsHigh   = wsLow + 4*laneCap
	wsAddr   = wsHigh + 4*laneCap // its address
	wsMask   = wsAddr + 8*laneCap // and which of the 64 bytes there it may touch
	wsPtrs   = wsMask + 8*laneCap // addresses of the lanes of Poly1305
	wsIncs   = wsPtrs + 8*8       // and by how much they go on each step
	wsSegs   = wsIncs + 8*8
	wsLanes  = wsSegs + segSize*16
	wsCounts = wsLanes + 6*64
)

// A segment is a row of lanes that are consecutive blocks of one packet.
const (
	segOff     = 8 * iota // where in the slab
	segLeft               // bytes from there to the packet's end
	segCounter            // the packet's counter
	segBlock              // the number of the first block
	segLanes              // how many lanes
	segSize
)

// What Poly1305 knows of its lanes: vectors of eight.
const (
	laneKey      = 64 * iota // offset of the one-time key in the workspace
	laneHead                 // offset in the slab of what comes to wsHeads
	laneHeadMask             // which bytes
	laneTail                 // the same for wsTails
	laneTailMask
	laneLength // the length that goes to the end of wsTails
)

const (
	countPhases  = 8 * iota // phases to go through
	countSteps              // steps of a stripe
	countStripes            // stripes a packet
)

// A phase is a number of steps in which each lane does the same.
const (
	phaseSteps = 0  // how many steps of four blocks
	phasePads  = 8  // four bytes: which lanes have a block there at all
	phaseOwn   = 12 // a byte: which lanes read from the workspace, not from the slab
	phaseOff   = 16 // where each lane reads
	phaseSize  = phaseOff + 64
)
