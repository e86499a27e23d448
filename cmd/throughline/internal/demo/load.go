package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

// MaxStreams is how many streams a load may have.
const MaxStreams = 64

// A Load is something to carry through the tunnel.
type Load struct {
	Up      bool  `json:"up"`      // from near to far; else from far to near
	Streams int   `json:"streams"` // TCP connections
	Bytes   int64 `json:"bytes"`   // of all streams together
}

// String returns what a load is in words.
func (l Load) String() string {
	direction := "down"
	if l.Up {
		direction = "up"
	}
	if l.Streams == 1 {
		return direction + ", 1 stream"
	}
	return fmt.Sprintf("%s, %d streams", direction, l.Streams)
}

// A LoadResult is a load that was carried, every byte of it intact.
type LoadResult struct {
	Load
	Seconds       float64 `json:"seconds"`
	BitsPerSecond float64 `json:"bits_per_second"` // of the load's bytes
}

// Run carries a load, and compares every byte received with what was sent. moved is nil, or it is called, from any
// goroutine, with the number of further bytes that were sent or that arrived intact.
func (d *Demo) Run(ctx context.Context, l Load, moved func(n int)) (LoadResult, error) {
	if l.Streams < 1 || l.Streams > MaxStreams || l.Bytes < 0 || l.Bytes > maxStream {
		return LoadResult{}, fmt.Errorf("a load of %d bytes in %d streams", l.Bytes, l.Streams)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begin := time.Now()
	errs := make([]error, l.Streams)
	var wg sync.WaitGroup
	for i := range errs {
		size := l.Bytes / int64(l.Streams)
		if i == 0 {
			size += l.Bytes % int64(l.Streams)
		}
		wg.Go(func() {
			if err := d.stream(ctx, l.Up, rand.Uint64(), size, moved); err != nil {
				errs[i] = fmt.Errorf("%v: stream %d: %w", l, i+1, err)
				cancel()
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	// The stream that failed first has ended the others.
	slices.SortStableFunc(errs, func(a, b error) int { return rank(a) - rank(b) })
	if errs[0] != nil {
		return LoadResult{}, errs[0]
	}
	return LoadResult{Load: l, Seconds: took.Seconds(), BitsPerSecond: float64(l.Bytes) * 8 / took.Seconds()}, nil
}

// rank orders the errors of streams: first that of a stream which failed, then those of streams which that ended, then nil.
func rank(err error) int {
	switch {
	case err == nil:
		return 2
	case errors.Is(err, context.Canceled):
		return 1
	}
	return 0
}

// stream carries one stream of a load: size bytes of the content that seed makes.
func (d *Demo) stream(ctx context.Context, up bool, seed uint64, size int64, moved func(int)) error {
	method, body := http.MethodPost, io.Reader(nil)
	if up {
		method, body = http.MethodPut, &source{content: content{seed: seed}, size: size, moved: moved}
	}
	req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://%s/stream?seed=%d&bytes=%d", farHTTP, seed, size), body)
	if err != nil {
		return err
	}
	if up {
		req.ContentLength = size
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusUnprocessableEntity:
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		return fmt.Errorf("the far peer reports: %s", why)
	case up && resp.StatusCode == http.StatusNoContent:
		return nil
	case up || resp.StatusCode != http.StatusOK:
		return fmt.Errorf("the far peer answers %q", resp.Status)
	}
	return verify(resp.Body, &check{content: content{seed: seed}, moved: moved}, size)
}

// A Loading is the state of the load that the page started last, if any.
type Loading struct {
	Load
	Running       bool    `json:"running"`
	Moved         int64   `json:"moved"`           // bytes so far
	BitsPerSecond float64 `json:"bits_per_second"` // once it is done
	Error         string  `json:"error,omitempty"`
}

var errBusy = errors.New("a load is running already")

// begin runs a load in the background, unless one is running.
func (d *Demo) begin(l Load) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.load.Running || d.closed {
		return errBusy
	}
	d.load = Loading{Load: l, Running: true}
	d.moved.Store(0)
	d.tasks.Go(func() {
		result, err := d.Run(d.ctx, l, func(n int) { d.moved.Add(int64(n)) })
		d.mu.Lock()
		defer d.mu.Unlock()
		d.load.Running, d.load.BitsPerSecond = false, result.BitsPerSecond
		if err != nil {
			d.load.Error = err.Error()
		}
	})
	return nil
}
