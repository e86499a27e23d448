// Package wireproxy reads wireproxy's files: conf's, with sections for what a proxy serves between a tunnel and a host.
// It fills a [proxy.Config], and knows where in a file each part of it stands: mistakes name file, line and column.
//
// It opens the files that it is told to read, and those that they name, and nothing else; nothing is kept, so that all
// of it may be used by any number of goroutines. At most 20 mistakes of a file are reported.
package wireproxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"throughline/conf"
	"throughline/proxy"
)

// interfaceKeys are those that wireproxy adds to [Interface].
var interfaceKeys = []string{"CheckAlive", "CheckAliveInterval"}

// Parser returns a parser of the files that [Read] reads, which takes environment variables from env, as
// wireproxy does; nil means that there are none.
func Parser(env func(string) (string, bool)) *conf.Parser {
	return &conf.Parser{Env: env, Extra: slices.Concat(interfaceKeys, appKeys)}
}

// Load reads a configuration file, and the file that its WGConfig names, which then holds [Interface] and [Peer], and
// looks at the certificates that it names. The conf.File it returns has both; it is there too when the mistakes are those
// that [Read] finds, or in the certificates, so that a caller can look for further ones.
func Load(path string, env func(string) (string, bool)) (*conf.File, *proxy.Config, error) {
	f, err := parseFile(path, env)
	if err != nil {
		return nil, nil, err
	}
	if wg := wgConfig(f); wg != nil {
		if f.Interface.Pos.Line != 0 || len(f.Peers) > 0 {
			return nil, nil, wg.Wrong("names another file, but this one has an [Interface] or a [Peer] too; keep one of them")
		}
		path := wg.Value
		if filepath.Base(path) == path { // as wireproxy does: a bare name is that of a file beside this one
			path = filepath.Join(filepath.Dir(f.Name), path)
		}
		inner, err := parseFile(path, env)
		if err != nil {
			return nil, nil, fmt.Errorf("%v: WGConfig: %w", wg.Pos, err)
		}
		if again := wgConfig(inner); again != nil {
			return nil, nil, again.Wrong("stands in a file that a WGConfig names, and so can't name another one; take it out")
		}
		if err := inner.Plain(); err != nil {
			return nil, nil, err
		}
		f.Interface, f.Peers = inner.Interface, inner.Peers
	}
	c, err := Read(f)
	if err != nil {
		return f, nil, err
	}
	for i := range c.Sections {
		if s := &c.Sections[i]; s.CertFile != "" {
			_, wrong := s.Certificate()
			err = errors.Join(err, wrong)
		}
	}
	if err != nil {
		return f, nil, err
	}
	return f, c, nil
}

func wgConfig(f *conf.File) *conf.Entry {
	for i := range f.Globals {
		if f.Globals[i].Is("WGConfig") && f.Globals[i].Value != "" {
			return &f.Globals[i]
		}
	}
	return nil
}

func parseFile(path string, env func(string) (string, bool)) (*conf.File, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return Parser(env).Parse(path, in)
}

// kinds are the sections that are known, and the keys of each. [UDPProxyTunnel] is wireproxy's name for a
// [UDPClientTunnel].
var kinds = []struct {
	name string
	kind proxy.Kind
	keys string
}{
	{"TCPClientTunnel", proxy.TCPClientTunnel, "BindAddress Target ResolveLocally MaxConnections IdleTimeout"},
	{"TCPServerTunnel", proxy.TCPServerTunnel, "ListenPort Target MaxConnections IdleTimeout"},
	{"STDIOTunnel", proxy.STDIOTunnel, "Target ResolveLocally"},
	{"Socks5", proxy.Socks5, "BindAddress Username Password ResolveLocally MaxConnections IdleTimeout"},
	{"http", proxy.HTTP, "BindAddress Username Password CertFile KeyFile ResolveLocally MaxConnections IdleTimeout"},
	{"UDPClientTunnel", proxy.UDPClientTunnel, "BindAddress Target ResolveLocally MaxConnections IdleTimeout"},
	{"UDPServerTunnel", proxy.UDPServerTunnel, "ListenPort Target MaxConnections IdleTimeout"},
	{"UDPProxyTunnel", proxy.UDPClientTunnel, "BindAddress Target ResolveLocally MaxConnections InactivityTimeout"},
}

// Read reads the sections and keys of the proxy. An unknown section or key is a mistake. All mistakes found
// are reported, each an [*conf.Error], and then there is no Config. Names are resolved through the tunnel by default, or,
// as wireproxy does it, by the host when [Interface] names no DNS server.
func Read(f *conf.File) (*proxy.Config, error) {
	r := reader{c: &proxy.Config{CheckAliveInterval: proxy.DefaultInterval, PreferIPv4: true}, locally: len(f.Interface.DNS) == 0, taken: make(map[place]*conf.Entry)}
	for i := range f.Globals {
		if e := &f.Globals[i]; !e.Is("WGConfig") {
			r.wrong(e.WrongSecret("stands outside of a section; only WGConfig may, so put it below the header of its section"))
		}
	}
	for _, a := range f.Interface.Address {
		// From an address of the link nothing beyond it is reached. RFC 6724 §6, rule 2.
		r.c.PreferIPv4 = r.c.PreferIPv4 && (a.Addr().Is4() || a.Addr().IsLinkLocalUnicast())
	}
	r.readInterface(f.Interface.Extra)
	for i := range f.Sections {
		if from := &f.Sections[i]; strings.EqualFold(from.Name, "Resolve") {
			r.readResolve(from)
		} else {
			r.readSection(from)
		}
	}
	if err := r.mistakes.Err(); err != nil {
		return nil, err
	}
	return r.c, nil
}

// A reader is how far a configuration has been read, and what is wrong with it.
type reader struct {
	c        *proxy.Config
	locally  bool
	stdio    *conf.Pos // of the first [STDIOTunnel]
	taken    map[place]*conf.Entry
	mistakes conf.Mistakes
}

// A place is where one section alone can listen.
type place struct {
	udp, inTunnel bool
	host          string
	port          uint64
}

// take adds a mistake when another section listens at the address that e names. Which addresses the host has isn't looked
// at, so that of two sections at different ones of them, none is wrong.
func (r *reader) take(kind proxy.Kind, e *conf.Entry, address string) {
	host, port, err := net.SplitHostPort(address)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || n == 0 {
		return
	}
	if a, err := netip.ParseAddr(host); err == nil {
		host = a.Unmap().String()
	}
	p := place{
		udp:      kind == proxy.UDPClientTunnel || kind == proxy.UDPServerTunnel,
		inTunnel: kind == proxy.TCPServerTunnel || kind == proxy.UDPServerTunnel, host: strings.ToLower(host), port: n,
	}
	if first := r.taken[p]; first != nil {
		r.wrong(e.Wrong(fmt.Sprintf("another section listens there already, see line %d; choose another port", first.Pos.Line)))
		return
	}
	r.taken[p] = e
}

func (r *reader) wrong(err error) { r.mistakes.Add(err) }

func (r *reader) readInterface(extra []conf.Entry) {
	for i := range extra {
		e := &extra[i]
		if e.Is("CheckAlive") {
			for _, item := range e.List() {
				a, err := netip.ParseAddr(item.Value)
				if err != nil {
					r.wrong(item.Wrong("not an address; use one like 192.0.2.1"))
					continue
				}
				r.c.CheckAlive = append(r.c.CheckAlive, a.Unmap())
			}
			continue
		}
		if slices.ContainsFunc(appKeys, e.Is) {
			continue
		}
		d, err := duration(e)
		if err != nil || d < time.Second {
			r.wrong(e.Wrong("not an interval; use seconds from 1 up"))
		}
		r.c.CheckAliveInterval = d
	}
}

func (r *reader) readResolve(from *conf.Section) {
	for i := range from.Entries {
		e := &from.Entries[i]
		switch v := strings.ToLower(e.Value); {
		case !e.Is("ResolveStrategy"):
			r.wrong(e.WrongSecret("there is no such key in [Resolve]; use ResolveStrategy"))
		case v == "": // not given
		case v == "ipv4", v == "ipv6":
			r.c.PreferIPv4 = v == "ipv4"
		case v != "auto":
			r.wrong(e.Wrong("use auto, ipv4 or ipv6"))
		}
	}
}

// readSection reads a section that is served. What it lacks is reported after what is wrong in it.
func (r *reader) readSection(from *conf.Section) {
	s := proxy.Section{Name: from.Name, At: from.Pos.String(), MaxConnections: proxy.DefaultConnections, IdleTimeout: proxy.DefaultIdleTCP, ResolveLocally: r.locally}
	lacks := func(problem string) { r.wrong(&conf.Error{Pos: from.Pos, Problem: problem}) }
	keys := ""
	names := []string{"[Interface] [Peer] [Resolve]"}
	for _, k := range kinds {
		if strings.EqualFold(k.name, from.Name) {
			s.Kind, keys = k.kind, k.keys
		}
		names = append(names, "["+k.name+"]")
	}
	if strings.EqualFold(from.Name, "SNI") {
		lacks("[SNI] is a transparent proxy for TLS, which there is none of here; take it out, and let clients use [Socks5] or [http]")
		return
	}
	if keys == "" { // its entries can't be judged
		lacks("there is no section of this name; use one of " + strings.Join(names, " "))
		return
	}
	if s.Kind == proxy.UDPClientTunnel || s.Kind == proxy.UDPServerTunnel {
		s.IdleTimeout = proxy.DefaultIdleUDP
	}
	if strings.EqualFold(from.Name, "UDPProxyTunnel") {
		s.IdleTimeout = 0 // as wireproxy has it
	}
	if s.Kind == proxy.STDIOTunnel {
		if r.stdio != nil {
			lacks(fmt.Sprintf("a second [STDIOTunnel], the first is on line %d; there is only one standard input, so keep one", r.stdio.Line))
		} else {
			r.stdio = &from.Pos
		}
	}
	at := make(map[string]*conf.Entry)
	for i := range from.Entries {
		e := &from.Entries[i]
		name := ""
		for k := range strings.FieldsSeq(keys) {
			if e.Is(k) {
				name = k
			}
		}
		clients := s.Kind == proxy.Socks5 || s.Kind == proxy.HTTP
		switch {
		case clients && e.Is("TunnelDomains"):
			if e.Value != "" {
				r.wrong(e.WrongSecret("names the only targets that are reached through the tunnel, and here all are; take it out, and let clients choose what they ask this proxy for"))
			}
			continue
		case clients && e.Is("LogDomains"):
			if on, ok := boolean(e.Value); e.Value != "" && !ok {
				r.wrong(e.Wrong("use true or false"))
			} else if on {
				r.wrong(e.Wrong("the names that clients ask for aren't logged here; take it out"))
			}
			continue
		case name == "":
			r.wrong(e.WrongSecret(fmt.Sprintf("there is no such key in [%s]; use one of %s", from.Name, strings.ReplaceAll(keys, " ", ", "))))
			continue
		case e.Value == "" && !slices.Contains(credentials, name): // not given
			continue
		case at[name] != nil:
			r.wrong(e.WrongSecret(fmt.Sprintf("a second one in this section; the first is on line %d: keep one", at[name].Pos.Line)))
			continue
		}
		at[name] = e
		if err := set(&s, name, e); err != nil {
			r.wrong(err)
		} else if name == "BindAddress" || name == "ListenPort" {
			r.take(s.Kind, e, s.BindAddress)
		}
	}
	for _, must := range []string{"BindAddress", "ListenPort", "Target"} {
		if strings.Contains(keys, must) && at[must] == nil {
			lacks(fmt.Sprintf("[%s] has no %s; add one", from.Name, must))
		}
	}
	user := at["Username"]
	if e := at["Password"]; e != nil && s.Kind == proxy.Socks5 && user == nil && s.Password != "" {
		r.wrong(e.WrongSecret("there is no Username, and SOCKS5 has no password without; add one")) // RFC 1929 §2
	}
	if (s.CertFile == "") != (s.KeyFile == "") {
		lacks("CertFile and KeyFile belong together; add the other one")
	}
	r.c.Sections = append(r.c.Sections, s)
}

// credentials are keys that may not be empty: what filled in the file may have had nothing, and a proxy without what its file asks
// for would be open to all.
var credentials = []string{"Username", "Password", "CertFile", "KeyFile"}

// set takes one entry into a section.
func set(s *proxy.Section, key string, e *conf.Entry) error {
	if e.Value == "" && slices.Contains(credentials, key) {
		return e.WrongSecret("is empty; give it a value, or leave the line out")
	}
	switch key {
	case "BindAddress", "Target":
		host, port, err := net.SplitHostPort(e.Value)
		n, perr := strconv.ParseUint(port, 10, 16)
		if err != nil || perr != nil || key == "Target" && (host == "" || n == 0) {
			return e.Wrong("not host:port; use one like 127.0.0.1:1080 or [::1]:1080")
		}
		if key == "Target" {
			s.Target = e.Value
		} else {
			s.BindAddress = e.Value
		}
	case "ListenPort":
		n, err := strconv.ParseUint(e.Value, 10, 16)
		if err != nil || n == 0 {
			return e.Wrong("not a port; use a number from 1 to 65535")
		}
		s.BindAddress = ":" + e.Value
	case "Username", "Password":
		if len(e.Value) > 255 { // RFC 1929 §2
			return e.WrongSecret("longer than 255 bytes; choose a shorter one")
		}
		if key == "Username" {
			s.Username = proxy.Secret(e.Value)
			if s.Kind == proxy.HTTP && strings.Contains(e.Value, ":") { // RFC 7617 §2
				return e.WrongSecret("has a ':', which HTTP takes for its end; choose another one")
			}
		} else {
			s.Password = proxy.Secret(e.Value)
		}
	case "CertFile":
		s.CertFile = e.Value
	case "KeyFile":
		s.KeyFile = e.Value
	case "ResolveLocally":
		on, ok := boolean(e.Value)
		if !ok {
			return e.Wrong("use true or false")
		}
		s.ResolveLocally = on
	case "MaxConnections":
		n, err := strconv.Atoi(e.Value)
		if err != nil || n < 1 || n > 1<<20 {
			return e.Wrong("not a limit; use a number from 1 to 1048576")
		}
		s.MaxConnections = n
	case "IdleTimeout", "InactivityTimeout":
		d, err := duration(e)
		if err != nil || d < 0 {
			return e.Wrong("not a time; use seconds, a duration like 90s or 2h, or off")
		}
		s.IdleTimeout = d
	}
	return nil
}

// boolean reads what is true or false, and reports whether it is one of them.
func boolean(v string) (on, ok bool) {
	switch strings.ToLower(v) {
	case "true", "yes", "on", "1":
		return true, true
	case "false", "no", "off", "0":
		return false, true
	}
	return false, false
}

// duration reads seconds, or a duration with units, or "off".
func duration(e *conf.Entry) (time.Duration, error) {
	if strings.EqualFold(e.Value, "off") {
		return 0, nil
	}
	if n, err := strconv.ParseUint(e.Value, 10, 31); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	return time.ParseDuration(e.Value)
}
