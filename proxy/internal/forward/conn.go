package forward

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"throughline/proxy/internal/idle"
)

// ErrTooLong is what reading ends with at the limit of a [Client].
var ErrTooLong = errors.New("the header is too long")

var (
	errUnsolicited = errors.New("the target sent something that it wasn't asked for")
	errEnded       = errors.New("the request is over")
)

// A Client is the connection of a client: what is read from it can be bounded, what is written is counted, and while
// [Pool.Exchange] uses it either is noted. One goroutine may read while another one writes.
type Client struct {
	net.Conn
	Left  int64          // bytes that may be read; negative: any number
	Count *atomic.Uint64 // what was written
	clock *idle.Clock    // of the request that is under way; nil: none is, and the deadlines are the caller's
	lost  error          // why reading failed, if it did without an end or a time-out
	ended atomic.Bool
}

// stop ends reading until resume, also a read that is under way in another goroutine.
func (c *Client) stop() {
	c.ended.Store(true)
	c.SetReadDeadline(time.Now())
}

// resume allows reading again, once no read is under way. The deadline is still in the past.
func (c *Client) resume() { c.ended.Store(false) }

// Read reads, and fails with [ErrTooLong] once nothing is left of what may be read.
func (c *Client) Read(b []byte) (int, error) {
	switch {
	case c.Left == 0:
		return 0, ErrTooLong
	case c.ended.Load():
		return 0, os.ErrDeadlineExceeded
	case c.Left > 0:
		b = b[:min(int64(len(b)), c.Left)]
	}
	n, err := c.Conn.Read(b)
	if c.Left > 0 {
		c.Left -= int64(n)
	}
	if c.clock != nil && n > 0 {
		c.clock.Moved()
	}
	if err != nil && err != io.EOF && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.lost = err
	}
	return n, err
}

// Write writes and counts.
func (c *Client) Write(b []byte) (int, error) {
	if c.clock != nil {
		c.SetWriteDeadline(c.clock.WriteDeadline(time.Now()))
		c.clock.Hold()
		defer c.clock.Release()
	}
	n, err := c.Conn.Write(b)
	c.Count.Add(uint64(n))
	return n, err
}

// A target is a connection to one, which a Transport uses for one request at a time.
type target struct {
	net.Conn
	count *atomic.Uint64             // what was written
	clock atomic.Pointer[idle.Clock] // of the request; nil: the connection waits for one
}

// Read reads. What comes without a request is not passed on: net/http would log it, and closes the connection either way.
func (t *target) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	if n > 0 {
		clock := t.clock.Load()
		if clock == nil {
			return 0, errUnsolicited
		}
		clock.Moved()
	}
	return n, err
}

// Write writes and counts.
func (t *target) Write(b []byte) (int, error) {
	if clock := t.clock.Load(); clock != nil {
		t.SetWriteDeadline(clock.WriteDeadline(time.Now()))
		clock.Hold()
		defer clock.Release()
	}
	n, err := t.Conn.Write(b)
	t.count.Add(uint64(n))
	return n, err
}

// An upload is the body of a request while it is sent. The Transport reads it in a goroutine of its own, which may go on
// when the response has come whole.
type upload struct {
	body  io.ReadCloser
	done  chan struct{} // closed when no more will be read
	once  sync.Once
	mu    sync.Mutex // held while reading
	over  bool       // nothing may be read any more
	whole bool       // the end was reached
}

func newUpload(body io.ReadCloser) *upload {
	u := &upload{body: body, done: make(chan struct{})}
	if body == http.NoBody {
		u.whole = true
		u.finish()
	}
	return u
}

func (u *upload) Read(b []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.whole: // the Transport looks for more behind the length that was declared
		return 0, io.EOF
	case u.over:
		return 0, errEnded
	}
	n, err := u.body.Read(b)
	if err != nil {
		u.whole = err == io.EOF
		u.finish()
	}
	return n, err
}

// Close declares that no more will be read. What the client still sends of the body is left where it is.
func (u *upload) Close() error {
	u.finish()
	return nil
}

func (u *upload) finish() { u.once.Do(func() { close(u.done) }) }

// end returns when no read is under way, and lets none begin. It reports whether the end was reached.
func (u *upload) end() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.over = true
	return u.whole
}
