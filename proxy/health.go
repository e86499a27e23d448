package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"throughline/internal/promtext"
)

// leeway is how much later than its interval an answer may come, as wireproxy has it.
const leeway = 2 * time.Second

// A pong is when an address answered last, in Unix nanoseconds; 0: never.
type pong struct{ at atomic.Int64 }

func (p *Proxy) interval() time.Duration {
	if p.cfg.CheckAliveInterval > 0 {
		return p.cfg.CheckAliveInterval
	}
	return DefaultInterval
}

// keepPinging pings one address until ctx ends.
func (p *Proxy) keepPinging(ctx context.Context, i int) {
	addr := p.cfg.CheckAlive[i]
	alive := true
	for {
		start := time.Now()
		one, cancel := context.WithTimeout(ctx, p.interval())
		_, err := p.tunnel.Ping(one, addr)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			p.pongs[i].at.Store(time.Now().UnixNano())
		}
		if alive != (err == nil) { // once for each change
			alive = err == nil
			if alive {
				p.log.Info("proxy: address answers pings again", "address", addr)
			} else {
				p.log.Warn("proxy: address doesn't answer pings", "address", addr, "error", err)
			}
		}
		if !sleep(ctx, max(0, p.interval()-time.Since(start))) {
			return
		}
	}
}

// Health returns a handler for /readyz and /metrics.
//
// /readyz returns 200 when every address of CheckAlive has answered a ping within the interval and 2 s, else 503, with
// a JSON object of the addresses and when each answered last, in Unix seconds, 0 for never. /metrics answers with what
// status writes, which may be nil, and then the proxy's own counters, in Prometheus' text format.
func (p *Proxy) Health(status func(io.Writer) error) http.Handler {
	mux := http.NewServeMux()
	ready := func(w http.ResponseWriter, _ *http.Request) {
		code, now := http.StatusOK, time.Now()
		pongs := make(map[string]int64)
		for i, a := range p.cfg.CheckAlive {
			at := p.pongs[i].at.Load()
			if at == 0 || now.Sub(time.Unix(0, at)) > p.interval()+leeway {
				code = http.StatusServiceUnavailable
			}
			pongs[a.String()] = at / int64(time.Second)
		}
		body, err := json.Marshal(pongs)
		if err != nil {
			panic("proxy: BUG: a map of numbers is no JSON: " + err.Error())
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		w.Write(append(body, '\n'))
	}
	mux.HandleFunc("GET /readyz", ready)
	mux.HandleFunc("GET /readyz/{$}", ready)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		var b bytes.Buffer
		if status != nil {
			if err := status(&b); err != nil {
				if p.warned.may() {
					p.log.Error("proxy: can't get the tunnel's status", "error", err)
				}
				http.Error(w, "the status of the tunnel is not available", http.StatusInternalServerError)
				return
			}
			if b.Len() > 0 && b.Bytes()[b.Len()-1] != '\n' {
				b.WriteByte('\n')
			}
		}
		p.metrics(&b)
		w.Header().Set("Content-Type", promtext.ContentType)
		w.Write(b.Bytes())
	})
	return mux
}

// metrics writes the proxy's counters.
func (p *Proxy) metrics(b *bytes.Buffer) {
	var t promtext.Text
	for _, m := range []struct {
		name  string
		kind  promtext.Kind
		help  string
		value func(*section) uint64
	}{
		{"connections", promtext.Gauge, "Connections and UDP sessions that are open.", func(s *section) uint64 { return uint64(s.open.Load()) }},
		{"connections_total", promtext.Counter, "Connections and UDP sessions that were accepted.", func(s *section) uint64 { return s.total.Load() }},
		{"refused_total", promtext.Counter, "Connections and datagrams refused as all places were taken.", func(s *section) uint64 { return s.refused.Load() }},
		{"handshakes", promtext.Gauge, "Clients that have not asked for anything yet.", func(s *section) uint64 { return uint64(s.greeting.Load()) }},
		{"displaced_total", promtext.Counter, "Clients closed before they asked for anything, and UDP sessions, as others came.", func(s *section) uint64 { return s.displaced.Load() }},
		{"failed_total", promtext.Counter, "Connections and UDP sessions that ended with an error.", func(s *section) uint64 { return s.failed.Load() }},
		{"dropped_total", promtext.Counter, "Datagrams of UDP sessions and associations that went no further.", func(s *section) uint64 { return s.dropped.Load() }},
		{"sent_bytes_total", promtext.Counter, "Bytes carried from clients to targets.", func(s *section) uint64 { return s.toTarget.Load() }},
		{"received_bytes_total", promtext.Counter, "Bytes carried from targets to clients.", func(s *section) uint64 { return s.toClient.Load() }},
	} {
		if len(p.sections) > 0 {
			t.Metric("throughline_proxy_"+m.name, m.kind, m.help)
		}
		for i, s := range p.sections {
			t.Sample(m.value(s), "section", s.Name, "index", strconv.Itoa(i), "address", s.BindAddress)
		}
	}
	if len(p.cfg.CheckAlive) > 0 {
		t.Metric("throughline_proxy_pong_timestamp_seconds", promtext.Gauge, "When an address answered a ping last.")
	}
	for i, a := range p.cfg.CheckAlive {
		t.Sample(uint64(p.pongs[i].at.Load()/int64(time.Second)), "address", a.String())
	}
	b.Write(t.Bytes())
}
