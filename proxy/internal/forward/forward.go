// Package forward is what lies between net/http's server, its reverse proxy and its transport, which pass plain HTTP
// requests on to their targets and the responses back, and an HTTP proxy that a client chose: a response to a client which
// has ended its direction, the end of a request whose client is gone or which is idle, and a header as the client sent it.
//
// A [Proxy] may be used by any number of goroutines; a [Conn] is the server's. Neither starts a goroutine; net/http has two
// for each connection to a target and one for each request under way. The header of a response has at most
// 256 KiB; a request has at most 8 interim responses. Of connections that wait for a further request there are at most
// 8 for a target and 64 in all, for a minute.
package forward

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"sync/atomic"
	"time"

	"throughline/proxy/internal/idle"
	"throughline/proxy/internal/relay"
)

const (
	maxResponseHeader = 256 << 10
	maxInterim        = 8           // 1xx responses to one request
	continueTimeout   = time.Second // for a target to ask for a body of which the client waits to be asked

	maxKept       = 64 // connections without a request
	maxKeptForOne = 8
	keptForAtMost = time.Minute
)

var errInterim = errors.New("too many interim responses")

// A DialError is why a target wasn't reached.
type DialError struct{ Err error }

// Error returns the text of the network's error.
func (e *DialError) Error() string { return e.Err.Error() }

// A Proxy sends requests to their targets, and keeps connections for further ones.
type Proxy struct {
	kept    *http.Transport
	single  *http.Transport // for the other requests: each has a connection of its own
	reverse httputil.ReverseProxy
}

type exchangeKey struct{}

// New returns a proxy that connects with dial to host:port, and has refuse answer the requests that fail before their response
// came: with a [DialError] when the target wasn't reached.
func New(dial func(ctx context.Context, address string) (net.Conn, error), refuse func(http.ResponseWriter, *http.Request, error), log *log.Logger) *Proxy {
	p := &Proxy{}
	p.kept = &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			x := ctx.Value(exchangeKey{}).(*exchange)
			// The Transport goes on connecting when the request is over, in case that a later one can use the connection; so
			// clients that come and go could have any number of dials under way.
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(x.ctx, cancel)()
			x.clock.Hold() // connecting has a time-out of its own
			defer x.clock.Release()
			c, err := dial(ctx, address)
			if err != nil {
				return nil, &DialError{err}
			}
			return c, nil
		},
		DisableCompression:     true, // what the client asks for is what it gets
		ExpectContinueTimeout:  continueTimeout,
		MaxIdleConns:           maxKept,
		MaxIdleConnsPerHost:    maxKeptForOne,
		IdleConnTimeout:        keptForAtMost,
		MaxResponseHeaderBytes: maxResponseHeader,
	}
	p.single = p.kept.Clone()
	p.reverse = httputil.ReverseProxy{
		Rewrite: rewrite, Transport: p, FlushInterval: -1, ErrorLog: log, BufferPool: relay.Pool{},
		ModifyResponse: func(resp *http.Response) error {
			if resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 {
				resp.Header.Set("Transfer-Encoding", "identity") // the end of the connection is the end of the body
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if cause := context.Cause(r.Context()); cause != nil {
				err = cause
			}
			refuse(w, r, err)
		},
	}
	return p
}

// RoundTrip sends a request, over a connection that it may share or one of its own.
func (p *Proxy) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Close {
		return p.single.RoundTrip(r)
	}
	return p.kept.RoundTrip(r)
}

// Serve passes a request on to address, a host:port, and the response back, and adds to count what is written to the client.
// When nothing moves for the limit, it fails; 0 stands for never. It panics with http.ErrAbortHandler when it fails too
// late for an answer.
func (p *Proxy) Serve(w http.ResponseWriter, r *http.Request, address string, limit time.Duration, count *atomic.Uint64) {
	c := ConnOf(r)
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	x := &exchange{ctx: ctx, address: address, clock: idle.New(limit), count: count}
	x.watch = x.clock.Watch(func() { cancel(idle.ErrIdle) })
	defer x.watch.Stop()
	c.begin(x)
	p.reverse.ServeHTTP(&response{ResponseWriter: w, r: r, cancel: cancel}, r.WithContext(context.WithValue(ctx, exchangeKey{}, x)))
}

// A response is what ReverseProxy writes to.
type response struct {
	http.ResponseWriter
	r       *http.Request
	cancel  context.CancelCauseFunc
	interim int
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader writes a header, to which the server adds a Date if there is none (RFC 9110 §6.6.1), and no type.
func (w *response) WriteHeader(code int) {
	h := w.Header()
	if code >= 200 {
		if _, ok := h["Content-Type"]; !ok {
			h["Content-Type"] = nil
		}
		w.ResponseWriter.WriteHeader(code)
		return
	}
	if w.interim++; w.interim > maxInterim {
		w.cancel(errInterim)
	} else if w.r.ProtoAtLeast(1, 1) { // RFC 9110 §15.2: never to a client that speaks 1.0
		hopByHop(h)
		w.ResponseWriter.WriteHeader(code)
	}
}
