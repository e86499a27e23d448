package conf

import (
	"slices"
	"strconv"
	"strings"
)

// otherKeys are keys of other programs, in lower case, and why they are mistakes here.
var otherKeys = map[string]string{
	"includedapplications": "a key of WireGuard's app for Android; take the line out",
	"excludedapplications": "a key of WireGuard's app for Android; take the line out",
	"disallowedips":        "a key of another program; write what is left of AllowedIPs without these addresses as AllowedIPs",
	"reserved":             "bytes that other programs put into each packet for Cloudflare's WARP; WireGuard has zeros there, so take the line out",
}

// amneziaKeys are AmneziaWG's keys, in lower case. Those of S and H change packets that WireGuard has, too; the others add
// packets, which a peer that doesn't expect them drops.
var amneziaKeys = strings.Fields("jc jmin jmax s1 s2 s3 s4 h1 h2 h3 h4 i1 i2 i3 i4 i5 j1 j2 j3 itime advancedsecurity")

// amnezia is what a file has of AmneziaWG.
type amnezia struct {
	mistake *Error   // added where the first of the keys stands; nil: there is none
	keys    []string // as written
	changes bool     // the values change packets, so that the peer doesn't understand WireGuard
}

// isAmnezia reports whether the entry has one of AmneziaWG's keys. The first adds the mistake, which each completes.
func (s *state) isAmnezia(e *Entry) bool {
	name := plainKey(e.Key)
	if !slices.Contains(amneziaKeys, name) {
		return false
	}
	a := &s.amnezia
	if a.mistake == nil {
		a.mistake = &Error{Pos: e.Pos}
		s.wrong.Add(a.mistake)
	}
	if !slices.Contains(a.keys, e.Key) && len(a.keys) < len(amneziaKeys) {
		a.keys = append(a.keys, e.Key)
	}
	if v, err := strconv.ParseUint(e.Value, 10, 32); e.Value != "" && name != "advancedsecurity" {
		switch name[0] {
		case 's': // bytes before a packet
			a.changes = a.changes || err != nil || v != 0
		case 'h': // the type of a packet: WireGuard's are 1 to 4
			a.changes = a.changes || err != nil || v != uint64(name[1]-'0')
		}
	}
	what := "with these values the peer understands WireGuard, too: take these lines out"
	if a.changes {
		what = "the peer doesn't understand WireGuard with these values: get a file for WireGuard from where this one comes from, or use AmneziaWG"
	}
	a.mistake.Problem = strings.Join(a.keys, ", ") + ": keys of AmneziaWG, which disguises WireGuard, and isn't spoken here; " + what
	return true
}
