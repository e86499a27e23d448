package endpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"throughline"
	"throughline/wgtypes"
)

var _ Device = (*throughline.Device)(nil)

// A device has peers without sessions. While sending is set, it sends to them all the time.
type device struct {
	mu      sync.Mutex
	peers   []wgtypes.PeerStatus
	sending bool
	wrong   error // what Configure answers
}

func (d *device) Peer(key wgtypes.PublicKey) (wgtypes.PeerStatus, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.peers {
		if p := &d.peers[i]; p.PublicKey == key {
			if d.sending {
				p.TxBytes += 148
			}
			return *p, true
		}
	}
	return wgtypes.PeerStatus{}, false
}

func (d *device) Configure(c wgtypes.Config) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, change := range c.Peers {
		if !change.UpdateOnly || d.wrong != nil {
			return d.wrong
		}
		for i := range d.peers {
			if d.peers[i].PublicKey == change.PublicKey {
				d.peers[i].Endpoint = *change.Endpoint
			}
		}
	}
	return nil
}

// set changes the status of the first peer.
func (d *device) set(f func(*wgtypes.PeerStatus)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.peers[0])
}

// endpoint returns the endpoint of the first peer, or "".
func (d *device) endpoint() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at := d.peers[0].Endpoint; at.IsValid() {
		return at.String()
	}
	return ""
}

func (d *device) send(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sending = on
}

// A zone is a resolver that records what it is asked.
type zone struct {
	mu    sync.Mutex
	addrs []netip.Addr // none: no answer
	asked []string
}

func (z *zone) LookupHost(_ context.Context, host string) ([]netip.Addr, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked = append(z.asked, host)
	if z.addrs == nil {
		return nil, errors.New("no answer")
	}
	return z.addrs, nil
}

func (z *zone) set(addrs ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.addrs = nil
	for _, a := range addrs {
		z.addrs = append(z.addrs, netip.MustParseAddr(a))
	}
}

// take returns how often it was asked since the last call of take.
func (z *zone) take() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	n := len(z.asked)
	z.asked = nil
	return n
}

var key1, key2 = wgtypes.PublicKey{1}, wgtypes.PublicKey{2}

// follow runs a Follower until the test ends. It returns when all other goroutines wait.
func follow(t *testing.T, dev Device, r Resolver, log *bytes.Buffer, peers ...Peer) *Follower {
	t.Helper()
	f, err := New(dev, peers, Options{Resolver: r, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { f.Run(ctx) })
	t.Cleanup(func() { cancel(); run.Wait() })
	synctest.Wait()
	return f
}

// TestLife tests everything that happens to an endpoint's name, one after the other.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, names, log := &device{peers: []wgtypes.PeerStatus{{PublicKey: key1}}}, new(zone), new(bytes.Buffer)
		f := follow(t, dev, names, log, Peer{PublicKey: key1, Host: "server.test", Port: 51820, Source: "wg0.conf:3:12"})
		select {
		case <-f.Ready():
		default:
			t.Error("it isn't ready after the first look-up, which failed")
		}
		// want checks what happened until now, and lets time pass.
		want := func(asked int, host string, then time.Duration) {
			t.Helper()
			if n := names.take(); n != asked {
				t.Errorf("asked %d times, want %d", n, asked)
			}
			if host != "" {
				host += ":51820"
			}
			if got := dev.endpoint(); got != host {
				t.Errorf("the endpoint is %q, want %q", got, host)
			}
			time.Sleep(then)
			synctest.Wait()
		}

		// No answer: again after 2 s, 4 s, 8 s, ...
		for i, pause := range []time.Duration{2, 4, 8, 16, 32, 64, 120, 120} {
			want(1, "", pause*time.Second-1)
			if i == 7 {
				names.set("192.0.2.1", "::ffff:192.0.2.2")
			}
			want(0, "", 1)
		}
		if text := log.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, "endpoint=server.test:51820 source=wg0.conf:3:12 error=\"no answer\"") || !strings.Contains(text, "resolves again") {
			t.Errorf("logged %s", text)
		}

		// While nothing is sent, the name isn't looked up.
		want(1, "192.0.2.1", time.Hour)
		want(0, "192.0.2.1", 0)

		// Something is sent and no handshake succeeds: the other address, and back, not too often.
		dev.send(true)
		for seconds := 0; dev.endpoint() == "192.0.2.1:51820" && seconds < int(checkEvery.Seconds()); seconds++ {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		for _, host := range []string{"192.0.2.2", "192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.2"} {
			want(1, host, nextAfter-1)
			want(0, host, 1)
		}
		names.set("192.0.2.1")
		want(1, "192.0.2.1", nextAfter-1)
		want(0, "192.0.2.1", 1)

		// The name has one address now. The peer roams and falls silent, and then gets its name's address.
		want(1, "192.0.2.1", checkEvery)
		dev.set(func(p *wgtypes.PeerStatus) { p.Endpoint = netip.MustParseAddrPort("198.51.100.9:51820") })
		want(0, "198.51.100.9", staleAfter-checkEvery-1)
		want(0, "198.51.100.9", 1)
		want(1, "192.0.2.1", 0)

		// While handshakes succeed, a peer that roamed is left alone.
		for range 100 {
			dev.set(func(p *wgtypes.PeerStatus) {
				p.LastHandshake, p.Endpoint = time.Now(), netip.MustParseAddrPort("198.51.100.9:51820")
			})
			want(0, "198.51.100.9", 2*time.Minute)
		}
		// The last handshake was 2 min ago. When the name doesn't resolve then, the endpoint stays.
		names.set()
		log.Reset()
		want(0, "198.51.100.9", time.Minute)
		want(0, "198.51.100.9", checkEvery)
		want(1, "198.51.100.9", firstPause)
		want(1, "198.51.100.9", 2*firstPause-1)
		want(0, "198.51.100.9", 0)
		if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "doesn't resolve") {
			t.Errorf("logged %s", text)
		}
	})
}

// TestSlowResolver checks that other names are looked up beside one without an answer, and that Run returns at once when its
// context ends.
func TestSlowResolver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev := &device{peers: []wgtypes.PeerStatus{{PublicKey: key2}, {PublicKey: key1}}}
		slow := ResolverFunc(func(ctx context.Context, host string) ([]netip.Addr, error) {
			if host == "fast.test" {
				return []netip.Addr{netip.MustParseAddr("2001:db8::1")}, nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		})
		log := new(bytes.Buffer)
		f, err := New(dev, []Peer{{PublicKey: key1, Host: "slow.test", Port: 1}, {PublicKey: key2, Host: "fast.test", Port: 2}},
			Options{Resolver: slow, Logger: slog.New(slog.NewTextHandler(log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended, start := make(chan struct{}), time.Now()
		go func() { f.Run(ctx); close(ended) }()
		<-f.Ready()
		if took := time.Since(start); took != lookupTimeout || dev.endpoint() != "[2001:db8::1]:2" {
			t.Errorf("ready after %v, the endpoint is %s", took, dev.endpoint())
		}
		if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "slow.test:1") || !strings.Contains(text, context.DeadlineExceeded.Error()) {
			t.Errorf("logged %s", text)
		}
		log.Reset()
		time.Sleep(firstPause + lookupTimeout/2) // to the middle of the next look-up
		start = time.Now()
		cancel()
		<-ended
		if took := time.Since(start); took != 0 || log.Len() != 0 {
			t.Errorf("ended after %v, logged %s", took, log)
		}
	})
}

// TestReadyAtTheEnd checks that a Follower whose context has ended is ready.
func TestReadyAtTheEnd(t *testing.T) {
	for _, peers := range [][]Peer{nil, {{PublicKey: key1, Host: "server.test", Port: 1}}} {
		synctest.Test(t, func(t *testing.T) {
			dev := &device{peers: []wgtypes.PeerStatus{{PublicKey: key1}}}
			f, err := New(dev, peers, Options{Resolver: new(zone)})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			f.Run(ctx)
			<-f.Ready()
		})
	}
}

// TestPeerComesLater checks that a name is looked up once the device has its peer.
func TestPeerComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, names, log := new(device), new(zone), new(bytes.Buffer)
		names.set("192.0.2.1")
		follow(t, dev, names, log, Peer{PublicKey: key1, Host: "server.test", Port: 1})
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := names.take(); n != 0 {
			t.Errorf("asked %d times for a peer that isn't there", n)
		}
		dev.mu.Lock()
		dev.peers = []wgtypes.PeerStatus{{PublicKey: key1}}
		dev.mu.Unlock()
		time.Sleep(checkEvery)
		synctest.Wait()
		if dev.endpoint() != "192.0.2.1:1" || log.Len() != 0 {
			t.Errorf("the endpoint is %q, logged %s", dev.endpoint(), log)
		}
	})
}

// TestRefusedEndpoint checks that an endpoint that the device refuses is logged.
func TestRefusedEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, names, log := &device{peers: []wgtypes.PeerStatus{{PublicKey: key1}}, wrong: errors.New("no such family")}, new(zone), new(bytes.Buffer)
		names.set("192.0.2.1")
		follow(t, dev, names, log, Peer{PublicKey: key1, Host: "server.test", Port: 1})
		if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "no such family") || !strings.Contains(text, "to=192.0.2.1:1") {
			t.Errorf("logged %s", text)
		}
	})
}

func TestWrongPeers(t *testing.T) {
	good := Peer{PublicKey: key1, Host: "server.test", Port: 1}
	for want, peers := range map[string][]Peer{
		fmt.Sprintf("endpoint: peer %v has no host", key2):                  {good, {PublicKey: key2, Port: 1}},
		fmt.Sprintf("endpoint: peer %v, at server.test, has no port", key2): {good, {PublicKey: key2, Host: "server.test"}},
		fmt.Sprintf("endpoint: peer %v has two names", key1):                {good, {PublicKey: key1, Host: "other.test", Port: 1}},
	} {
		if f, err := New(new(device), peers, Options{}); f != nil || err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
