// Package forward passes plain HTTP requests on to their targets, and the responses back, as a proxy does: without what
// concerns one connection only (RFC 9110 §7.6.1), piece by piece as it comes, and with what the client was promised of the
// end of its connection.
//
// net/http does the work: its Transport sends the requests, and keeps connections to targets for later ones; its
// Response writes what the client gets. What is here is what lies between.
//
// A [Pool] may be used by any number of goroutines. [Pool.Exchange] uses the caller's goroutine and one more, which has
// ended when it returns; the Transport has two for each connection, which end with it. The header of a response has at
// most 256 KiB. Of connections that wait for a further request there are at most 8 for a target and 64 in all, for a
// minute.
package forward

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"sync/atomic"
	"time"

	"throughline/proxy/internal/idle"
)

const (
	maxResponseHeader = 256 << 10
	maxInterim        = 8                      // 1xx responses to one request
	bodyGrace         = 100 * time.Millisecond // for the rest of a body whose response has come whole
	halfClosed        = 2 * time.Minute        // how long nothing may move when the client has ended its direction

	maxKept       = 64 // connections without a request
	maxKeptForOne = 8
	keptForAtMost = time.Minute
)

// ErrRequest is what [Pool.Exchange] fails with when a request can't be sent to any target.
var ErrRequest = errors.New("not a request that can be sent on")

// A DialError is why a target wasn't reached.
type DialError struct{ Err error }

// Error returns the text of the network's error.
func (e *DialError) Error() string { return e.Err.Error() }

// Unwrap returns the network's error.
func (e *DialError) Unwrap() error { return e.Err }

// A requestKey is where the context of a dial has that of its request. The Transport goes on connecting when the request is
// over, in case that a later one can use the connection; so clients that come and go could have any number of dials under
// way.
type requestKey struct{}

// A Pool sends requests to their targets, and keeps connections for further ones.
type Pool struct {
	kept   *http.Transport
	single *http.Transport // for the other requests: each has a connection of its own
}

// NewPool returns a pool that connects with dial to host:port. What is sent to targets is added to count.
func NewPool(dial func(ctx context.Context, address string) (net.Conn, error), count *atomic.Uint64) *Pool {
	transport := func(single bool) *http.Transport {
		return &http.Transport{
			DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				if request, ok := ctx.Value(requestKey{}).(context.Context); ok {
					defer context.AfterFunc(request, cancel)()
				}
				c, err := dial(ctx, address)
				if err != nil {
					return nil, &DialError{err}
				}
				return &target{Conn: c, count: count}, nil
			},
			DisableKeepAlives:      single,
			DisableCompression:     true, // what the client asks for is what it gets
			MaxIdleConns:           maxKept,
			MaxIdleConnsPerHost:    maxKeptForOne,
			IdleConnTimeout:        keptForAtMost,
			MaxResponseHeaderBytes: maxResponseHeader,
		}
	}
	return &Pool{kept: transport(false), single: transport(true)}
}

// Close closes the connections that wait for a request.
func (p *Pool) Close() {
	p.kept.CloseIdleConnections()
	p.single.CloseIdleConnections()
}

// Exchange sends a request on to address, a host:port, and the response back to the client. In reads from the client; what it
// sends before the response has gone stays there. When nothing moves for the limit, Exchange fails; 0 stands for never. It
// ends with ctx, and when the client has gone. The caller sets the client's deadlines anew.
//
// It reports whether an error comes too late to be answered, and whether the client may send another request.
// An error is a [DialError] when the target wasn't reached.
func (p *Pool) Exchange(ctx context.Context, client *Client, in *bufio.Reader, req *http.Request, address string, limit time.Duration) (late, again bool, err error) {
	client.SetDeadline(time.Time{})
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	clock := idle.New(limit)
	client.clock = clock
	watch := clock.Watch(func() { cancel(idle.ErrIdle) })
	body := newUpload(req.Body)

	listened := make(chan struct{})
	go func() {
		defer close(listened)
		<-body.done
		body.end()
		switch _, err := in.Peek(in.Size()); { // what the client sends next can wait; that it is gone can't
		case client.lost != nil:
			cancel(client.lost)
		case err == io.EOF: // gone, or it has no more to send: here the two look the same
			watch.Shorten(halfClosed)
		}
	}()
	out := outgoing(req, address)
	if req.Body != http.NoBody {
		out.Body = body
	}
	x := &exchange{client: client, clock: clock, req: req}
	late, again, err = x.respond(ctx, p.transport(req), out)
	if err == nil {
		grace := time.NewTimer(bodyGrace)
		select {
		case <-body.done:
		case <-grace.C: // the response is whole: what the client still sends is of no use
		}
		grace.Stop()
	}
	watch.Stop()
	cancel(nil)
	client.stop()
	body.finish()
	<-listened
	again = again && body.end()
	client.resume()
	client.clock = nil
	if err != nil && client.lost != nil {
		return true, false, client.lost
	}
	return late, again && err == nil, err
}

func (p *Pool) transport(req *http.Request) *http.Transport {
	if maySharePool(req) {
		return p.kept
	}
	return p.single
}

// An exchange is a request and its response, while they are under way.
type exchange struct {
	client *Client
	clock  *idle.Clock
	req    *http.Request
	asked  atomic.Bool // a connection was asked for

	mu      sync.Mutex // guards what follows: the Transport reports interim responses in a goroutine of its own
	interim int
	final   bool // no interim response may be sent any more
}

// trace has the Transport report what it does with connections, and interim responses.
func (x *exchange) trace() *httptrace.ClientTrace {
	var conn atomic.Pointer[target]
	return &httptrace.ClientTrace{
		GetConn: func(string) {
			x.asked.Store(true)
			x.clock.Hold() // connecting has a time-out of its own
		},
		GotConn: func(info httptrace.GotConnInfo) {
			if t, ok := info.Conn.(*target); ok {
				t.clock.Store(x.clock)
				conn.Store(t)
			}
			x.clock.Release()
		},
		PutIdleConn: func(error) {
			if t := conn.Load(); t != nil {
				t.clock.CompareAndSwap(x.clock, nil) // another request may have it already
			}
		},
		Got1xxResponse: x.sendInterim,
	}
}

// sendInterim sends a 1xx response on to the client.
func (x *exchange) sendInterim(code int, header textproto.MIMEHeader) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.interim++; x.interim > maxInterim {
		return errors.New("too many interim responses")
	}
	if x.final || !x.req.ProtoAtLeast(1, 1) { // RFC 9110 §15.2: never to a client that speaks 1.0
		return nil
	}
	h := http.Header(header).Clone()
	dropHopByHop(h)
	out := bufio.NewWriter(x.client)
	fmt.Fprintf(out, "HTTP/1.1 %03d %s\r\n", code, http.StatusText(code))
	h.Write(out)
	io.WriteString(out, "\r\n")
	return out.Flush()
}

// respond sends the request, and the target's response on to the client, with Connection: close if it is the
// last one. It reports as Exchange does.
func (x *exchange) respond(ctx context.Context, transport *http.Transport, out *http.Request) (late, again bool, err error) {
	traced := httptrace.WithClientTrace(context.WithValue(ctx, requestKey{}, ctx), x.trace())
	resp, err := transport.RoundTrip(out.WithContext(traced))
	x.mu.Lock()
	x.final = true
	x.mu.Unlock()
	if err != nil {
		switch {
		case context.Cause(ctx) != nil:
			err = context.Cause(ctx)
		case !x.asked.Load():
			err = fmt.Errorf("%w: %w", ErrRequest, err)
		}
		return false, false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return false, false, errors.New("the target switches protocols, which it wasn't asked to do")
	}
	dropHopByHop(resp.Header)
	resp.Close = x.req.Close || !x.req.ProtoAtLeast(1, 1)
	resp.ProtoMajor, resp.ProtoMinor = 1, 1
	chunked := len(resp.TransferEncoding) > 0
	if !x.req.ProtoAtLeast(1, 1) {
		resp.ProtoMinor, resp.TransferEncoding, chunked = 0, nil, false
	}
	if resp.ContentLength < 0 && !chunked {
		resp.Close = true // the end of the connection is the end of the body
	}
	f := &flusher{w: bufio.NewWriter(x.client), body: resp.Body}
	if resp.Body != http.NoBody {
		resp.Body = f
	}
	if err := resp.Write(f); err != nil {
		return true, false, err
	}
	return true, !resp.Close, f.w.Flush()
}

// A flusher gathers small writes, and has them sent before anything is waited for. It hides what else a bufio.Writer can
// do: with its ReadFrom, bytes would lie in it while the next ones are waited for.
type flusher struct {
	w    *bufio.Writer
	body io.ReadCloser
}

func (f *flusher) Write(b []byte) (int, error) { return f.w.Write(b) }
func (f *flusher) WriteByte(c byte) error      { return f.w.WriteByte(c) }

func (f *flusher) Read(b []byte) (int, error) {
	if err := f.w.Flush(); err != nil {
		return 0, err
	}
	return f.body.Read(b)
}

func (f *flusher) Close() error { return f.body.Close() }
