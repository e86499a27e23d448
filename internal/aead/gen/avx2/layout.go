package main

// Offsets in avx2Work, avx2Group and avx2Job of avx2_amd64.go; a test compares them.
const (
	workRows   = 0   // state words 8 to 11 while they aren't in registers
	workKey    = 128 // state words 4 to 11 before the rounds: the key
	workLane   = 384 // state words 12, 14 and 15 before the rounds
	workHash   = 480 // accumulator, pointer and block count of the job in progress
	workS1     = 520 // its r1 + r1/4
	workJob    = 528 // offset of the job in progress
	workEnd    = 536 // offset of the first job that isn't ready
	workActive = 544 // whether workHash is in use
	workRounds = 552 // double rounds to go
	workPass   = 560 // passes done
	workDone   = 568 // jobs done
	workGroups = 640

	groupBlock  = 0
	groupLow    = groupBlock + 4*(lanes+spare)
	groupHigh   = groupLow + 4*(lanes+spare)
	groupReady  = groupHigh + 4*(lanes+spare)
	groupStream = groupReady + 256
	groupJobs   = groupStream + 64*lanes

	jobOff    = 0
	jobLen    = 8
	jobStream = 16
	jobWrong  = 24
	jobTail   = 32
	jobLength = 48
	jobEnd    = 64
	jobR      = 64 // r0, r1, r1+r1/4
	jobNext   = 88
	jobS      = 96

	lanes = 128 // blocks of a group
	spare = 16  // further elements of its arrays, as avx2Lay sets eight at a time
)
