package forward

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"time"
)

// hopByHop removes from a header what concerns one connection only. RFC 9110 §7.6.1. ReverseProxy does it to requests and final
// responses.
func hopByHop(h http.Header) {
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Upgrade"} {
		h.Del(name)
	}
}

// rewrite completes what ReverseProxy makes of a request, and takes back what only a gateway does to one. RFC 9110 §3.7.
func rewrite(pr *httputil.ProxyRequest) {
	said := pr.In.Header.Clone()
	hopByHop(said)
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v, ok := said[name]; ok {
			pr.Out.Header[name] = v
		}
	}
	pr.Out.Header.Del("Te")
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery
	pr.Out.Trailer = pr.In.Trailer // filled when the body has been read
	pr.Out.Close = !maySharePool(pr.Out)
	if u := pr.Out.URL; pr.Out.Method == http.MethodOptions && u.Path == "" && u.RawQuery == "" && !u.ForceQuery {
		u.Path = "*" // it is about the whole server. RFC 9112 §3.2.4
	}
	pr.Out.URL.Host = pr.Out.Context().Value(exchangeKey{}).(*exchange).address
}

// maySharePool reports whether a request may go over a connection that other requests used, and leave it to further ones.
//
// Such a connection may be about to be closed by the target, which shows only when the request was sent: then it is sent
// again, so it must be one that can be (RFC 9110 §9.2.2). And some targets take one login for all that comes over the
// same connection later (RFC 4559 §6), but the pool is shared by clients.
func maySharePool(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return r.ContentLength == 0 && r.Header["Authorization"] == nil
	}
	return false
}

// Refusal returns a whole response, where no http.ResponseWriter is. The connection is closed after it.
func Refusal(code int, text string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n",
		code, http.StatusText(code), time.Now().UTC().Format(http.TimeFormat), len(text)+1, text)
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
