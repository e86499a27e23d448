// Package loadguard is the protection of a responder against floods of handshake messages: under load a sender must show by
// a cookie that it receives at its address, and may then send only so many messages a second. Whitepaper §5.3.
//
// A [Guard] checks macs, makes cookie replies and limits rates; it sends nothing. Messages wait for workers in a queue that
// [Post] puts them into, and how many do is the load: a Guard counts as under load for [Lasts] after there were too many.
//
// What it costs decides what is asked where. A message without a mac2, which most of a flood is, is unproven at the cost of a
// comparison, so [Guard.Classify] may be called for each message as it is received, and by nothing that is received can
// its cost be raised beyond two hashes. mac1 costs a hash for every message, which a sender who knows our public key
// passes: it is left to the workers, who drop what they can't keep up with unseen.
//
// Concurrency: all methods may be called from any goroutine. Only [Guard.Classify] takes a lock, for a look
// into a table, and only under load and for messages with a valid cookie; and Post the queue's.
//
// Limits: [ratelimit.MaxSources] sources are distinguished; [MaxMessages] messages of either kind wait.
package loadguard

import (
	"crypto/rand"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"throughline/internal/cookie"
	"throughline/internal/mono"
	"throughline/internal/ratelimit"
	"throughline/wgtypes"
)

// Lasts is how long after [Guard.Loaded] was called last a Guard is under load. Kernel: wg_receive_handshake_packet.
const Lasts = time.Second

// A Class is what a message has shown of its sender before anything is computed for it.
type Class uint8

// The classes.
const (
	Unproven Class = iota // nothing, or there is no load and nothing was looked at
	Proven                // under load, by a cookie, that the sender receives at its address
	TooMany               // that, and that the sender sends more than its rate: drop it
)

// A Guard guards one identity. Make one with [New].
type Guard struct {
	checker *cookie.Checker
	loaded  atomic.Int64 // mono.Time when Loaded was called last; 0: never

	mu      sync.Mutex // guards limiter
	limiter ratelimit.Limiter
}

// New returns the Guard of the responder whose public key is public. It isn't under load.
func New(public wgtypes.PublicKey) *Guard { return &Guard{checker: cookie.NewChecker(public)} }

// Loaded records that there is more to do than can be done soon.
func (g *Guard) Loaded(now mono.Time) { g.loaded.Store(int64(now)) }

// UnderLoad reports whether there is a load, or was one a moment ago.
func (g *Guard) UnderLoad(now mono.Time) bool {
	last := mono.Time(g.loaded.Load())
	return last != 0 && now.Sub(last) < Lasts
}

// Classify classifies an initiation or a response from an address. A message that is Proven has taken one of its source's
// tokens. Its mac1 is not looked at: mac2 covers it, and only we can make a cookie.
func (g *Guard) Classify(now mono.Time, msg []byte, from netip.AddrPort) Class {
	switch {
	case !g.UnderLoad(now), !g.checker.CheckMAC2(now, msg, from):
		return Unproven
	case !g.allow(now, from.Addr()):
		return TooMany
	}
	return Proven
}

func (g *Guard) allow(now mono.Time, a netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.limiter.Allow(now, a)
}

// CheckMAC1 reports whether the sender of an initiation or a response knows our public key. Whitepaper §5.4.4.
func (g *Guard) CheckMAC1(msg []byte) bool { return g.checker.CheckMAC1(msg) }

// Reply writes the cookie reply to an initiation or a response, whose mac1 is right, to dst, wire.CookieReplySize
// bytes. After an error it is not to be sent. Whitepaper §5.4.7.
func (g *Guard) Reply(now mono.Time, dst, msg []byte, to netip.AddrPort) error {
	return g.checker.Reply(now, dst, msg, to, rand.Reader)
}
