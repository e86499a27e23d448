// Package hop passes one HTTP request and its response from one connection to the next, as a proxy does: without what
// concerns one connection only (RFC 9110 §7.6.1), piece by piece as it comes, and with what the client was promised of the
// end of its connection.
//
// It opens and accepts nothing. [Exchange] uses the caller's goroutine and one more, which has ended when it returns. The
// header of a response has at most 256 KiB.
package hop

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"throughline/proxy/internal/relay"
)

const (
	maxResponseHeader = 256 << 10
	maxInterim        = 8                      // 1xx responses to one request
	maxEmptyLines     = 4                      // before a request
	bodyGrace         = 100 * time.Millisecond // for the rest of a body whose response has come whole
	halfClosed        = 2 * time.Minute        // how long nothing may move when the client has ended its direction
)

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

// Await waits for the first byte of a request. Some clients send an empty line after a body: a few are passed over.
// RFC 9112 §2.2.
func Await(in *bufio.Reader) error {
	for range maxEmptyLines {
		b, err := in.Peek(1)
		if err == nil && b[0] == '\r' {
			b, err = in.Peek(2)
		}
		if s := string(b); err != nil || s != "\r\n" && s != "\n" {
			return err
		}
		in.Discard(len(b))
	}
	_, err := in.Peek(1)
	return err
}

// MaxForwards counts one hop of a TRACE or OPTIONS request, where the client bounds their number, and reports whether
// there is one left. RFC 9110 §7.6.2.
func MaxForwards(req *http.Request) (left bool, err error) {
	v := req.Header["Max-Forwards"]
	if len(v) == 0 || req.Method != http.MethodTrace && req.Method != http.MethodOptions {
		return true, nil
	}
	n, err := strconv.ParseUint(v[0], 10, 31)
	if len(v) > 1 || err != nil && !errors.Is(err, strconv.ErrRange) { // out of range, it is as large as can be
		return false, errors.New("Max-Forwards is not a number")
	}
	if n == 0 {
		return false, nil
	}
	req.Header.Set("Max-Forwards", strconv.FormatUint(n-1, 10))
	return true, nil
}

// Exchange sends a request on to its target, and the response back to the client. In reads from the client; what it says
// before the response has gone stays there. When nothing moves for the idle time-out, Exchange fails; 0 stands for never.
// What went to the target is added to up. The caller closes the target, which may be closed already, and sets the
// client's deadlines anew.
//
// It reports whether an error comes too late for the client to be told, and whether the client may send another request.
func Exchange(client *Meter, in *bufio.Reader, conn net.Conn, req *http.Request, idle time.Duration, up *atomic.Uint64) (late, again bool, err error) {
	client.SetDeadline(time.Time{})
	client.idle = newIdle(idle)
	target := &Meter{Conn: conn, Left: -1, Count: up, idle: client.idle}
	last := req.Close || !req.ProtoAtLeast(1, 1)

	sent, done := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(done)
		err := writeRequest(target, req)
		if w, ok := conn.(interface{ CloseWrite() error }); ok && err != nil {
			w.CloseWrite() // or the target waits for the rest
		}
		sent <- err
		switch _, err := in.Peek(in.Size()); { // what the client says next can wait; that it is gone can't
		case client.lost != nil:
			relay.Abort(conn)
		case err == io.EOF: // gone, or it has no more to say: that can't be told from here
			target.shorten(halfClosed)
		}
	}()
	late, again, err = respond(client, target, req, last)
	wait := time.NewTimer(bodyGrace)
	defer wait.Stop()
	select {
	case e := <-sent:
		again = again && e == nil
	case <-wait.C:
		// The target has said all it has to say. What the client still sends is of no use to anybody.
		conn.Close()
		again = false
	}
	client.stop()
	<-done
	client.resume()
	client.idle = nil
	if err != nil && client.lost != nil {
		return true, false, client.lost
	}
	return late, again, err
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

// writeRequest sends a request on to its target, which is told that it is the last one of its connection.
func writeRequest(target *Meter, req *http.Request) error {
	out := *req
	out.Header = req.Header.Clone()
	dropHopByHop(out.Header)
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = []string{""} // or the library puts its own name there
	}
	out.Close = true
	if u := req.URL; req.Method == http.MethodOptions && u.Path == "" && u.RawQuery == "" && !u.ForceQuery {
		out.URL = &url.URL{Path: "*"} // it is about the whole server. RFC 9112 §3.2.4
	}
	f := &flusher{w: bufio.NewWriter(target), body: req.Body}
	if req.Body != http.NoBody {
		out.Body = f
	}
	if err := out.Write(f); err != nil {
		return err
	}
	return f.w.Flush()
}

// respond sends the target's response on to the client, which is told whether it is the last one. It reports as Exchange
// does.
func respond(client, target *Meter, req *http.Request, last bool) (late, again bool, err error) {
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
