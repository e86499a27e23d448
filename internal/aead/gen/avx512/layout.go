package main

// Offsets in the workspace, type workspace512 in avx512_amd64.go; a test there compares some.
const (
	lanes   = 384        // laid out at once
	laneCap = lanes + 16 // their arrays are written 16 at a time

	// Secrets come first, so that they can be wiped in one go.
	wsStream = 0                 // key stream of the first pass, 64 bytes for each lane
	wsWords  = wsStream + 16*64  // state of the previous pass, a vector for each word
	wsPowers = wsWords + 16*64   // r⁴, r³, r² and r: five vectors each
	wsAcc    = wsPowers + 4*5*64 // accumulator, three limbs
	wsAdd    = wsAcc + 3*64      // s, which is added to the accumulator in the end, two vectors
	wsTags   = wsAdd + 2*64      // tags of lanes 0, 2, 4, 6, then of lanes 1, 3, 5, 7
	wsZeros  = wsTags + 2*64     // read by Poly1305 lanes that haven't begun
	wsIdle   = wsZeros + 64      // the address of idle ChaCha20 lanes, which write no bytes
	wsHeads  = wsIdle + 64       // each Poly1305 lane's first blocks, right-aligned
	wsTails  = wsHeads + 8*64    // each Poly1305 lane's last blocks, with the lengths
	wsBlock  = wsTails + 8*64    // each ChaCha20 lane's state words 12, 14 and 15
	wsLow    = wsBlock + 4*laneCap
	wsHigh   = wsLow + 4*laneCap
	wsAddr   = wsHigh + 4*laneCap // its address in the slab
	wsMask   = wsAddr + 8*laneCap // which of the 64 bytes there it may access
	wsSegs   = wsMask + 8*laneCap
	wsKey    = wsSegs + segSize*16 // for each Poly1305 lane: offset of its one-time key in the workspace,
	wsOff    = wsKey + 64          // offset of its packet in the slab,
	wsLen    = wsOff + 64          // and the packet's length
	wsSteps  = wsLen + 64          // steps of each stripe
	wsEach   = wsSteps + 8         // stripes of each packet

	// Scratch, used by the assembly alone.
	wsStart    = wsSteps + 64    // the step in which each lane begins
	wsBase     = wsStart + 64    // the address it would read in step 0
	wsHeadAt   = wsBase + 64     // the address of what is copied to wsHeads
	wsHeadMask = wsHeadAt + 64   // and which bytes
	wsTailAt   = wsHeadMask + 64 // the same for wsTails
	wsTailMask = wsTailAt + 64
	wsPtrs     = wsTailMask + 64 // the address each lane reads
	wsIncs     = wsPtrs + 64     // what is added to it in each step
	wsHeadPads = wsIncs + 64     // four bytes, one for each block of a head: which lanes have it
	wsTailPads = wsHeadPads + 4
	wsHasHead  = wsTailPads + 4 // lanes that begin with a head
	wsHasTail  = wsHasHead + 4  // lanes that end with a tail
)

// A segment is consecutive blocks of one packet, in consecutive lanes.
const (
	segOff     = 8 * iota // offset in the slab
	segLeft               // bytes from there to the packet's end
	segCounter            // the packet's counter
	segBlock              // the first block's counter
	segLanes              // number of lanes
	segSize
)
