package dial

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A network has addresses that answer after a time, and some that refuse after one. All others say nothing.
type network struct {
	addrs   []netip.Addr
	answer  map[string]time.Duration
	refuse  map[string]time.Duration
	hasty   bool // connects even when it is cancelled meanwhile
	began   time.Time
	mu      sync.Mutex
	tried   []string
	running int
	opened  []*conn
}

// A conn counts how often it is closed.
type conn struct {
	net.Conn
	to     string
	closed int
}

func (c *conn) Close() error { c.closed++; return nil }

func (n *network) LookupHost(context.Context, string) ([]netip.Addr, error) {
	if n.addrs == nil {
		return nil, errors.New("no resolver")
	}
	return n.addrs, nil
}

func (n *network) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(address)
	n.mu.Lock()
	n.tried = append(n.tried, fmt.Sprint(host, "@", time.Since(n.began).Milliseconds()))
	n.running++
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		n.running--
		n.mu.Unlock()
	}()
	delay, refused := n.refuse[host]
	answer, answers := n.answer[host]
	if answers {
		delay = answer
	} else if !refused {
		delay = time.Hour
	}
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		if !n.hasty {
			return nil, fmt.Errorf("%s: %w", host, ctx.Err())
		}
	}
	if refused {
		return nil, errors.New(host + " refused")
	}
	c := &conn{to: host}
	n.mu.Lock()
	n.opened = append(n.opened, c)
	n.mu.Unlock()
	return c, nil
}

func addrs(list string) []netip.Addr {
	out := []netip.Addr{}
	for s := range strings.FieldsSeq(list) {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestDial(t *testing.T) {
	const ms = time.Millisecond
	type times = map[string]time.Duration
	both := addrs("2001:db8::1 2001:db8::2 192.0.2.1 ::ffff:192.0.2.2")
	for _, tt := range []struct {
		what           string
		network, host  string
		addrs          []netip.Addr
		prefer4        bool
		answer, refuse times
		tried          string // with the milliseconds when
		got            string // the address, or the error
		took           time.Duration
	}{
		{"the first answers", "tcp", "name", both, true, times{"192.0.2.1": 100 * ms}, nil,
			"192.0.2.1@0", "192.0.2.1", 100 * ms},
		{"the first is a black hole", "tcp", "name", both, false, times{"192.0.2.1": 30 * ms}, nil,
			"2001:db8::1@0 192.0.2.1@250", "192.0.2.1", 280 * ms},
		{"the families alternate", "tcp", "name", both, true, times{"2001:db8::2": 0}, nil,
			"192.0.2.1@0 2001:db8::1@250 192.0.2.2@500 2001:db8::2@750", "2001:db8::2", 750 * ms},
		{"one family is left", "tcp", "name", addrs("2001:db8::1 192.0.2.1 192.0.2.2"), false, times{"192.0.2.2": 0}, nil,
			"2001:db8::1@0 192.0.2.1@250 192.0.2.2@500", "192.0.2.2", 500 * ms},
		{"the first is slow, and still first", "tcp", "name", both, true, times{"192.0.2.1": 400 * ms, "2001:db8::1": 200 * ms}, nil,
			"192.0.2.1@0 2001:db8::1@250", "192.0.2.1", 400 * ms},
		{"a failure starts the next at once", "tcp", "name", both, true, times{"192.0.2.2": 20 * ms}, times{"192.0.2.1": 10 * ms, "2001:db8::1": 10 * ms},
			"192.0.2.1@0 2001:db8::1@10 192.0.2.2@20", "192.0.2.2", 40 * ms},
		{"a late failure begins the next early", "tcp", "name", both, true, times{"192.0.2.2": 0}, times{"192.0.2.1": 300 * ms},
			"192.0.2.1@0 2001:db8::1@250 192.0.2.2@300", "192.0.2.2", 300 * ms},
		{"all fail", "tcp", "name", addrs("2001:db8::1 192.0.2.1"), true, nil, times{"192.0.2.1": 300 * ms, "2001:db8::1": 10 * ms},
			"192.0.2.1@0 2001:db8::1@250", "192.0.2.1 refused", 300 * ms},
		{"nobody answers", "tcp", "name", addrs("2001:db8::1 192.0.2.1"), true, nil, nil,
			"192.0.2.1@0 2001:db8::1@250", "192.0.2.1: context deadline exceeded", 30 * time.Second},
		{"an address", "tcp", "2001:db8::5", nil, true, times{"2001:db8::5": 3 * time.Second}, nil,
			"2001:db8::5@0", "2001:db8::5", 3 * time.Second},
		{"datagrams", "udp", "name", both, true, times{"192.0.2.1": 0}, nil,
			"192.0.2.1@0", "192.0.2.1", 0},
		{"datagrams, without a route", "udp", "name", both, false, times{"192.0.2.1": 0}, times{"2001:db8::1": 0},
			"2001:db8::1@0 192.0.2.1@0", "192.0.2.1", 0},
		{"no addresses", "tcp", "name", []netip.Addr{}, true, nil, nil, "", "lookup name: no address", 0},
		{"no resolver", "tcp", "name", nil, true, nil, nil, "", "no resolver", 0},
	} {
		for _, hasty := range []bool{false, true} {
			if hasty && tt.took == 30*time.Second {
				continue // there the one that was cancelled wins
			}
			synctest.Test(t, func(t *testing.T) {
				n := &network{addrs: tt.addrs, answer: tt.answer, refuse: tt.refuse, hasty: hasty, began: time.Now()}
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				c, err := (&Dialer{Network: n, Names: n, PreferIPv4: tt.prefer4}).Dial(ctx, tt.network, net.JoinHostPort(tt.host, "80"))
				got := fmt.Sprint(err)
				if err == nil {
					got = c.(*conn).to
				}
				if got != tt.got || strings.Join(n.tried, " ") != tt.tried || time.Since(n.began) != tt.took {
					t.Errorf("%s: %s after %v, tried %v", tt.what, got, time.Since(n.began), n.tried)
				}
				if n.running != 0 {
					t.Errorf("%s: %d attempts go on", tt.what, n.running)
				}
				for _, o := range n.opened {
					if kept := net.Conn(o) == c; kept != (o.closed == 0) || o.closed > 1 {
						t.Errorf("%s: the connection to %s is closed %d times, kept: %v", tt.what, o.to, o.closed, kept)
					}
				}
			})
		}
	}
	if _, err := new(Dialer).Dial(t.Context(), "tcp", "name"); err == nil {
		t.Error("an address without a port is one")
	}
}

// TestCancel has the caller give up while attempts run: all end, and none begins.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{addrs: addrs("192.0.2.1 192.0.2.2 192.0.2.3"), began: time.Now()}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(400*time.Millisecond, cancel)
		c, err := (&Dialer{Network: n, Names: n, PreferIPv4: true}).Dial(ctx, "tcp", "name:80")
		if c != nil || !errors.Is(err, context.Canceled) || time.Since(n.began) != 400*time.Millisecond || len(n.tried) != 2 || n.running != 0 {
			t.Errorf("%v after %v, tried %v", err, time.Since(n.began), n.tried)
		}
		n.tried = nil
		if _, err := (&Dialer{Network: n, Names: n, PreferIPv4: true}).Dial(ctx, "tcp", "name:80"); !errors.Is(err, context.Canceled) || len(n.tried) != 1 {
			t.Errorf("begun when it was over: %v, tried %v", err, n.tried)
		}
	})
}

func TestLookup(t *testing.T) {
	many := &network{}
	for i := range 100 {
		many.addrs = append(many.addrs, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
	}
	many.addrs = append(many.addrs, addrs("2001:db8::1")...)
	got, err := (&Dialer{Names: many, PreferIPv4: true}).Lookup(t.Context(), "x")
	if err != nil || len(got) != maxAddresses || got[1] != netip.MustParseAddr("2001:db8::1") {
		t.Errorf("%v, %v", got, err)
	}
}
