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

// ReadConfig reads a set request from behind its first line, "set=1", up to and including the empty line that ends it,
// and returns the change. Lines count from 1 there.
//
// The protocol's lines take effect one after the other. A peer that is named twice, or whose allowed IPs are added and
// then removed, therefore stands in the Config more than once, in order. One thing differs: after replace_peers=true
// every peer starts without settings, so what its lines don't set is set to the default here; only the endpoint a peer
// has, which a Config can't take away, stays when the request gives none.
//
// A *[ParseError] is about the first bad line; the whole request has been read nevertheless, so that the next one can
// follow. Any other error is the reader's; a request that ends without its empty line gives [io.ErrUnexpectedEOF].
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

// A configReader makes a Config of lines. A "mention" of a peer is what stands between one public_key line and the next;
// it consists of one or more "parts", each a PeerConfig.
type configReader struct {
	lines                 lines
	cfg                   wgtypes.Config
	maxPeers, maxPrefixes int

	mention  int  // the first part of the mention, in cfg.Peers; -1 before the first
	removed  bool // remove=true was in the mention: its further lines are read but without effect
	prefixes int

	removals, additions []netip.Prefix // of the last part, until it is finished

	presharedKeys slab[wgtypes.PresharedKey]
	endpoints     slab[netip.AddrPort]
	intervals     slab[time.Duration]
	lists         prefixSlab
}

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

// deviceLine takes a line that stands before the first public_key. It returns what is wrong with it.
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

// peer begins a mention.
func (c *configReader) peer(value []byte) string {
	var k wgtypes.PublicKey
	if !setKey((*[32]byte)(&k), value) {
		return badKey
	}
	c.finishPart()
	c.mention, c.removed = len(c.cfg.Peers), false
	return c.addPart(wgtypes.PeerConfig{PublicKey: k})
}

// peerLine takes a line that stands behind a public_key.
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

// A part applies as a PeerConfig does: forget all, then removals, then additions. A line that comes after one of a later
// step begins another part. Nothing is cancelled out within a part: a prefix that is added and then removed has still
// been taken from the peer that had it.

func (c *configReader) replaceAllowedIPs() string {
	if c.removed {
		return ""
	}
	if len(c.removals)+len(c.additions) > 0 {
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
		c.additions = append(c.additions, p)
		return ""
	}
	if len(c.additions) > 0 {
		if reason := c.anotherPart(); reason != "" {
			return reason
		}
	}
	c.removals = append(c.removals, p)
	return ""
}

// remove ends the mention. Its lines before have no effect, but for the prefixes it took from other peers.
func (c *configReader) remove() string {
	if c.removed {
		return ""
	}
	c.removed = true
	if len(c.additions) > 0 {
		if reason := c.anotherPart(); reason != "" {
			return reason
		}
	}
	p := c.last()
	if p.PresharedKey != nil {
		clear(p.PresharedKey[:])
	}
	*p = wgtypes.PeerConfig{PublicKey: p.PublicKey, Remove: true}
	c.removals = c.removals[:0]
	return ""
}

func (c *configReader) last() *wgtypes.PeerConfig { return &c.cfg.Peers[len(c.cfg.Peers)-1] }

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

func (c *configReader) finishPart() {
	if c.mention < 0 {
		return
	}
	p := c.last()
	p.RemoveAllowedIPs, p.AllowedIPs = c.lists.put(c.removals), c.lists.put(c.additions)
	c.removals, c.additions = c.removals[:0], c.additions[:0]
}

// resetPeers makes the peers of a request with replace_peers=true what they are when all were removed first. A Config
// leaves those it names in place, with their sessions; so what isn't set here gets its default.
func (c *configReader) resetPeers() {
	there := make(map[wgtypes.PublicKey]struct{}, len(c.cfg.Peers))
	c.cfg.Peers = slices.DeleteFunc(c.cfg.Peers, func(p wgtypes.PeerConfig) bool {
		_, ok := there[p.PublicKey]
		if !ok && !p.UpdateOnly && !p.Remove {
			there[p.PublicKey] = struct{}{}
			ok = true
		}
		if !ok && p.PresharedKey != nil {
			clear(p.PresharedKey[:])
		}
		return !ok // all peers are gone: nothing to update or remove
	})
	for i := range c.cfg.Peers {
		p := &c.cfg.Peers[i]
		if _, first := there[p.PublicKey]; !first {
			continue
		}
		delete(there, p.PublicKey)
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
