// Package eyeballs connects to a host that has several addresses as RFC 8305, "Happy Eyeballs", says: the families take
// turns, attempts to connect start one after another without waiting long for each other, and the first success is kept.
//
// Before that, RFC 6724 says which addresses are worth trying first.
//
// It knows neither names nor sockets: the caller resolves, and hands in how one address is dialed. Nothing is shared
// between calls, so all of it may be called by any number of goroutines. At most [MaxAttempts] attempts of a call run at
// once, each in a goroutine that has ended when the call returns.
package eyeballs

import (
	"context"
	"io"
	"net/netip"
	"slices"
	"time"
)

// Delay is how long an attempt runs before the next one starts, unless it fails earlier: the Connection Attempt Delay of
// RFC 8305 §5.
const Delay = 250 * time.Millisecond

// MaxAttempts is how many attempts of one call run at once. When as many are running, the next starts once one has failed.
const MaxAttempts = 8

// Interleave returns the addresses with the families in turn, beginning with the preferred one, so that a family that
// leads nowhere costs little time. Within a family the order stays. IPv4 addresses mapped into IPv6 come back as IPv4.
// RFC 8305 §4.
func Interleave(addrs []netip.Addr, preferIPv4 bool) []netip.Addr {
	var families [2][]netip.Addr // the preferred one, the other
	for _, a := range addrs {
		a = a.Unmap()
		i := 0
		if a.Is4() != preferIPv4 {
			i = 1
		}
		families[i] = append(families[i], a)
	}
	out := make([]netip.Addr, 0, len(addrs))
	for i := range max(len(families[0]), len(families[1])) {
		for _, family := range families {
			if i < len(family) {
				out = append(out, family[i])
			}
		}
	}
	return out
}

// Order returns the addresses in the order in which a host with the addresses own should try them, which is the given one
// but for those that none of own reaches as a source: they come last. RFC 6724 §6, rules 2 and 5. So a host whose only IPv6
// address is link-local, or a unique local one, prefers IPv4 for what is in the internet.
func Order(addrs, own []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, 0, len(addrs))
	for _, fits := range []bool{true, false} {
		for _, a := range addrs {
			if fits == slices.ContainsFunc(own, func(o netip.Addr) bool { return label(o) == label(a) }) {
				out = append(out, a)
			}
		}
	}
	return out
}

// The prefixes of RFC 6724 §2.1 that are in use, by the label that tells them apart. Each scope has labels of its own: those
// of the link are added. IPv4's private addresses have global scope, §3.2.
var labels = []netip.Prefix{
	netip.MustParsePrefix("::1/128"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("fc00::/7"),
	netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("2001::/32"),
	netip.MustParsePrefix("::/0"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("0.0.0.0/0"),
}

// label returns a number that an address shares with those that it fits as a source or a destination.
func label(a netip.Addr) int {
	a = a.Unmap().WithZone("")
	return slices.IndexFunc(labels, func(p netip.Prefix) bool { return p.Contains(a) })
}

// A Failure is an attempt that failed.
type Failure struct {
	Attempt int // the index of the address that was dialed
	Err     error
}

// Dial connects to one of the addresses, of which there is at least one, in the order in which they are given. An attempt
// starts when the one before it has run for [Delay], or at once when any attempt fails. RFC 8305 §5.
//
// The first connection is kept and is the caller's. The context of the other attempts is then cancelled, and what they
// connect all the same is closed. dial must return soon after its context has ended, for Dial waits for all attempts. No
// attempt starts after ctx has ended, except the first, so that there always is an error to report.
//
// When there is no connection, the failures of all attempts that started are returned in the order in which they
// failed; the first attempt is always among them. Otherwise failures is empty.
func Dial[C io.Closer](ctx context.Context, to []netip.Addr, dial func(context.Context, netip.Addr) (C, error)) (conn C, failures []Failure) {
	if len(to) == 1 { // nothing to race with
		conn, err := dial(ctx, to[0])
		if err != nil {
			failures = []Failure{{0, err}}
		}
		return conn, failures
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		attempt int
		conn    C
		err     error
	}
	var (
		results          = make(chan result)
		next             = time.NewTimer(0)
		started, running int
		won              bool
	)
	defer next.Stop()
	mayStart := func() bool {
		return !won && started < len(to) && running < MaxAttempts && (started == 0 || ctx.Err() == nil)
	}
	for running > 0 || mayStart() {
		select {
		case <-next.C:
			if !mayStart() {
				continue
			}
			i := started
			started++
			running++
			go func() {
				c, err := dial(ctx, to[i])
				results <- result{i, c, err}
			}()
			next.Reset(Delay)
		case r := <-results:
			running--
			switch {
			case r.err != nil:
				failures = append(failures, Failure{r.attempt, r.err})
				next.Reset(0)
			case won:
				r.conn.Close()
			default:
				conn, won = r.conn, true
				cancel()
			}
		}
	}
	if won {
		failures = nil
	}
	return conn, failures
}
