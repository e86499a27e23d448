package conf

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"throughline/wgtypes"
)

// A key is one of those that [Interface] or [Peer] may have.
type key struct {
	name string
	many bool                     // may be there more than once
	hook bool                     // a command, in which $NAME is the shell's
	set  func(s *state, e *Entry) // puts the value into s.file, or adds a mistake
}

// interfaceKeys and peerKeys have their keys in lower case. They are filled in by init: their functions use state, whose
// methods use them.
var interfaceKeys, peerKeys map[string]key

func init() {
	interfaceKeys = table([]key{
		{name: "PrivateKey", set: func(s *state, e *Entry) {
			k, err := wgtypes.ParsePrivateKey(e.Value)
			if s.secret(e, err) {
				s.file.Interface.PrivateKey = &k
			}
		}},
		{name: "ListenPort", set: func(s *state, e *Entry) {
			if n, ok := s.number(e, 16, "a port; use a number from 0 to 65535, where 0 picks a free one"); ok {
				s.file.Interface.ListenPort = new(uint16(n))
			}
		}},
		{name: "FwMark", set: func(s *state, e *Entry) {
			v := *e
			if strings.EqualFold(v.Value, "off") {
				v.Value = "0"
			}
			if n, ok := s.number(&v, 32, "a mark; use a number of 32 bits like 51820 or 0xca6c, or off"); ok {
				s.file.Interface.Mark = new(uint32(n))
			}
		}},
		{name: "Address", many: true, set: func(s *state, e *Entry) {
			s.prefixes(e, func(p netip.Prefix) { s.file.Interface.Address = append(s.file.Interface.Address, p) })
		}},
		{name: "DNS", many: true, set: (*state).dns},
		{name: "MTU", set: func(s *state, e *Entry) {
			n, ok := s.number(e, 16, "an MTU; use a number from 576 to 65535, or leave it out")
			if ok && n < 576 { // RFC 791 §3.1: what every host must accept
				s.wrong.Add(e.Wrong("too small for an MTU; use a number from 576 to 65535, or leave it out"))
			} else if ok {
				s.file.Interface.MTU = int(n)
			}
		}},
		{name: "Table", set: func(s *state, e *Entry) {
			if e.Value == "" || strings.ContainsAny(e.Value, space) {
				s.wrong.Add(e.Wrong("not a routing table; use off, auto, or the number or name of a table"))
				return
			}
			s.file.Interface.Table = e.Value
			if l := strings.ToLower(e.Value); l == "off" || l == "auto" {
				s.file.Interface.Table = l
			}
		}},
		{name: "PreUp", many: true, hook: true, set: hook(func(i *Interface) *[]string { return &i.PreUp })},
		{name: "PostUp", many: true, hook: true, set: hook(func(i *Interface) *[]string { return &i.PostUp })},
		{name: "PreDown", many: true, hook: true, set: hook(func(i *Interface) *[]string { return &i.PreDown })},
		{name: "PostDown", many: true, hook: true, set: hook(func(i *Interface) *[]string { return &i.PostDown })},
		{name: "SaveConfig", set: func(s *state, e *Entry) {
			yes := strings.EqualFold(e.Value, "true")
			if !yes && !strings.EqualFold(e.Value, "false") {
				s.wrong.Add(e.Wrong("use true or false"))
			}
			s.file.Interface.SaveConfig = yes
		}},
	})
	peerKeys = table([]key{
		{name: "PublicKey", set: func(s *state, e *Entry) {
			k, err := wgtypes.ParsePublicKey(e.Value)
			if err == nil && k.IsZero() {
				err = errors.New("all zeros")
			}
			if s.secret(e, err) { // it may be the private key, put here by mistake
				s.peer().PublicKey = k
			}
		}},
		{name: "PresharedKey", set: func(s *state, e *Entry) {
			k, err := wgtypes.ParsePresharedKey(e.Value)
			if s.secret(e, err) {
				s.peer().PresharedKey = &k
			}
		}},
		{name: "AllowedIPs", many: true, set: func(s *state, e *Entry) {
			p := s.peer()
			s.prefixes(e, func(prefix netip.Prefix) { p.AllowedIPs = append(p.AllowedIPs, wgtypes.CanonicalPrefix(prefix)) })
		}},
		{name: "Endpoint", set: (*state).endpoint},
		{name: "PersistentKeepalive", set: func(s *state, e *Entry) {
			v := *e
			if strings.EqualFold(v.Value, "off") {
				v.Value = "0"
			}
			if n, ok := s.number(&v, 16, "an interval; use seconds from 0 to 65535, or off"); ok {
				s.peer().PersistentKeepalive = new(time.Duration(n) * time.Second)
			}
		}},
	})
}

// table returns the keys by their names in lower case.
func table(keys []key) map[string]key {
	m := make(map[string]key, len(keys))
	for _, k := range keys {
		m[strings.ToLower(k.name)] = k
	}
	return m
}

// hook returns the function that adds a command to a list of hooks.
func hook(list func(*Interface) *[]string) func(*state, *Entry) {
	return func(s *state, e *Entry) {
		if e.Value == "" {
			s.wrong.Add(e.Wrong("no command; write one, or leave the line out"))
			return
		}
		l := list(&s.file.Interface)
		*l = append(*l, e.Value)
	}
}

// peer returns the peer that is being read.
func (s *state) peer() *Peer { return &s.file.Peers[len(s.file.Peers)-1] }

// secret returns true when err is nil. Otherwise it adds a mistake that doesn't show the value.
func (s *state) secret(e *Entry, err error) bool {
	if err == nil {
		return true
	}
	s.wrong.Add(e.WrongSecret("not a key; use 32 bytes in base64, 44 characters that end in '='"))
	return false
}

// number reads an unsigned number of so many bits, decimal or hexadecimal with 0x. want is what the mistake says that the
// value is not.
func (s *state) number(e *Entry, bits int, want string) (uint64, bool) {
	digits, base := e.Value, 10
	if len(digits) > 2 && (digits[:2] == "0x" || digits[:2] == "0X") {
		digits, base = digits[2:], 16
	}
	n, err := strconv.ParseUint(digits, base, bits)
	if err != nil {
		s.wrong.Add(e.Wrong("not " + want))
		return 0, false
	}
	return n, true
}

// prefixes reads a list of addresses with or without a prefix length, and calls each with every one.
func (s *state) prefixes(e *Entry, each func(netip.Prefix)) {
	for _, item := range e.List() {
		p, err := prefix(item.Value)
		if err != nil {
			s.wrong.Add(item.Wrong("not a prefix; use address/length"))
			continue
		}
		each(p)
	}
}

// prefix reads an address with or without a prefix length. Without one it is that of a single host.
func prefix(v string) (netip.Prefix, error) {
	if !strings.Contains(v, "/") {
		a, err := netip.ParseAddr(v)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, errors.New("not an address")
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(v)
	if err == nil && p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return p, errors.New("an IPv4 address with the length of an IPv6 one")
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, err
}

// dns reads addresses of servers and search domains, as wg-quick(8) distinguishes them.
func (s *state) dns(e *Entry) {
	for _, item := range e.List() {
		if a, err := netip.ParseAddr(item.Value); err == nil {
			s.file.Interface.DNS = append(s.file.Interface.DNS, a.Unmap())
		} else if isName(item.Value) && !numeric(item.Value) {
			s.file.Interface.Search = append(s.file.Interface.Search, item.Value)
		} else {
			s.wrong.Add(item.Wrong("neither an address nor a search domain; use the address of a DNS server"))
		}
	}
}

// endpoint reads host:port; a name stays a name.
func (s *state) endpoint(e *Entry) {
	host, port, err := net.SplitHostPort(e.Value)
	if err != nil {
		s.wrong.Add(e.Wrong("not host:port; use name:51820, 192.0.2.1:51820 or [2001:db8::1]:51820"))
		return
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		s.wrong.Add(e.Wrong("has no port from 1 to 65535; add one, like :51820"))
		return
	}
	if a, err := netip.ParseAddr(host); err == nil {
		host = a.Unmap().String()
	} else if !isName(host) || numeric(host) {
		s.wrong.Add(e.Wrong("its host is neither an address nor a name"))
		return
	}
	s.peer().Endpoint = Endpoint{Host: host, Port: uint16(n), Pos: e.Pos}
}

// isName reports whether s may be the name of a host: labels of ASCII letters, digits, '-' and '_', and of any characters
// beyond ASCII.
func isName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range label {
			if c < 0x80 && !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

// numeric reports whether the last label of a name is a number: then it is an address that was misspelt.
func numeric(s string) bool {
	last := s[strings.LastIndexByte(s, '.')+1:]
	_, err := strconv.ParseUint(last, 0, 64)
	return err == nil
}
