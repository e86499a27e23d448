package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"throughline/proxy/internal/idle"
	"throughline/proxy/internal/relay"
)

const (
	maxAhead   = 4 << 10                // what is read of further requests while one is under way
	bodyGrace  = 100 * time.Millisecond // for the rest of a body whose response has gone
	halfClosed = 2 * time.Minute        // how long nothing may move when the client has ended its direction
)

var errNoRequest = errors.New("not a request")

// A Conn is a client's connection as an http.Server has it. It knows what the server doesn't: that a client which has ended
// its direction may still read, that one which has sent further requests may be gone, and what moves when.
// The server and its requests use it as they use any net.Conn.
type Conn struct {
	net.Conn
	Owner   any             // the caller's, for what it knows of the client
	ctx     context.Context // ends when the client is gone, or the caller's does
	lose    context.CancelCauseFunc
	timeout time.Duration  // for a header, and for the writes that belong to no exchange
	state   http.ConnState // StateIdle until the next request begins, and StateNew while its header comes
	ahead   []byte         // read while a request was under way, and not asked for yet
	last    bool           // the client's bytes have no meaning any more
	ended   atomic.Bool
	x       atomic.Pointer[exchange]
	why     atomic.Pointer[error]
}

// NewConn returns a client's connection. A client has the time-out to send a header, and to take a refusal.
func NewConn(c net.Conn, timeout time.Duration, owner any) *Conn {
	c.SetDeadline(time.Now().Add(timeout)) // of TLS' handshake, too, which is part of the first read
	return &Conn{Conn: c, Owner: owner, timeout: timeout}
}

type connKey struct{}

// Bind is an http.Server's ConnContext.
func Bind(ctx context.Context, nc net.Conn) context.Context {
	c := nc.(*Conn)
	c.ctx, c.lose = context.WithCancelCause(context.WithValue(ctx, connKey{}, c))
	return c.ctx
}

// ConnOf returns the connection that a request came over.
func ConnOf(r *http.Request) *Conn { return r.Context().Value(connKey{}).(*Conn) }

// Context ends when the client is gone. The server's own context of a request ends with the client's direction, too.
func (c *Conn) Context() context.Context { return c.ctx }

// Fail keeps why the connection failed, if nothing is kept yet. A nil error is none.
func (c *Conn) Fail(err error) {
	if err != nil {
		c.why.CompareAndSwap(nil, &err)
	}
}

// End releases what Bind holds, when the connection is closed, and returns why it failed; nil if it didn't.
func (c *Conn) End() error {
	c.lose(net.ErrClosed)
	if why := c.why.Load(); why != nil {
		return *why
	}
	return nil
}

// Note follows an http.Server's ConnState.
func (c *Conn) Note(state http.ConnState) {
	c.state = state
	switch state {
	case http.StateActive:
		c.Fail(errNoRequest) // until the handler has one
	case http.StateIdle:
		c.x.Store(nil)
		if c.last {
			c.Close()
		}
	}
}

// Begin is what a handler calls first, and Finish last, unless it panics.
func (c *Conn) Begin(w http.ResponseWriter) {
	if c.last {
		panic(http.ErrAbortHandler)
	}
	c.why.Store(nil)
	http.NewResponseController(w).EnableFullDuplex() // whether a response may come before the body's end is the target's affair
}

// Finish reads what is left of the request's body, if it comes soon. Otherwise the client's next bytes are its rest, not
// another request: the connection ends with the response.
func (c *Conn) Finish(w http.ResponseWriter, body io.Reader) {
	if body == http.NoBody || c.Hijacked() {
		return
	}
	http.NewResponseController(w).Flush()
	c.SetReadDeadline(time.Now().Add(bodyGrace))
	_, err := io.Copy(io.Discard, body)
	c.last = err != nil
}

// Refuse declares that what is written from now on is the proxy's own answer, and why, if that is an error.
func (c *Conn) Refuse(why error) {
	c.x.Store(nil)
	c.Fail(why)
}

// Hijack takes the connection from the server, and returns what the client sent behind its request. The net.Conn in c is
// the caller's then.
func (c *Conn) Hijack(w http.ResponseWriter) (early []byte, err error) {
	_, in, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	early, err = in.Reader.Peek(in.Reader.Buffered())
	return append(early, c.ahead...), err
}

// Hijacked reports whether a handler has taken the connection from the server.
func (c *Conn) Hijacked() bool { return c.state == http.StateHijacked }

// Read reads. While a request is under way the server reads one byte behind it, to learn whether the client is gone: so that
// it does learn, further ones are read and kept.
func (c *Conn) Read(b []byte) (int, error) {
	if len(c.ahead) > 0 {
		n := copy(b, c.ahead)
		c.ahead = c.ahead[n:]
		return n, nil
	}
	n, err := c.read(b)
	if n == 1 && len(b) == 1 && c.state == http.StateActive {
		ahead := make([]byte, 0, maxAhead)
		for err == nil && len(ahead) < maxAhead {
			var more int
			more, err = c.read(ahead[len(ahead):maxAhead])
			ahead = ahead[:len(ahead)+more]
		}
		c.ahead, err = ahead, nil // the next read has the same error
	}
	return n, err
}

// read reads, and notes what that says of the client.
func (c *Conn) read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	x := c.x.Load()
	if n > 0 && x != nil {
		x.clock.Moved()
	}
	if n > 0 && c.state == http.StateIdle {
		c.state = http.StateNew
	}
	switch {
	case err == nil:
	case err == io.EOF: // gone, or it has no more to send: here the two look the same
		c.ended.Store(true)
		if x = c.x.Load(); x != nil {
			x.watch.Shorten(halfClosed)
		}
	case !errors.Is(err, os.ErrDeadlineExceeded):
		if c.state != http.StateIdle {
			c.Fail(err)
		}
		c.lose(err)
	case c.state == http.StateNew:
		c.Fail(err)
		c.Write(Refusal(http.StatusRequestTimeout, "the request took too long")) // the server would say nothing
	}
	return n, err
}

// Write writes. Only what an exchange writes is counted.
func (c *Conn) Write(b []byte) (int, error) {
	x := c.x.Load()
	if x == nil {
		c.SetWriteDeadline(time.Now().Add(c.timeout))
		return c.Conn.Write(b)
	}
	c.SetWriteDeadline(x.clock.WriteDeadline(time.Now()))
	x.clock.Hold()
	defer x.clock.Release()
	n, err := c.Conn.Write(b)
	x.count.Add(uint64(n))
	return n, err
}

// Close lets the client read what was written last, and closes the connection.
func (c *Conn) Close() error {
	if c.ctx.Err() == nil {
		relay.Linger(c.Conn)
	}
	return c.Conn.Close()
}

// An exchange is a request and its response, while they are under way.
type exchange struct {
	ctx     context.Context
	address string // of the target
	clock   *idle.Clock
	watch   *idle.Watch
	count   *atomic.Uint64 // what was written to the client
}

// begin has an exchange note what moves.
func (c *Conn) begin(x *exchange) {
	c.x.Store(x)
	if c.ended.Load() { // seen before there was an exchange
		x.watch.Shorten(halfClosed)
	}
}
