//go:build unix && !linux

package uapi

import (
	"sync"
	"time"
)

// A watch polls a directory for changes every second.
type watch struct {
	wg   sync.WaitGroup // the goroutine that calls run
	done chan struct{}
}

func newWatch(string) (*watch, error) { return &watch{done: make(chan struct{})}, nil }

// run calls gone, at once and every second, until it returns true, and then returns true. It returns false when the watch is
// stopped.
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
