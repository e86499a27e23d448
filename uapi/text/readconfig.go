package text

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"throughline/wgtypes"
)

// ReadConfig reads a set request from after its first line, "set=1", up to and including the empty line that ends it,
// and returns the change. Lines count from 1 there.
//
// The protocol's lines take effect one after the other. A peer that is named twice, or whose allowed IPs are added and then
// removed, is therefore in the Config more than once, in order. After replace_peers=true every peer begins without settings,
// so the Config sets what its lines don't to the default. There is one exception: a peer that stays keeps its endpoint when
// the request gives none, as a Config can't take an endpoint away.
//
// A *[ParseError] is about the first bad line; the whole request has been read nevertheless, so that the next one can be
// read. Any other error is the reader's; a request that ends without its empty line gives [io.ErrUnexpectedEOF].
func ReadConfig(r *bufio.Reader) (wgtypes.Config, error) {
	c := configReader{lines: lines{r: r}, mention: -1, maxPeers: maxPeers, maxPrefixes: maxPrefixes}
	return c.read()
}

func (c *configReader) read() (wgtypes.Config, error) {
	var bad *ParseError
	for {
		line, err := c.lines.next()
		switch {
		case err == errLongLine:
			if bad == nil {
				bad = protocolError(c.lines.n, longLine)
			}
			continue
		case err != nil && bad != nil:
			return wgtypes.Config{}, bad
		case err == io.EOF:
			err = io.ErrUnexpectedEOF
			fallthrough
		case err != nil:
			c.wipe()
			return wgtypes.Config{}, fmt.Errorf("uapi: line %d: %w", c.lines.n, err)
		}
		if len(line) == 0 {
			break
		}
		if bad == nil {
			if bad = c.line(line); bad != nil {
				c.wipe()
			}
		}
		clear(line) // it may have been a key
	}
	if bad != nil {
		return wgtypes.Config{}, bad
	}
	c.finishPart()
	if c.cfg.ReplacePeers {
		c.resetPeers()
	}
	return c.cfg, nil
}

// A configReader makes a Config of lines. Here a "mention" of a peer is the lines from one public_key to the next; it becomes
// one or more "parts", each a PeerConfig.
type configReader struct {
	lines                 lines
	cfg                   wgtypes.Config
	maxPeers, maxPrefixes int

	mention  int  // the first part of the mention, in cfg.Peers; -1 before the first
	removed  bool // remove=true was in the mention: its further lines are read but have no effect
	prefixes int  // allowed IPs in the request so far

	removals, additions prefixList // of the last part, until it is finished

	presharedKeys arena[wgtypes.PresharedKey]
	endpoints     arena[netip.AddrPort]
	intervals     arena[time.Duration]
	lists         prefixArena
}

// line applies one line. It returns what is wrong with it.
func (c *configReader) line(line []byte) *ParseError {
	key, value, ok := cut(line)
	if !ok {
		return protocolError(c.lines.n, noEquals)
	}
	var reason string
	if string(key) == "public_key" {
		reason = c.peer(value)
	} else if c.mention < 0 {
		reason = c.deviceLine(key, value)
	} else {
		reason = c.peerLine(key, value)
	}
	if reason == "" {
		return nil
	}
	return lineError(c.lines.n, key, value, reason)
}

// deviceLine applies a line before the first public_key. It returns what is wrong with it.
func (c *configReader) deviceLine(key, value []byte) string {
	switch string(key) {
	case "private_key":
		k := new(wgtypes.PrivateKey)
		if !setKey((*[32]byte)(k), value) {
			return badKey
		}
		if c.cfg.PrivateKey != nil {
			clear(c.cfg.PrivateKey[:])
		}
		c.cfg.PrivateKey = k
	case "listen_port":
		v, ok := parseUint(value, 65535)
		if !ok {
			return badPort
		}
		c.cfg.ListenPort = new(uint16(v))
	case "fwmark":
		v, ok := parseMark(value)
		if !ok {
			return badMark
		}
		c.cfg.Mark = &v
	case "replace_peers":
		if string(value) != "true" {
			return badTrue
		}
		c.cfg.ReplacePeers = true
	case "remove", "update_only", "preshared_key", "endpoint", "persistent_keepalive_interval", "replace_allowed_ips",
		"allowed_ip", "protocol_version":
		return "no public_key comes before it"
	default:
		return unknownKey
	}
	return ""
}

// peer begins a mention. Like the methods that follow it returns what is wrong.
func (c *configReader) peer(value []byte) string {
	var k wgtypes.PublicKey
	if !setKey((*[32]byte)(&k), value) {
		return badKey
	}
	c.finishPart()
	c.mention, c.removed = len(c.cfg.Peers), false
	return c.addPart(wgtypes.PeerConfig{PublicKey: k})
}

// peerLine applies a line after a public_key.
func (c *configReader) peerLine(key, value []byte) string {
	switch string(key) {
	case "remove":
		if string(value) != "true" {
			return badTrue
		}
		return c.remove()
	case "update_only":
		if string(value) != "true" {
			return badTrue
		}
		if parts := c.cfg.Peers[c.mention:]; !c.removed && !parts[0].UpdateOnly {
			for i := range parts {
				parts[i].UpdateOnly = true
			}
		}
	case "preshared_key":
		var k wgtypes.PresharedKey
		if !setKey((*[32]byte)(&k), value) {
			return badKey
		}
		if p := c.last(); c.removed {
		} else if p.PresharedKey == nil {
			p.PresharedKey = c.presharedKeys.put(k)
		} else {
			*p.PresharedKey = k
		}
		k.Wipe()
	case "endpoint":
		ap, ok := parseEndpoint(value)
		if !ok || ap.Port() == 0 {
			return badEndpoint
		}
		if p := c.last(); c.removed {
		} else if p.Endpoint == nil {
			p.Endpoint = c.endpoints.put(ap)
		} else {
			*p.Endpoint = ap
		}
	case "persistent_keepalive_interval":
		d, ok := parseInterval(value)
		if !ok {
			return badInterval
		}
		if p := c.last(); c.removed {
		} else if p.PersistentKeepalive == nil {
			p.PersistentKeepalive = c.intervals.put(d)
		} else {
			*p.PersistentKeepalive = d
		}
	case "replace_allowed_ips":
		if string(value) != "true" {
			return badTrue
		}
		return c.replaceAllowedIPs()
	case "allowed_ip":
		return c.allowedIP(value)
	case "protocol_version":
		if string(value) != "1" {
			return badVersion
		}
	case "private_key", "listen_port", "fwmark", "replace_peers":
		return "it must come before the first public_key"
	default:
		return unknownKey
	}
	return ""
}

// A PeerConfig has three steps: replace_allowed_ips, then removals, then additions. A line of an earlier step than the one
// before it therefore begins another part. Additions and removals don't cancel each other out: a prefix that is added and
// then removed has still been taken from the peer that had it.

func (c *configReader) replaceAllowedIPs() string {
	if c.removed {
		return ""
	}
	if c.removals.n+c.additions.n > 0 {
		if reason := c.anotherPart(); reason != "" {
			return reason
		}
	}
	c.last().ReplaceAllowedIPs = true
	return ""
}

func (c *configReader) allowedIP(value []byte) string {
	minus := len(value) > 0 && value[0] == '-'
	if minus {
		value = value[1:]
	}
	p, ok := parsePrefix(value)
	if !ok {
		return badAllowed
	}
	if c.removed {
		return ""
	}
	if c.prefixes++; c.prefixes > c.maxPrefixes {
		return tooManyPrefixes
	}
	if !minus {
		c.additions.add(p)
		return ""
	}
	if c.additions.n > 0 {
		if reason := c.anotherPart(); reason != "" {
			return reason
		}
	}
	c.removals.add(p)
	return ""
}

// remove ends the mention. Its earlier lines have no effect, except that prefixes were taken from other peers.
func (c *configReader) remove() string {
	if c.removed {
		return ""
	}
	c.removed = true
	if c.additions.n > 0 {
		if reason := c.anotherPart(); reason != "" {
			return reason
		}
	}
	p := c.last()
	if p.PresharedKey != nil {
		clear(p.PresharedKey[:])
	}
	*p = wgtypes.PeerConfig{PublicKey: p.PublicKey, Remove: true}
	c.removals.clear()
	return ""
}

// last returns the part that lines apply to.
func (c *configReader) last() *wgtypes.PeerConfig { return &c.cfg.Peers[len(c.cfg.Peers)-1] }

// anotherPart begins another part of the mention.
func (c *configReader) anotherPart() string {
	c.finishPart()
	p := c.last()
	return c.addPart(wgtypes.PeerConfig{PublicKey: p.PublicKey, UpdateOnly: p.UpdateOnly})
}

func (c *configReader) addPart(p wgtypes.PeerConfig) string {
	if len(c.cfg.Peers) >= c.maxPeers {
		return tooManyPeers
	}
	c.cfg.Peers = append(c.cfg.Peers, p)
	return ""
}

// finishPart completes the last part, if there is one.
func (c *configReader) finishPart() {
	if c.mention < 0 {
		return
	}
	p := c.last()
	p.RemoveAllowedIPs, p.AllowedIPs = c.removals.take(&c.lists), c.additions.take(&c.lists)
}

// resetPeers makes the peers of a request with replace_peers=true what they are when all peers are removed first. A Config
// keeps the peers that it names, with their sessions and settings; so every setting that a peer's lines don't give is set
// to its default.
func (c *configReader) resetPeers() {
	known := make(map[wgtypes.PublicKey]struct{}, len(c.cfg.Peers))
	c.cfg.Peers = slices.DeleteFunc(c.cfg.Peers, func(p wgtypes.PeerConfig) bool {
		_, ok := known[p.PublicKey]
		if !ok && !p.UpdateOnly && !p.Remove {
			known[p.PublicKey] = struct{}{}
			ok = true
		}
		if !ok && p.PresharedKey != nil {
			clear(p.PresharedKey[:])
		}
		return !ok // all peers are gone: nothing to update or remove
	})
	for i := range c.cfg.Peers {
		p := &c.cfg.Peers[i]
		if _, first := known[p.PublicKey]; !first {
			continue
		}
		delete(known, p.PublicKey)
		p.ReplaceAllowedIPs, p.RemoveAllowedIPs = true, nil
		if p.PresharedKey == nil {
			p.PresharedKey = c.presharedKeys.put(wgtypes.PresharedKey{})
		}
		if p.PersistentKeepalive == nil {
			p.PersistentKeepalive = c.intervals.put(0)
		}
	}
}

// wipe clears the keys of a request that is refused.
func (c *configReader) wipe() { Wipe(&c.cfg) }

// Wipe clears the secret keys that cfg points to.
func Wipe(cfg *wgtypes.Config) { cfg.Wipe() }
