// Package output keeps what the program prints from holding it up: a [Writer] takes lines without waiting, and one goroutine
// writes them where perhaps nobody reads, a pipe or a terminal that is paused.
//
// Concurrency: all methods may be called by any number of goroutines at once.
//
// Limits: 256 KiB wait at most. What comes when there is no room is lost, so that what was printed first stays, which tells
// how it began; how much was lost is said in a line of its own as soon as there is room.
package output

import (
	"context"
	"io"
	"sync"
)

// most is how many bytes may wait. A single longer piece may too, when nothing else does.
const most = 256 << 10

// A Writer is an [io.Writer] that never waits and never fails. Each call of Write is written, or lost, as a whole.
type Writer struct {
	to     io.Writer
	report func(lost int) string
	more   chan struct{} // has an element when there is something to write
	failed chan struct{} // closed at the first error of to

	mu      sync.Mutex // guards what follows
	waiting [][]byte
	size    int  // of waiting, in bytes
	writing bool // the goroutine has taken what waited, and writes it
	lost    int  // pieces, since that was reported last
	err     error
	idle    []chan struct{} // closed when everything has been written
}

// New returns a Writer that writes to to, for as long as the program runs. report returns the line that says how many pieces
// were lost.
func New(to io.Writer, report func(lost int) string) *Writer {
	w := &Writer{to: to, report: report, more: make(chan struct{}, 1), failed: make(chan struct{})}
	go w.run()
	return w
}

// Write takes a copy of b, or loses it. It returns len(b) and nil.
func (w *Writer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.size > 0 && w.size+len(b) > most {
		w.lost++
		return len(b), nil
	}
	w.add(w.takeReport())
	w.add(append([]byte(nil), b...))
	select {
	case w.more <- struct{}{}:
	default:
	}
	return len(b), nil
}

// add has b written. The caller holds mu.
func (w *Writer) add(b []byte) {
	if len(b) > 0 {
		w.waiting = append(w.waiting, b)
		w.size += len(b)
	}
}

// takeReport returns the line about what was lost, if anything was. The caller holds mu.
func (w *Writer) takeReport() []byte {
	n := w.lost
	if n == 0 {
		return nil
	}
	w.lost = 0
	return []byte(w.report(n))
}

// run writes what waits.
func (w *Writer) run() {
	for range w.more {
		for {
			w.mu.Lock()
			if w.size == 0 {
				w.add(w.takeReport())
			}
			pieces := w.waiting
			w.waiting, w.size, w.writing = nil, 0, len(pieces) > 0
			if len(pieces) == 0 {
				for _, c := range w.idle {
					close(c)
				}
				w.idle = nil
				w.mu.Unlock()
				break
			}
			w.mu.Unlock()
			for _, b := range pieces {
				if _, err := w.to.Write(b); err != nil {
					w.fail(err)
				}
			}
		}
	}
}

// fail records the first error. What couldn't be written isn't tried again; what follows is, as a full disk may have room then.
func (w *Writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
		close(w.failed)
	}
}

// Failed returns a channel that is closed when something couldn't be written. Wait returns why.
func (w *Writer) Failed() <-chan struct{} { return w.failed }

// Wait returns when everything has been written, with the first error there was; or when ctx ends, with its error.
func (w *Writer) Wait(ctx context.Context) error {
	w.mu.Lock()
	done := make(chan struct{})
	if w.size == 0 && w.lost == 0 && !w.writing {
		close(done)
	} else {
		w.idle = append(w.idle, done)
		select {
		case w.more <- struct{}{}:
		default:
		}
	}
	w.mu.Unlock()
	select {
	case <-done:
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
