package conf

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"throughline/wgtypes"
)

// A File is a configuration file as it was read.
type File struct {
	Name      string    // as given to [Parse]
	Globals   []Entry   // the entries before the first section
	Interface Interface // zero when the file has none: see its Pos
	Peers     []Peer    // in the order of the file
	Sections  []Section // those that are neither [Interface] nor [Peer]
}

// An Interface is an [Interface] section. A nil pointer means that the file doesn't set the key.
type Interface struct {
	Pos        Pos                 // of the header; its Line is 0 when there is none
	PrivateKey *wgtypes.PrivateKey // not checked to be non-zero
	ListenPort *uint16             // 0 picks a free port
	Mark       *uint32             // FwMark; "off" is 0
	Address    []netip.Prefix      // not masked: the interface's addresses, and how long the prefixes of their networks are
	DNS        []netip.Addr        // DNS servers
	Search     []string            // search domains: the values of DNS that aren't addresses
	MTU        int                 // bytes; 0: not set
	Table      string              // empty: not set; else "off", "auto", or a table's name or number
	PreUp      []string            // the hooks: shell commands for before the interface is set up, in the order of the file,
	PostUp     []string            // for afterwards,
	PreDown    []string            // for before it is taken down,
	PostDown   []string            // and for afterwards; nothing here runs them
	SaveConfig bool                // whether wg-quick(8) writes the file anew when it takes the interface down
	Extra      []Entry             // the entries whose keys [Parser.Extra] names
}

// A Peer is a [Peer] section. A nil pointer means that the file doesn't set the key.
type Peer struct {
	Pos                 Pos                   // of the header
	PublicKey           wgtypes.PublicKey     // never zero; no other peer of the file has it
	PresharedKey        *wgtypes.PresharedKey // zero: none is used
	AllowedIPs          []netip.Prefix        // masked to their length
	Endpoint            Endpoint              // zero: none
	PersistentKeepalive *time.Duration        // whole seconds; "off" is 0
}

// An Endpoint is the address and port of a peer, as the file has them. The host may be a name, which the caller
// resolves, and resolves again when its addresses change (package endpoint does both).
type Endpoint struct {
	Host string // a name or an address, without brackets
	Port uint16 // from 1 to 65535
	Pos  Pos    // of the value
}

// IsZero reports whether there is no endpoint.
func (e Endpoint) IsZero() bool { return e.Host == "" }

// String returns host:port.
func (e Endpoint) String() string { return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))) }

// AddrPort returns the endpoint when its host is an address, and whether it is.
func (e Endpoint) AddrPort() (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(e.Host)
	return netip.AddrPortFrom(a, e.Port), err == nil
}

// Config returns the change that makes a device what the file says, as "wg setconf" does: what the file doesn't set gets
// its default, and peers it doesn't name are removed. Endpoints that are names are resolved by resolve, which is called
// for one after another; when it is nil they are left out, and the caller gives them to the device later. Peers stand in
// the order of f.Peers, and share their lists of allowed IPs with f. The error has every name that didn't resolve.
func (f *File) Config(resolve func(Endpoint) (netip.AddrPort, error)) (wgtypes.Config, error) {
	c := wgtypes.Config{
		PrivateKey: new(wgtypes.PrivateKey), ListenPort: new(uint16), Mark: new(uint32),
		ReplacePeers: true, Peers: make([]wgtypes.PeerConfig, 0, len(f.Peers)),
	}
	if f.Interface.PrivateKey != nil {
		*c.PrivateKey = *f.Interface.PrivateKey
	}
	if f.Interface.ListenPort != nil {
		*c.ListenPort = *f.Interface.ListenPort
	}
	if f.Interface.Mark != nil {
		*c.Mark = *f.Interface.Mark
	}
	var wrong Mistakes
	for i := range f.Peers {
		p := &f.Peers[i]
		pc := wgtypes.PeerConfig{
			PublicKey: p.PublicKey, PresharedKey: new(wgtypes.PresharedKey), PersistentKeepalive: new(time.Duration),
			ReplaceAllowedIPs: true, AllowedIPs: p.AllowedIPs,
		}
		if p.PresharedKey != nil {
			*pc.PresharedKey = *p.PresharedKey
		}
		if p.PersistentKeepalive != nil {
			*pc.PersistentKeepalive = *p.PersistentKeepalive
		}
		if ap, ok := p.Endpoint.AddrPort(); ok {
			pc.Endpoint = &ap
		} else if !p.Endpoint.IsZero() && resolve != nil {
			ap, err := resolve(p.Endpoint)
			if err != nil {
				wrong.Add(fmt.Errorf("%v: Endpoint %q: %w", p.Endpoint.Pos, p.Endpoint, err))
				continue
			}
			pc.Endpoint = &ap
		}
		c.Peers = append(c.Peers, pc)
	}
	if err := wrong.Err(); err != nil {
		return wgtypes.Config{}, err
	}
	return c, nil
}

// Plain returns an error that has every section and entry that is neither wg's nor wg-quick's, or nil. A caller that has
// no sections of its own calls it after [Parse], so that a misspelt section is reported.
func (f *File) Plain() error {
	var wrong Mistakes
	for i := range f.Globals {
		wrong.Add(&Error{Pos: f.Globals[i].Pos, Key: showKey(f.Globals[i].Key), Problem: "stands outside of a section; put it below [Interface] or [Peer]"})
	}
	for _, s := range f.Sections {
		wrong.Add(&Error{Pos: s.Pos, Problem: fmt.Sprintf("there is no section [%s]; use [Interface] or [Peer]", cut(s.Name))})
	}
	return wrong.Err()
}

// FromStatus returns the file that "wg showconf" shows of a running device. It points into s, which must not be changed
// while the File is in use.
func FromStatus(s *wgtypes.Status) *File {
	f := &File{}
	if s.ListenPort != 0 {
		f.Interface.ListenPort = &s.ListenPort
	}
	if s.Mark != 0 {
		f.Interface.Mark = &s.Mark
	}
	if !s.PrivateKey.IsZero() {
		f.Interface.PrivateKey = &s.PrivateKey
	}
	for i := range s.Peers {
		from := &s.Peers[i]
		p := Peer{PublicKey: from.PublicKey, AllowedIPs: from.AllowedIPs}
		if !from.PresharedKey.IsZero() {
			p.PresharedKey = &from.PresharedKey
		}
		if from.Endpoint.IsValid() {
			p.Endpoint = Endpoint{Host: from.Endpoint.Addr().String(), Port: from.Endpoint.Port()}
		}
		if from.PersistentKeepalive != 0 {
			p.PersistentKeepalive = &from.PersistentKeepalive
		}
		f.Peers = append(f.Peers, p)
	}
	return f
}
