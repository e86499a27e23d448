//go:build unix && !linux

package uapi

import (
	"sync"
	"time"
)

// A watch tells of changes in a directory, by looking every second.
type watch struct {
	wg   sync.WaitGroup // run's goroutine
	done chan struct{}
}

func newWatch(string) (*watch, error) { return &watch{done: make(chan struct{})}, nil }

// run asks gone every second, and returns true once it says so; false when the watch is stopped.
func (w *watch) run(gone func() bool) bool {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for !gone() {
		select {
		case <-t.C:
		case <-w.done:
			return false
		}
	}
	return true
}

// stop ends run and waits for it.
func (w *watch) stop() {
	close(w.done)
	w.wg.Wait()
}
