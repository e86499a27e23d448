package dial

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

type network struct {
	addrs []netip.Addr
	up    string // the one that answers; others hang
	tried []string
}

func (n *network) LookupHost(context.Context, string) ([]netip.Addr, error) {
	if n.addrs == nil {
		return nil, errors.New("no resolver")
	}
	return n.addrs, nil
}

func (n *network) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	n.tried = append(n.tried, address)
	if address == n.up {
		c, _ := net.Pipe()
		return c, nil
	}
	<-ctx.Done()
	return nil, fmt.Errorf("%s: %w", address, ctx.Err())
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestDial(t *testing.T) {
	two := addrs("2001:db8::1", "192.0.2.1", "::ffff:192.0.2.2")
	for _, tt := range []struct {
		address, up string
		addrs       []netip.Addr
		prefer4     bool
		tried       string
		took        time.Duration
		fails       bool
	}{
		{"name:80", "192.0.2.1:80", two, true, "[192.0.2.1:80]", 0, false},
		{"name:80", "192.0.2.1:80", two, false, "[[2001:db8::1]:80 192.0.2.1:80]", 10 * time.Second, false},
		{"name:80", "[2001:db8::1]:80", two, true, "[192.0.2.1:80 192.0.2.2:80 [2001:db8::1]:80]", 20 * time.Second, false},
		{"name:80", "", two, true, "[192.0.2.1:80 192.0.2.2:80 [2001:db8::1]:80]", 30 * time.Second, true},
		{"[2001:db8::5]:80", "[2001:db8::5]:80", nil, true, "[[2001:db8::5]:80]", 0, false},
		{"name:80", "", []netip.Addr{}, true, "[]", 0, true},
		{"name:80", "", nil, true, "[]", 0, true},
		{"name", "", two, true, "[]", 0, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := &network{addrs: tt.addrs, up: tt.up}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			began := time.Now()
			c, err := (&Dialer{Network: n, Names: n, PreferIPv4: tt.prefer4}).Dial(ctx, "tcp", tt.address)
			if (err != nil) != tt.fails || (c == nil) != tt.fails || fmt.Sprint(n.tried) != tt.tried || time.Since(began) != tt.took {
				t.Errorf("%s at %s: %v after %v, tried %v", tt.address, tt.up, err, time.Since(began), n.tried)
			}
		})
	}
	many := &network{}
	for i := range 100 {
		many.addrs = append(many.addrs, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
	}
	if got, err := (&Dialer{Names: many}).Lookup(t.Context(), "x"); err != nil || len(got) != maxAddresses {
		t.Errorf("%d addresses, %v", len(got), err)
	}
}
