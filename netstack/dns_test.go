package netstack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"throughline/netstack/internal/dns"
	"throughline/packet"
	"throughline/tun"
)

// An answer is what the test's DNS server answers about a name. If truncated is set, it does so over TCP only.
type answer struct {
	v4, v6    []string
	truncated bool
	rcode     byte
	mute      uint16 // the type of records about which it doesn't answer
}

var zone = map[string]answer{
	"both.test":   {v4: []string{"10.7.0.2"}, v6: []string{"fd07::2"}},
	"four.test":   {v4: []string{"10.7.0.2", "10.7.0.3"}},
	"dead.test":   {v4: []string{"10.7.0.2"}, v6: []string{"fd07::dead"}}, // no host has the IPv6 address
	"long.test":   {v4: []string{"10.7.0.2"}, v6: []string{"fd07::2"}, truncated: true},
	"global.test": {v4: []string{"192.0.2.1", "192.0.2.2"}, v6: []string{"2001:db8::1"}},
	"none.test":   {},

	// Of TestSearch.
	"four.none.example":     {rcode: 3},
	"both.none.example":     {rcode: 3},
	"short.none.example":    {rcode: 3},
	"short.test":            {rcode: 3},
	"short.other.example":   {rcode: 3},
	"third.none.example":    {rcode: 3},
	"third.test":            {rcode: 3},
	"both":                  {rcode: 3},
	"servfail.none.example": {rcode: 3},
	"short":                 {v4: []string{"10.7.0.9"}},
	"third.other.example":   {v4: []string{"10.7.0.8"}},
	"servfail":              {v4: []string{"10.7.0.7"}},
	strings.Repeat("a", 63) + ".none.example":  {rcode: 3},
	strings.Repeat("a", 63) + ".test":          {rcode: 3},
	strings.Repeat("a", 63) + ".other.example": {rcode: 3},
	strings.Repeat("a", 63):                    {rcode: 3},

	"nxdomain.test":  {rcode: 3},
	"servfail.test":  {rcode: 2},
	"localhost.test": {v4: []string{"10.7.0.2"}},
	"mute4.test":     {mute: dns.A},
	"mute6.test":     {v4: []string{"10.7.0.2"}, mute: dns.AAAA},
}

// reply answers the query q from the zone, or not at all.
func reply(t testing.TB, q []byte, tcp bool) []byte {
	var labels []string
	end := 12
	for ; end < len(q) && q[end] != 0; end += 1 + int(q[end]) {
		labels = append(labels, string(q[end+1:end+1+int(q[end])]))
	}
	if end++; len(q) < end+4 {
		t.Errorf("the query % x is malformed", q)
		return nil
	}
	kind := binary.BigEndian.Uint16(q[end:])
	a, ok := zone[strings.Join(labels, ".")]
	if !ok || a.mute == kind {
		return nil
	}
	m := append([]byte(nil), q[:end+4]...)
	m[2], m[3] = 0x81, a.rcode
	m[10], m[11] = 0, 0
	if a.truncated && !tcp {
		m[2] |= 2
		return m
	}
	ips := a.v4
	if kind == dns.AAAA {
		ips = a.v6
	}
	n := 0
	if len(ips) > 0 { // an alias of itself goes before, as a record to be skipped
		m = append(m, 0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12)
		n++
	}
	for _, ip := range ips {
		raw := netip.MustParseAddr(ip).AsSlice()
		m = append(m, 0xc0, 12, byte(kind>>8), byte(kind), 0, 1, 0, 0, 0, 9, 0, byte(len(raw)))
		m = append(m, raw...)
		n++
	}
	m[7] = byte(n)
	return m
}

// named returns two joined stacks, of which b is the DNS server of a.
func named(t *testing.T) (a, b *Stack) {
	t.Helper()
	mk := func(o Options) *Stack {
		s, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	at := netip.MustParseAddr
	a = mk(Options{Addresses: []netip.Addr{at("10.7.0.1"), at("fd07::1")}, DNS: []netip.Addr{at("10.7.0.9"), at("10.7.0.2")}})
	b = mk(Options{Addresses: []netip.Addr{at("10.7.0.2"), at("fd07::2")}})
	var wg sync.WaitGroup
	carry := func(from, to tun.Queue) {
		batch := packet.New()
		for {
			batch.Reset()
			if _, err := from.Read(batch); err != nil {
				return
			}
			to.Write(batch)
		}
	}
	wg.Go(func() { carry(a.link, b.link) })
	wg.Go(func() { carry(b.link, a.link) })

	pc, err := b.ListenPacket("udp", ":53")
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() {
		buf := make([]byte, 512)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if m := reply(t, buf[:n], false); m != nil {
				forged := append([]byte(nil), m...) // an answer from another address must be ignored
				forged[0] ^= 1
				forged[3] = 3
				pc.WriteTo(forged, from)
				pc.WriteTo(m, from)
			}
		}
	})
	l, err := b.Listen("tcp", ":53")
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var size [2]byte
			io.ReadFull(c, size[:])
			q := make([]byte, binary.BigEndian.Uint16(size[:]))
			io.ReadFull(c, q)
			m := reply(t, q, true)
			c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...))
			c.Close()
		}
	})
	t.Cleanup(func() {
		a.Close()
		b.Close()
		wg.Wait()
	})
	return a, b
}

func TestLookupHost(t *testing.T) {
	a, _ := named(t)
	a.dns.Servers = a.dns.Servers[1:] // the other server is silent
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, l := range []struct {
		name string
		want string // addresses, or a word of the error
	}{
		{"both.test", "fd07::2 10.7.0.2"},
		{"both.test.", "fd07::2 10.7.0.2"},
		{"four.test", "10.7.0.2 10.7.0.3"},
		{"long.test", "fd07::2 10.7.0.2"},
		{"10.1.2.3", "10.1.2.3"},
		{"::ffff:10.1.2.3", "10.1.2.3"},
		{"mute6.test", "10.7.0.2"},
		{"none.test", "no such host"},
		{"nxdomain.test", "no such host"},
		{"servfail.test", "server misbehaving"},
		{"", "no such host"},
		{"a..test", "no such host"},
		{strings.Repeat("a", 64) + ".test", "no such host"},
		{strings.Repeat("abc.", 64) + "test", "no such host"},
	} {
		ips, err := a.LookupHost(ctx, l.name)
		var words []string
		for _, ip := range ips {
			words = append(words, ip.String())
		}
		var de *net.DNSError
		switch got := strings.Join(words, " "); {
		case err == nil && got != l.want:
			t.Errorf("%q: %s, want %s", l.name, got, l.want)
		case err != nil && (!errors.As(err, &de) || de.Err != l.want || de.IsNotFound != (l.want == "no such host")):
			t.Errorf("%q: %v, want %s", l.name, err, l.want)
		}
	}
	ctx, cancel = context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	var ne net.Error
	if _, err := a.LookupHost(ctx, "silence.test"); !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("a server that doesn't answer: %v", err)
	}
	a.dns.Servers = nil
	if _, err := a.LookupHost(context.Background(), "both.test"); err == nil {
		t.Error("a stack without DNS servers resolved a name")
	}
}

// TestSearch looks names up in search domains.
func TestSearch(t *testing.T) {
	a, _ := named(t)
	a.dns.Servers, a.search = a.dns.Servers[1:], []string{"none.example", "test", "other.example."}
	for _, l := range []struct{ name, want string }{
		{"four", "10.7.0.2 10.7.0.3"},
		{"both", "fd07::2 10.7.0.2"},
		{"four.test", "10.7.0.2 10.7.0.3"},
		{"short", "10.7.0.9"}, // as it is
		{"short.", "10.7.0.9"},
		{"third", "10.7.0.8"},
		{"both.", "no such host"},
		{"servfail", "server misbehaving"}, // and not the name as it is, which exists
		{strings.Repeat("a", 63), "no such host"},
	} {
		ips, err := a.LookupHost(t.Context(), l.name)
		got := strings.Trim(fmt.Sprint(ips), "[]")
		var de *net.DNSError
		if errors.As(err, &de) {
			got = de.Err
			if de.Name != l.name {
				t.Errorf("the error of %q names %q", l.name, de.Name)
			}
		}
		if got != l.want {
			t.Errorf("%q: %s, want %s", l.name, got, l.want)
		}
	}
	for _, search := range [][]string{{""}, {"a..b"}, make([]string, 33)} {
		if _, err := New(Options{Addresses: []netip.Addr{netip.MustParseAddr("10.7.0.1")}, Search: search}); err == nil {
			t.Errorf("the search domains %q are accepted", search)
		}
	}
}

// TestAddressesOutOfReach checks that a stack whose IPv6 addresses are of the link or of the site doesn't dial global ones
// first.
func TestAddressesOutOfReach(t *testing.T) {
	for _, tt := range []struct{ own, name, want string }{
		{"2001:db8::9", "global.test", "2001:db8::1 192.0.2.1 192.0.2.2"},
		{"fe80::9", "global.test", "192.0.2.1 2001:db8::1 192.0.2.2"},
		{"fd07::9", "global.test", "192.0.2.1 2001:db8::1 192.0.2.2"},
		{"fd07::9", "both.test", "fd07::2 10.7.0.2"},
	} {
		a, _ := named(t)
		a.dns.Servers, a.own = a.dns.Servers[1:], []netip.Addr{netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr(tt.own)}
		ips, _, err := a.resolve(t.Context(), netSpec{name: "tcp", v4: true, v6: true}, tt.name+":80")
		if got := strings.Trim(fmt.Sprint(ips), "[]"); err != nil || got != tt.want {
			t.Errorf("from %s %s is tried at %s, want %s (%v)", tt.own, tt.name, got, tt.want, err)
		}
	}
}

func TestDialNames(t *testing.T) {
	a, b := named(t)
	a.dns.Servers = a.dns.Servers[1:]
	l, err := b.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, d := range []struct{ network, name, want string }{
		{"tcp", "both.test", "[fd07::2]:80"},
		{"tcp4", "both.test", "10.7.0.2:80"},
		{"tcp6", "both.test", "[fd07::2]:80"},
		{"tcp", "dead.test", "10.7.0.2:80"}, // the second attempt, while the first goes on
		{"tcp", "four.test", "10.7.0.2:80"},
		{"udp", "both.test", "[fd07::2]:80"},
		{"tcp6", "four.test", ""},
		{"tcp", "nxdomain.test", ""},
	} {
		c, err := a.DialContext(ctx, d.network, d.name+":80")
		switch {
		case err != nil && d.want != "":
			t.Errorf("%s %s: %v", d.network, d.name, err)
		case err == nil:
			if got := c.RemoteAddr().String(); got != d.want {
				t.Errorf("%s %s connected to %s, want %s", d.network, d.name, got, d.want)
			}
			c.Close()
		}
	}
	var de *net.DNSError // a timeout would show that the other family was asked for
	if _, err := a.DialContext(ctx, "tcp6", "mute4.test:80"); !errors.As(err, &de) || !de.IsNotFound {
		t.Errorf("IPv6 of a name without any: %v", err)
	}
	four, err := New(Options{Addresses: []netip.Addr{netip.MustParseAddr("10.7.0.1")}, DNS: a.dns.Servers})
	if err != nil {
		t.Fatal(err)
	}
	defer four.Close()
	var ae *net.AddrError
	if _, err := four.DialContext(ctx, "tcp6", "both.test:80"); !errors.As(err, &ae) {
		t.Errorf("IPv6 of a stack without it: %v", err)
	}
	l.Close()
	// Its IPv4 address refuses meanwhile; the error must be that of the attempt that the deadline ended.
	short, cancel := context.WithTimeout(ctx, 400*time.Millisecond)
	defer cancel()
	var op *net.OpError
	_, err = a.DialContext(short, "tcp", "dead.test:81")
	if !errors.As(err, &op) || !op.Timeout() || op.Addr.String() != "[fd07::dead]:81" {
		t.Errorf("an address without an answer: %v", err)
	}
	_, err = a.DialContext(ctx, "tcp", "both.test:81")
	if !errors.As(err, &op) || !errors.Is(err, syscall.ECONNREFUSED) || op.Addr.String() != "[fd07::2]:81" {
		t.Errorf("two addresses that refuse: %v", err)
	}
	for _, d := range [][2]string{{"tcp", "both.test"}, {"tcp", ":80"}, {"sctp", "both.test:80"}, {"tcp", "both.test:nope!"}, {"tcp46", "both.test:80"}} {
		if _, err := a.DialContext(ctx, d[0], d[1]); err == nil {
			t.Errorf("dial %s %s succeeded", d[0], d[1])
		}
	}
}
