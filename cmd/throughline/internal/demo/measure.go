package demo

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"time"

	"throughline"
	"throughline/packet"
)

const (
	sampleEvery = 500 * time.Millisecond
	samples     = int(time.Minute / sampleEvery) // how many the plot shows
	pingEvery   = time.Second
	pings       = 60                                  // how many are kept
	recent      = int(10 * time.Second / sampleEvery) // how many samples the page's figures for the walk are the mean of
)

// A sample is the counters at one moment.
type sample struct {
	at       time.Time
	rx, tx   uint64 // bytes of datagrams that the near peer received and sent
	up, down [numSteps]Step
}

// A history is the last minute's measurements.
type history struct {
	samples []sample        // samples+1 at most, the oldest first
	rtts    []time.Duration // pings at most, the oldest first; -1: lost
}

// watch takes samples until ctx ends.
func (d *Demo) watch(ctx context.Context) {
	t := time.NewTicker(sampleEvery)
	defer t.Stop()
	for {
		d.sample()
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// sample adds one sample to the history.
func (d *Demo) sample() {
	s := sample{at: time.Now(), up: d.up.snapshot(), down: d.down.snapshot()}
	if ps := d.near.dev.Status().Peers; len(ps) == 1 {
		s.rx, s.tx = ps[0].RxBytes, ps[0].TxBytes
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.history.samples = keepLast(append(d.history.samples, s), samples+1)
}

// keepLast returns the last n elements of s, moved to its beginning.
func keepLast[T any](s []T, n int) []T {
	if len(s) <= n {
		return s
	}
	return s[:copy(s, s[len(s)-n:])]
}

// keepPinging measures the round-trip time every second until ctx ends.
func (d *Demo) keepPinging(ctx context.Context) {
	t := time.NewTicker(pingEvery)
	defer t.Stop()
	for {
		one, cancel := context.WithTimeout(ctx, pingEvery)
		rtt, err := d.Ping(one)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			rtt = -1
		}
		d.mu.Lock()
		d.history.rtts = keepLast(append(d.history.rtts, rtt), pings)
		d.mu.Unlock()
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// A Snapshot is a demo's state and measurements at one moment, as the page shows them.
type Snapshot struct {
	Version string  `json:"version"`
	System  string  `json:"system"`
	CPUs    int     `json:"cpus"`
	TUN     bool    `json:"tun"`    // the kernel's interfaces and TCP; else stacks in user space
	Uptime  float64 `json:"uptime"` // s

	// Interval, Down and Up are the throughput of the last minute at the near peer: datagrams, in bit/s. The newest
	// comes last.
	Interval float64   `json:"interval"` // s
	Down     []float64 `json:"down"`
	Up       []float64 `json:"up"`

	RTTs []float64 `json:"rtts"` // of the last minute's pings in µs; -1: lost
	RTT  RTT       `json:"rtt"`  // the same pings, summed up

	Handshakes     uint64  `json:"handshakes"`
	SinceHandshake float64 `json:"since_handshake"` // s; -1: there was none
	Near           End     `json:"near"`
	Far            End     `json:"far"`
	Walk           Walks   `json:"walk"`     // of the last 10 s
	WalkAll        Walks   `json:"walk_all"` // since the beginning
	Load           Loading `json:"load"`
}

// Walks are the steps of a packet's walk in each direction.
type Walks struct {
	Up   [numSteps]Step `json:"up"`
	Down [numSteps]Step `json:"down"`
}

// An End is the state of one peer.
type End struct {
	PublicKey string                 `json:"public_key"`
	Address   string                 `json:"address"` // inside of the tunnel
	Port      uint16                 `json:"port"`    // of its UDP socket
	RxBytes   uint64                 `json:"rx"`
	TxBytes   uint64                 `json:"tx"`
	Drops     map[packet.Drop]uint64 `json:"drops"`
	Offloads  packet.OffloadStates   `json:"offloads"`

	// With the kernel's TUNs: the interface's name, and the path of its network namespace while the demo runs.
	Interface string `json:"interface,omitempty"`
	Namespace string `json:"namespace,omitempty"`
}

// An RTT sums up round-trip times, in µs.
type RTT struct {
	Sent   int     `json:"sent"`
	Lost   int     `json:"lost"`
	Last   float64 `json:"last"`
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	P99    float64 `json:"p99"`
	Max    float64 `json:"max"`
}

// micros returns d in µs.
func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// sumUp sums up round-trip times; negative ones stand for pings that were lost.
func sumUp(rtts []time.Duration) (r RTT) {
	r.Sent = len(rtts)
	var got []time.Duration
	for _, d := range rtts {
		if d < 0 {
			r.Lost++
			continue
		}
		got = append(got, d)
	}
	if len(got) == 0 {
		return r
	}
	r.Last = micros(got[len(got)-1])
	slices.Sort(got)
	r.Min, r.Max = micros(got[0]), micros(got[len(got)-1])
	r.Median = micros(got[(len(got)-1)/2])
	r.P99 = micros(got[(len(got)*99+99)/100-1]) // the nearest rank
	return r
}

// end returns the state of a peer whose status is s.
func (p *peer) end(s *throughline.Status) End {
	e := End{PublicKey: s.PublicKey.String(), Address: p.addr.String(), Port: s.ListenPort, Drops: s.Drops, Offloads: s.Offloads}
	if p.namespace != nil {
		e.Interface, e.Namespace = p.name, p.namespace.path
	}
	for i := range s.Peers {
		e.RxBytes += s.Peers[i].RxBytes
		e.TxBytes += s.Peers[i].TxBytes
	}
	return e
}

// Snapshot returns the demo's state and measurements.
func (d *Demo) Snapshot() Snapshot {
	near, far := d.near.dev.Status(), d.far.dev.Status()
	s := Snapshot{
		Version: d.version, System: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.GOMAXPROCS(0), TUN: d.near.namespace != nil,
		Uptime: time.Since(d.began).Seconds(), Interval: sampleEvery.Seconds(),
		Down: []float64{}, Up: []float64{}, RTTs: []float64{},
		Handshakes: d.up.responses.Load() + d.down.responses.Load(), SinceHandshake: -1,
		Near: d.near.end(&near), Far: d.far.end(&far),
		WalkAll: Walks{Up: d.up.snapshot(), Down: d.down.snapshot()},
	}
	if len(near.Peers) == 1 && !near.Peers[0].LastHandshake.IsZero() {
		s.SinceHandshake = max(0, time.Since(near.Peers[0].LastHandshake).Seconds())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.history.samples
	for i := 1; i < len(h); i++ {
		dt := h[i].at.Sub(h[i-1].at).Seconds()
		s.Down = append(s.Down, float64(h[i].rx-h[i-1].rx)*8/dt)
		s.Up = append(s.Up, float64(h[i].tx-h[i-1].tx)*8/dt)
	}
	for _, rtt := range d.history.rtts {
		if rtt < 0 {
			s.RTTs = append(s.RTTs, -1)
		} else {
			s.RTTs = append(s.RTTs, micros(rtt))
		}
	}
	s.RTT = sumUp(d.history.rtts)
	s.Walk = s.WalkAll
	if len(h) > recent {
		then := &h[len(h)-1-recent]
		s.Walk = Walks{Up: since(s.WalkAll.Up, then.up), Down: since(s.WalkAll.Down, then.down)}
	}
	s.Load = d.load
	s.Load.Moved = d.moved.Load()
	return s
}

// since returns what was added to each step since then.
func since(now, then [numSteps]Step) [numSteps]Step {
	for i := range now {
		now[i].Batches -= then[i].Batches
		now[i].Packets -= then[i].Packets
		now[i].Nanos -= then[i].Nanos
	}
	return now
}

// Drops returns the drops of both ends, by reason.
func (s *Snapshot) Drops() map[packet.Drop]uint64 {
	all := maps.Clone(s.Near.Drops)
	for why, n := range s.Far.Drops {
		all[why] += n
	}
	return all
}
