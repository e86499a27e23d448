package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

// How often it is looked whether memory can be returned to the system, and how much less must be in use for that, in bytes.
const (
	memoryPeriod = 1 * time.Second
	memoryLess   = 16 << 20
)

// returnMemory returns memory to the system after much of it was in use, until ctx ends. Left to itself, Go's runtime keeps
// the memory of connections that have ended until it collects garbage, which is minutes later when nothing is going on. used
// returns how many bytes are in use; free is called when that is well below what it was at most since the last time, and falls
// no further.
func returnMemory(ctx context.Context, used func() int64, free func()) {
	tick := time.NewTicker(memoryPeriod)
	defer tick.Stop()
	most := used()
	for last := most; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := used()
		if now <= most-memoryLess && now >= last {
			free()
			most = now
		}
		most, last = max(most, now), now
	}
}

// freeMemory collects all garbage and returns what is free to the system.
func freeMemory() {
	runtime.GC() // a sync.Pool, like those of the stack's packets, keeps what it has for one collection more
	debug.FreeOSMemory()
}
