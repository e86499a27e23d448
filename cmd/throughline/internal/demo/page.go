package demo

import (
	_ "embed"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"strconv"
)

// page is the whole page: it loads nothing else.
//
//go:embed page.html
var page []byte

// handler is what the far peer serves.
func (d *Demo) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; frame-ancestors 'none'")
		h.Set("Cache-Control", "no-store")
		w.Write(page)
	})
	mux.HandleFunc("GET /status.json", func(w http.ResponseWriter, _ *http.Request) {
		b, err := json.Marshal(d.Snapshot())
		if err != nil {
			panic("demo: BUG: a snapshot is no JSON: " + err.Error())
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.Write(append(b, '\n'))
	})
	mux.HandleFunc("POST /load", d.serveLoad)
	mux.HandleFunc("PUT /stream", receiveStream)
	mux.HandleFunc("POST /stream", sendStream) // not GET, which other sites can make a browser send
	// Other sites that the browser has open can neither start loads nor, by a name that resolves to this host, read.
	return onlyByAddress(http.NewCrossOriginProtection().Handler(mux))
}

// serveLoad answers the request to begin a load.
func (d *Demo) serveLoad(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	streams, err1 := strconv.Atoi(q.Get("streams"))
	mib, err2 := strconv.ParseInt(q.Get("mib"), 10, 32)
	direction := q.Get("direction")
	if err1 != nil || err2 != nil || streams < 1 || streams > MaxStreams || mib < 1 || mib > maxStream>>20 || direction != "up" && direction != "down" {
		http.Error(w, "ask for /load?direction=up|down&streams=N&mib=N", http.StatusBadRequest)
		return
	}
	if err := d.begin(Load{Up: direction == "up", Streams: streams, Bytes: mib << 20}); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

// onlyByAddress refuses requests whose host is a name, except localhost: an attacker's name may resolve to this host (DNS
// rebinding).
func onlyByAddress(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if _, err := netip.ParseAddr(host); err != nil && host != "localhost" {
			http.Error(w, "ask for this page by its address", http.StatusMisdirectedRequest)
			return
		}
		h.ServeHTTP(w, r)
	})
}
