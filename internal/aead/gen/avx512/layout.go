package main

// Where things lie in the workspace: the twin of type space512 in avx512_amd64.go.
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
	wsSegs   = wsMask + 8*laneCap
	wsKey    = wsSegs + segSize*16 // of each lane of Poly1305: where its one-time key lies in the workspace,
	wsOff    = wsKey + 64          // where its packet begins in the slab,
	wsLen    = wsOff + 64          // and how long that is
	wsSteps  = wsLen + 64
	wsEach   = wsSteps + 8 // stripes of a packet

	// The assembly's own.
	wsStart    = wsSteps + 64    // the step each lane begins in
	wsBase     = wsStart + 64    // the address at which it would begin to read, if that were the first
	wsHeadAt   = wsBase + 64     // the address of what comes to wsHeads
	wsHeadMask = wsHeadAt + 64   // and which bytes
	wsTailAt   = wsHeadMask + 64 // the same for wsTails
	wsTailMask = wsTailAt + 64
	wsPtrs     = wsTailMask + 64 // where each lane reads
	wsIncs     = wsPtrs + 64     // and by how much that goes on with each step
	wsHeadPads = wsIncs + 64     // four bytes: which lanes have which block in their heads
	wsTailPads = wsHeadPads + 4
	wsHasHead  = wsTailPads + 4 // lanes that begin with their heads
	wsHasTail  = wsHasHead + 4  // lanes that end with their tails
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
