// Package ratelimit bounds the handshake messages of each source under load, by token buckets. Whitepaper §5.3; the
// kernel module's rate and burst.
//
// A source is an IPv4 address or an IPv6 /64, for a host that has one address of a /64 has them all. The engine asks
// only while it is under load, and only for messages with a valid cookie: a sender that is counted here can receive at its
// address, so no source is charged for what another forged. A source may send [PerSecond] messages, [Burst] of them at once.
//
// A [Limiter] has no lock and no clock; its owner calls it from one goroutine at a time. Its memory is bounded by
// [MaxSources], taken at the first call, and given back by setting the Limiter to its zero value.
//
// # When there are more sources than places
//
// Refusing new sources would let an attacker with [MaxSources] addresses, and a customer's IPv6 /48 has eight times as many,
// keep out all others with one message from each a second. Giving new sources a full bucket would let it mint tokens. Here a
// new source takes over the fullest of the eight buckets that its hash leads to, with the tokens in it: of the sources that
// had them, the one that asked least is forgotten, the busy stay limited, and all sources together never get more than
// the tokens of MaxSources buckets.
package ratelimit

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"time"

	"throughline/internal/mono"
)

// Limits. Kernel: PACKETS_PER_SECOND, PACKETS_BURSTABLE, and max_entries on a machine of 1 GiB.
const (
	PerSecond  = 20   // messages a second from one source, lasting
	Burst      = 5    // messages from one source at once
	MaxSources = 8192 // sources distinguished
)

const (
	cost = mono.Time(time.Second / PerSecond)
	full = Burst * cost // how long an empty bucket takes to fill

	ways = 8 // the buckets a source may have: two cache lines
	sets = MaxSources / ways
	_    = uint(MaxSources - sets*ways)
)

// A bucket is that of one source. Its state is the moment at which it will be full. A full one may be another source's at
// once, so nothing has to remove it.
type bucket struct {
	source uint64
	fullAt mono.Time
}

// A Limiter holds the buckets of all sources. The zero Limiter is ready.
type Limiter struct {
	buckets []bucket // sets of ways buckets; nil until the first call
	seed    maphash.Seed
}

// Allow reports whether a message from a may be served now, and takes a token if so. An IPv4-mapped address is that of
// the IPv4 address in it, and a zone is not looked at. The time must not go back.
func (l *Limiter) Allow(now mono.Time, a netip.Addr) bool {
	if l.buckets == nil {
		l.buckets = make([]bucket, MaxSources)
		// Without a seed, addresses could be chosen that share another's set. The seed matters only where a set has more
		// sources than buckets, so below that a simulation is the same each time.
		l.seed = maphash.MakeSeed()
	}
	source := Source(a)
	set := l.buckets[maphash.Comparable(l.seed, source)%sets*ways:][:ways]
	fullest := &set[0]
	for i := range set {
		b := &set[i]
		if b.source == source {
			return b.take(now)
		}
		if b.fullAt < fullest.fullAt {
			fullest = b
		}
	}
	if !fullest.take(now) {
		return false // all of the set's are busy, and empty
	}
	fullest.source = source
	return true
}

// take takes a token, if there is one.
func (b *bucket) take(now mono.Time) bool {
	after := max(b.fullAt, now) + cost
	if after > now+full {
		return false
	}
	b.fullAt = after
	return true
}

// Source names the source that an address belongs to: an IPv6 address by its first 64 bits, an IPv4 address by bits with which only multicast
// addresses begin, which nothing is sent from.
func Source(a netip.Addr) uint64 {
	if a.Is4() || a.Is4In6() {
		b := a.Unmap().As4()
		return 0xffffffff<<32 | uint64(binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8])
}
