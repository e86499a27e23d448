package eyeballs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func addrs(list string) (out []netip.Addr) {
	for s := range strings.FieldsSeq(list) {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestInterleave(t *testing.T) {
	for _, tt := range []struct {
		in         string
		preferIPv4 bool
		want       string
	}{
		{"", false, ""},
		{"192.0.2.1 192.0.2.2", false, "192.0.2.1 192.0.2.2"},
		{"192.0.2.1 192.0.2.2 2001:db8::1 2001:db8::2", false, "2001:db8::1 192.0.2.1 2001:db8::2 192.0.2.2"},
		{"2001:db8::1 2001:db8::2 192.0.2.1", true, "192.0.2.1 2001:db8::1 2001:db8::2"},
		{"192.0.2.1 192.0.2.2 192.0.2.3 2001:db8::1", false, "2001:db8::1 192.0.2.1 192.0.2.2 192.0.2.3"},
		{"::ffff:192.0.2.1 2001:db8::1", true, "192.0.2.1 2001:db8::1"},
	} {
		if got := Interleave(addrs(tt.in), tt.preferIPv4); !slices.Equal(got, addrs(tt.want)) {
			t.Errorf("%s, IPv4 first: %v: %v, want %s", tt.in, tt.preferIPv4, got, tt.want)
		}
	}
}

// An outcome is what comes of an attempt, and after how long; of the zero outcome nothing comes.
type outcome struct {
	after time.Duration
	fails bool
}

// A field is where attempts are made. It counts them.
type field struct {
	outcomes []outcome // by the last byte of the address
	hasty    bool      // connects even when it is cancelled meanwhile
	began    time.Time

	mu            sync.Mutex
	starts        []string // "address@ms"
	running, most int
	conns         []*conn
}

type conn struct {
	attempt int
	closed  int
}

func (c *conn) Close() error { c.closed++; return nil }

func (f *field) dial(ctx context.Context, a netip.Addr) (*conn, error) {
	i := int(a.As4()[3])
	f.mu.Lock()
	f.starts = append(f.starts, fmt.Sprint(i, "@", time.Since(f.began).Milliseconds()))
	f.running++
	f.most = max(f.most, f.running)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.running--
		f.mu.Unlock()
	}()
	o := outcome{}
	if i < len(f.outcomes) {
		o = f.outcomes[i]
	}
	if o.after == 0 {
		o.after = time.Hour
	}
	select {
	case <-time.After(o.after):
	case <-ctx.Done():
		if !f.hasty {
			return nil, context.Cause(ctx)
		}
	}
	if o.fails {
		return nil, fmt.Errorf("%d refused", i)
	}
	c := &conn{attempt: i}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns = append(f.conns, c)
	return c, nil
}

func (f *field) addrs(n int) (out []netip.Addr) {
	for i := range n {
		out = append(out, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
	}
	return out
}

func TestDial(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		what     string
		n        int // addresses
		outcomes []outcome
		starts   string
		got      string // the attempt that won, or the failures
		took     time.Duration
	}{
		{"the first connects", 3, []outcome{{after: 100 * ms}}, "0@0", "0", 100 * ms},
		{"the first is a black hole", 2, []outcome{1: {after: 30 * ms}}, "0@0 1@250", "1", 280 * ms},
		{"the first is slow, and still first", 2, []outcome{{after: 400 * ms}, {after: 200 * ms}}, "0@0 1@250", "0", 400 * ms},
		{"a failure starts the next at once", 3, []outcome{{10 * ms, true}, {10 * ms, true}, {after: 20 * ms}},
			"0@0 1@10 2@20", "2", 40 * ms},
		{"so does a late one", 3, []outcome{0: {300 * ms, true}, 2: {after: 5 * ms}}, "0@0 1@250 2@300", "2", 305 * ms},
		{"the delay runs anew from there", 4, []outcome{{300 * ms, true}}, "0@0 1@250 2@300 3@550", "0: 0 refused", 30 * time.Second},
		{"all fail", 2, []outcome{{300 * ms, true}, {10 * ms, true}}, "0@0 1@250", "1: 1 refused, 0: 0 refused", 300 * ms},
		{"nothing comes of any", 2, nil, "0@0 1@250", "0: context deadline exceeded", 30 * time.Second},
		{"one address", 1, []outcome{{after: 3 * time.Second}}, "0@0", "0", 3 * time.Second},
		{"one address that fails", 1, []outcome{{ms, true}}, "0@0", "0: 0 refused", ms},
		{"more than may run at once", 10, []outcome{0: {5 * time.Second, true}, 8: {6 * time.Second, true}, 9: {after: ms}},
			"0@0 1@250 2@500 3@750 4@1000 5@1250 6@1500 7@1750 8@5000 9@11000", "9", 11001 * ms},
	} {
		for _, hasty := range []bool{false, true} {
			if hasty && tt.took == 30*time.Second {
				continue // there one that was cancelled wins
			}
			synctest.Test(t, func(t *testing.T) {
				f := &field{outcomes: tt.outcomes, hasty: hasty, began: time.Now()}
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				c, failures := Dial(ctx, f.addrs(tt.n), f.dial)
				var words []string
				for _, e := range failures {
					words = append(words, fmt.Sprintf("%d: %v", e.Attempt, e.Err))
				}
				got := strings.Join(words, ", ")
				if len(failures) == 0 {
					got = fmt.Sprint(c.attempt)
				}
				// Those that end with the context end in any order.
				if same := got == tt.got || tt.took == 30*time.Second && slices.Contains(words, tt.got) && len(words) == tt.n; !same ||
					strings.Join(f.starts, " ") != tt.starts || time.Since(f.began) != tt.took {
					t.Errorf("%s: %s after %v, started %v", tt.what, got, time.Since(f.began), f.starts)
				}
				if f.running != 0 || f.most > MaxAttempts {
					t.Errorf("%s: %d attempts go on, %d ran at once", tt.what, f.running, f.most)
				}
				if hasty && len(f.conns) < len(f.starts)-strings.Count(fmt.Sprint(f.outcomes), "true") {
					t.Errorf("%s: %d connections of %d attempts: the test tests nothing", tt.what, len(f.conns), len(f.starts))
				}
				for _, o := range f.conns {
					if kept := o == c; kept != (o.closed == 0) || o.closed > 1 {
						t.Errorf("%s: connection %d is closed %d times, kept: %v", tt.what, o.attempt, o.closed, kept)
					}
				}
			})
		}
	}
}

// TestCancel has the caller give up while attempts run: all end, and no other starts.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &field{began: time.Now()}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(400*time.Millisecond, cancel)
		c, failures := Dial(ctx, f.addrs(3), f.dial)
		if c != nil || len(failures) != 2 || time.Since(f.began) != 400*time.Millisecond || len(f.starts) != 2 || f.running != 0 {
			t.Errorf("%v after %v, started %v", failures, time.Since(f.began), f.starts)
		}
		f.starts = nil
		_, failures = Dial(ctx, f.addrs(3), f.dial)
		if len(failures) != 1 || failures[0].Attempt != 0 || !errors.Is(failures[0].Err, context.Canceled) || len(f.starts) != 1 {
			t.Errorf("with a context that had ended: %v, started %v", failures, f.starts)
		}
	})
}

func TestOrder(t *testing.T) {
	for _, tt := range []struct{ own, addrs, want string }{
		{"10.0.0.1 2001:db8::1", "2001:db8::2 192.0.2.1", "2001:db8::2 192.0.2.1"},
		{"10.0.0.1 fe80::1", "2001:db8::2 192.0.2.1", "192.0.2.1 2001:db8::2"},
		{"10.0.0.1 fe80::1%eth0", "fe80::2 192.0.2.1", "fe80::2 192.0.2.1"},
		{"10.0.0.1 fd00::1", "2001:db8::2 192.0.2.1", "192.0.2.1 2001:db8::2"},
		{"10.0.0.1 fd00::1", "fd00::2 192.0.2.1", "fd00::2 192.0.2.1"},
		{"10.0.0.1 fd00::1 2001:db8::1", "2001:db8::2 fd00::2 192.0.2.1", "2001:db8::2 fd00::2 192.0.2.1"},
		{"10.0.0.1 fd00::1", "2001:db8::2 fd00::2 192.0.2.1", "fd00::2 192.0.2.1 2001:db8::2"},
		{"169.254.0.1 2001:db8::1", "192.0.2.1 2001:db8::2", "2001:db8::2 192.0.2.1"},
		{"2001:db8::1", "192.0.2.1 2001:db8::2", "2001:db8::2 192.0.2.1"},
		{"fe80::1", "2001:db8::2 2001:db8::3", "2001:db8::2 2001:db8::3"},
		{"10.0.0.1", "", ""},
	} {
		var own, addrs []netip.Addr
		for a := range strings.FieldsSeq(tt.own) {
			own = append(own, netip.MustParseAddr(a))
		}
		for a := range strings.FieldsSeq(tt.addrs) {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		var got []string
		for _, a := range Order(addrs, own) {
			got = append(got, a.String())
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("from %s to %s: %v, want %s", tt.own, tt.addrs, got, tt.want)
		}
	}
}
