package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestReturnMemory checks that memory is returned once for each time that much less is in use than before, when that has stopped
// falling, and not else.
func TestReturnMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var used int64
		freed := 0
		go returnMemory(ctx, func() int64 { return used }, func() { freed++ })
		for i, at := range []struct {
			used int64
			want int
		}{{0, 0}, {10 << 20, 0}, {0, 0}, {100 << 20, 0}, {90 << 20, 0}, {84 << 20, 0}, {84 << 20, 1}, {84 << 20, 1}, {70 << 20, 1}, {70 << 20, 1}, {60 << 20, 1}, {0, 1}, {0, 2}, {0, 2}} {
			used = at.used
			time.Sleep(memoryPeriod)
			synctest.Wait()
			if freed != at.want {
				t.Errorf("look %d: with %d bytes in use memory was returned %d times, want %d", i, at.used, freed, at.want)
			}
		}
		cancel()
		synctest.Wait()
	})
}
