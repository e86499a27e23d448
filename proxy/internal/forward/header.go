package forward

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

const maxEmptyLines = 4 // before a request

// hopByHop are the header fields that concern one connection only. RFC 9110 §7.6.1, with those that RFC 2616 §13.5.1
// named and the one that browsers made up. Transfer-Encoding and Trailer are net/http's: it takes them out of a header, and
// writes its own.
var hopByHop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade",
}

// dropHopByHop removes them, and those that Connection names.
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

// outgoing returns a request as its target is to see it, to be sent to address, a host:port.
func outgoing(req *http.Request, address string) *http.Request {
	out := *req
	out.RequestURI, out.Close = "", false
	out.Header = req.Header.Clone()
	dropHopByHop(out.Header)
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = []string{""} // or net/http puts its own name there
	}
	u := *req.URL
	if req.Method == http.MethodOptions && u.Path == "" && u.RawQuery == "" && !u.ForceQuery {
		u = url.URL{Scheme: u.Scheme, Path: "*"} // it is about the whole server. RFC 9112 §3.2.4
	}
	u.Host = address
	out.URL = &u
	return &out
}

// maySharePool reports whether a request may go over a connection that other requests used, and leave it to further ones.
//
// Such a connection may be about to be closed by the target, which shows only when the request was sent: then it is sent
// again, so it must be one that can be (RFC 9110 §9.2.2). And some targets take one login for all that comes over the
// same connection later (RFC 4559 §6), but the pool is shared by clients.
func maySharePool(req *http.Request) bool {
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return req.Body == http.NoBody && req.Header["Authorization"] == nil
	}
	return false
}

// Refusal returns a whole response. The connection is closed after it.
func Refusal(code int, header, text string) []byte {
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

// MaxForwards counts one proxy of a TRACE or OPTIONS request, where the client bounds their number, and reports whether
// the request may go further. RFC 9110 §7.6.2.
func MaxForwards(req *http.Request) (further bool, err error) {
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
