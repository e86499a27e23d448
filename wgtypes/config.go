package wgtypes

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// A Config is a change to a device: what is nil or empty stays as it is. It is applied whole or not at all.
type Config struct {
	PrivateKey   *PrivateKey  // the zero key removes the device's key; others are clamped
	ListenPort   *uint16      // 0 picks a free port
	Mark         *uint32      // the firewall mark of outgoing datagrams; 0: none
	ReplacePeers bool         // remove every peer that Peers doesn't name
	Peers        []PeerConfig // applied in this order; a peer may be named more than once
}

// A PeerConfig is a change to one peer of a device. A peer that is not there is added, unless UpdateOnly or Remove is
// set. The device's own public key is ignored as a peer.
type PeerConfig struct {
	PublicKey           PublicKey
	Remove              bool            // remove the peer; the other fields are ignored
	UpdateOnly          bool            // do nothing when the peer is not there
	PresharedKey        *PresharedKey   // the zero key removes it
	Endpoint            *netip.AddrPort // an IPv4-mapped IPv6 address is unmapped
	PersistentKeepalive *time.Duration  // whole seconds, 0 (off) to [MaxKeepalive]
	ReplaceAllowedIPs   bool            // forget the allowed IPs the peer has, first
	RemoveAllowedIPs    []netip.Prefix  // taken from the peer before AllowedIPs are added; those it doesn't have are ignored
	AllowedIPs          []netip.Prefix  // masked to their length; a prefix another peer has moves to this one
}

// MaxKeepalive is the longest interval of a persistent keepalive: what the configuration protocol can say.
const MaxKeepalive = 65535 * time.Second

// Wipe overwrites the secret keys that c points to with zeros: the caller's, once the change was applied.
func (c *Config) Wipe() {
	c.PrivateKey.Wipe()
	for i := range c.Peers {
		c.Peers[i].PresharedKey.Wipe()
	}
}

// Canonical returns the change in the form in which a device applies it: the private key clamped, addresses and prefixes
// unmapped, prefixes masked. It shares no memory with c that a device would keep or write to. An error says which peer is
// wrong, and how.
func (c *Config) Canonical() (Config, error) {
	out := *c
	if c.PrivateKey != nil {
		key := c.PrivateKey.Clamped()
		out.PrivateKey = &key
	}
	out.Peers = slices.Clone(c.Peers)
	for i := range out.Peers {
		if err := out.Peers[i].makeCanonical(); err != nil {
			return Config{}, fmt.Errorf("peer %v: %w", out.Peers[i].PublicKey, err)
		}
	}
	return out, nil
}

// makeCanonical does what [Config.Canonical] says for one peer, in place, and leaves what its pointers and slices led to.
func (p *PeerConfig) makeCanonical() (err error) {
	if k := p.PersistentKeepalive; k != nil && (*k < 0 || *k > MaxKeepalive || *k%time.Second != 0) {
		return fmt.Errorf("persistent keepalive %v is not a whole number of seconds from 0 to 65535", *k)
	}
	if p.Endpoint != nil {
		if !p.Endpoint.IsValid() || p.Endpoint.Port() == 0 {
			return fmt.Errorf("endpoint %v is not an address and a port", *p.Endpoint)
		}
		unmapped := netip.AddrPortFrom(p.Endpoint.Addr().Unmap(), p.Endpoint.Port())
		p.Endpoint = &unmapped
	}
	if p.AllowedIPs, err = canonicalPrefixes(p.AllowedIPs); err != nil {
		return err
	}
	p.RemoveAllowedIPs, err = canonicalPrefixes(p.RemoveAllowedIPs)
	return err
}

func canonicalPrefixes(prefixes []netip.Prefix) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		canonical := CanonicalPrefix(p)
		if !canonical.IsValid() {
			return nil, fmt.Errorf("allowed IP %v is not a prefix", p)
		}
		out = append(out, canonical)
	}
	return out, nil
}

// CanonicalPrefix returns the prefix as allowed IPs hold it: IPv4 in IPv6 unmapped, without a zone, the bits behind its
// length zero. For an invalid prefix it returns the zero Prefix.
func CanonicalPrefix(p netip.Prefix) netip.Prefix {
	addr, bits := p.Addr(), p.Bits()
	if addr.Is4In6() && bits >= 96 {
		addr, bits = addr.Unmap(), bits-96
	}
	canonical, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return canonical
}
