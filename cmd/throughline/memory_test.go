package main

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestReturnMemory checks that memory is returned once for each time that much less is in use than before, when that has stopped
// falling, and not else.
func TestReturnMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var used, freed atomic.Int64
		go returnMemory(ctx, used.Load, func() { freed.Add(1) })
		time.Sleep(memoryPeriod / 2) // so that each step is between two looks
		for i, at := range []struct {
			used int64
			want int64
		}{{0, 0}, {10 << 20, 0}, {0, 0}, {100 << 20, 0}, {90 << 20, 0}, {84 << 20, 0}, {84 << 20, 1}, {84 << 20, 1}, {70 << 20, 1}, {70 << 20, 1}, {60 << 20, 1}, {0, 1}, {0, 2}, {0, 2}} {
			used.Store(at.used)
			time.Sleep(memoryPeriod)
			synctest.Wait()
			if freed := freed.Load(); freed != at.want {
				t.Errorf("look %d: with %d bytes in use memory was returned %d times, want %d", i, at.used, freed, at.want)
			}
		}
		cancel()
		synctest.Wait()
	})
}
