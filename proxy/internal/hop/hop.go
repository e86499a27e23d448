// Package hop passes one HTTP request and its response from one connection to the next, as a proxy does: without what
// concerns one connection only (RFC 9110 §7.6.1), piece by piece as it comes, and with what the client was promised of the
// end of its connection.
//
// It opens and accepts nothing, and starts no goroutine; where a request has a body, [WriteRequest] and [Respond] are to
// be called at the same time, as the response may come first. The header of a response has at most 256 KiB.
package hop

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

const (
	maxResponseHeader = 256 << 10
	maxInterim        = 8 // 1xx responses to one request
)

// ErrTooLong is what reading ends with at the limit of a [Meter].
var ErrTooLong = errors.New("the header is too long")

// hopByHop are the header fields that concern one connection only. RFC 9110 §7.6.1, with those that RFC 2616 §13.5.1
// named and the one that browsers made up.
var hopByHop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade",
}

// dropHopByHop takes them away, and those that Connection names.
func dropHopByHop(h http.Header) {
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop {
		h.Del(name)
	}
}

// Error returns a whole response. The connection is closed after it.
func Error(code int, header, text string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\n%sContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n",
		code, http.StatusText(code), header, len(text)+1, text)
}

// An Idle bounds how long nothing may move on all of the connections that share it.
type Idle struct {
	limit time.Duration
	start time.Time
	last  atomic.Int64 // when a byte moved, since start
}

// NewIdle returns one that counts from now, or nil, for no bound, when the limit is 0.
func NewIdle(limit time.Duration) *Idle {
	if limit == 0 {
		return nil
	}
	return &Idle{limit: limit, start: time.Now()}
}

func (i *Idle) moved() { i.last.Store(int64(time.Since(i.start))) }

// left returns how much longer nothing may move.
func (i *Idle) left() time.Duration {
	return i.limit - (time.Since(i.start) - time.Duration(i.last.Load()))
}

// A Meter reads and writes one connection within bounds: of time, while Idle is set, and of what a header may have. One
// goroutine may read while another one writes.
type Meter struct {
	net.Conn
	Idle  *Idle          // for reading, and, with at least a minute, for one write; nil: the deadline is left as it is
	Left  int64          // bytes that may be read; negative: any number
	Count *atomic.Uint64 // what was written
	ended atomic.Bool
}

// Stop ends reading for ever, also one that is under way in another goroutine.
func (m *Meter) Stop() {
	m.ended.Store(true)
	m.SetReadDeadline(time.Now())
}

// Read reads, and fails with [ErrTooLong] once nothing is left of what may be read.
func (m *Meter) Read(b []byte) (int, error) {
	if m.Left == 0 {
		return 0, ErrTooLong
	}
	if m.Left > 0 {
		b = b[:min(int64(len(b)), m.Left)]
	}
	n, err := m.read(b)
	if m.Left > 0 {
		m.Left -= int64(n)
	}
	return n, err
}

// read waits for as long as anything moves, here or on the other connection.
func (m *Meter) read(b []byte) (int, error) {
	var wait time.Duration
	if m.Idle != nil {
		wait = m.Idle.limit
	}
	for {
		if m.Idle != nil {
			m.SetReadDeadline(time.Now().Add(wait))
		}
		if m.ended.Load() { // after the deadline was set: that of Stop may have been overwritten
			return 0, os.ErrDeadlineExceeded
		}
		n, err := m.Conn.Read(b)
		if m.Idle == nil {
			return n, err
		}
		if n > 0 {
			m.Idle.moved()
		}
		wait = m.Idle.left()
		if n > 0 || wait <= 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

// Write writes and counts.
func (m *Meter) Write(b []byte) (int, error) {
	if m.Idle != nil {
		m.SetWriteDeadline(time.Now().Add(max(m.Idle.limit, time.Minute)))
	}
	n, err := m.Conn.Write(b)
	if m.Idle != nil && n > 0 {
		m.Idle.moved()
	}
	m.Count.Add(uint64(n))
	return n, err
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

// WriteRequest sends a request on to its target, which is told that it is the last one of its connection.
func WriteRequest(target *Meter, req *http.Request) error {
	out := *req
	out.Header = req.Header.Clone()
	dropHopByHop(out.Header)
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = []string{""} // or the library puts its own name there
	}
	out.Close = true
	f := &flusher{w: bufio.NewWriter(target), body: req.Body}
	if req.Body != http.NoBody {
		out.Body = f
	}
	if err := out.Write(f); err != nil {
		return err
	}
	return f.w.Flush()
}

// Respond sends the target's response on to the client, which is told whether it is the last one. It reports whether any
// of it may have been sent, and whether the client may send another request.
func Respond(client, target *Meter, req *http.Request, last bool) (answered, again bool, err error) {
	in := bufio.NewReader(target)
	out := bufio.NewWriter(client)
	for range maxInterim {
		target.Left = maxResponseHeader
		resp, err := http.ReadResponse(in, req)
		if err != nil {
			return false, false, err
		}
		target.Left = -1
		dropHopByHop(resp.Header)
		if resp.StatusCode < 200 {
			if resp.StatusCode == http.StatusSwitchingProtocols {
				return false, false, errors.New("the target switches protocols, which it wasn't asked to do")
			}
			if req.ProtoAtLeast(1, 1) { // RFC 9110 §15.2: never to who speaks 1.0
				fmt.Fprintf(out, "HTTP/1.1 %03d %s\r\n", resp.StatusCode, http.StatusText(resp.StatusCode))
				resp.Header.Write(out)
				io.WriteString(out, "\r\n")
				if err := out.Flush(); err != nil {
					return true, false, err
				}
			}
			continue
		}
		resp.Close = last
		resp.ProtoMajor, resp.ProtoMinor = 1, 1
		chunked := len(resp.TransferEncoding) > 0
		if !req.ProtoAtLeast(1, 1) {
			resp.ProtoMinor, resp.TransferEncoding, chunked = 0, nil, false
		}
		if resp.ContentLength < 0 && !chunked {
			resp.Close = true // the end of the connection is the end of the body
		}
		body := resp.Body
		f := &flusher{w: out, body: body}
		if body != http.NoBody {
			resp.Body = f
		}
		err = resp.Write(f)
		if err == nil {
			err = out.Flush()
		}
		body.Close()
		return true, !resp.Close, err
	}
	return false, false, errors.New("too many interim responses")
}
