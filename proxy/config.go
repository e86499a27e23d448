package proxy

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"throughline/conf"
)

// What a section has when it doesn't say otherwise.
const (
	defaultConnections = 1024
	defaultIdleTCP     = 2 * time.Hour   // RFC 5382 §5 REQ-5 asks of a NAT for a little more, without keepalives
	defaultIdleUDP     = 2 * time.Minute // RFC 4787 §4.3 REQ-5
	defaultInterval    = 5 * time.Second // as wireproxy
)

// A Kind is what a section does.
type Kind int

// The kinds of sections, by their names in a file.
const (
	TCPClientTunnel Kind = iota // listens on the host, connects through the tunnel
	TCPServerTunnel             // listens in the tunnel, connects from the host
	STDIOTunnel                 // connects Stdin and Stdout through the tunnel
	Socks5
	HTTP
	UDPClientTunnel
	UDPServerTunnel
)

// A Secret is a password. Formatted with any verb, in JSON and in slog it shows "(hidden)".
type Secret string

// Format writes "(hidden)" whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, "(hidden)") }

// MarshalText returns "(hidden)".
func (Secret) MarshalText() ([]byte, error) { return []byte("(hidden)"), nil }

// LogValue returns "(hidden)".
func (Secret) LogValue() slog.Value { return slog.StringValue("(hidden)") }

// A Section is one proxy or forwarded port.
type Section struct {
	Kind           Kind
	Name           string   // as the file spells it
	Pos            conf.Pos // of its header, or zero
	BindAddress    string   // host:port where it listens; of the server tunnels the empty host in the tunnel
	Target         string   // host:port where it connects to
	Username       Secret
	Password       Secret
	CertFile       string // with KeyFile: the HTTP proxy speaks TLS
	KeyFile        string
	ResolveLocally bool          // names are resolved by the host, not through the tunnel
	MaxConnections int           // 0 stands for 1024
	IdleTimeout    time.Duration // 0: none
}

// A Config is what a [Proxy] serves.
type Config struct {
	Sections           []Section
	CheckAlive         []netip.Addr  // pinged through the tunnel
	CheckAliveInterval time.Duration // 0 stands for 5 s
	PreferIPv4         bool          // of a name with addresses of both families, which are tried first

	// Stdin and Stdout are those of the STDIOTunnel. They are closed when it ends, if they can be; Run doesn't wait
	// for a Read of Stdin that doesn't end when it is closed.
	Stdin  io.Reader
	Stdout io.Writer
}

// interfaceKeys are those that wireproxy adds to [Interface].
var interfaceKeys = []string{"CheckAlive", "CheckAliveInterval"}

// Parser returns a parser of the files that [ReadConfig] reads, which takes environment variables from env, as
// wireproxy does; nil means that there are none.
func Parser(env func(string) (string, bool)) *conf.Parser {
	return &conf.Parser{Env: env, Extra: interfaceKeys}
}

// Load reads a configuration file, and the file that its WGConfig names, which then holds [Interface] and [Peer]. The
// conf.File it returns has both.
func Load(path string, env func(string) (string, bool)) (*conf.File, *Config, error) {
	f, err := parseFile(path, env)
	if err != nil {
		return nil, nil, err
	}
	if wg := wgConfig(f); wg != nil {
		if f.Interface.Pos.Line != 0 || len(f.Peers) > 0 {
			return nil, nil, wg.Wrong("names another file, but this one has an [Interface] or a [Peer] too; keep one of them")
		}
		inner, err := parseFile(wg.Value, env)
		if err != nil {
			return nil, nil, fmt.Errorf("%v: WGConfig: %w", wg.Pos, err)
		}
		if err := inner.Plain(); err != nil {
			return nil, nil, err
		}
		f.Interface, f.Peers = inner.Interface, inner.Peers
	}
	c, err := ReadConfig(f)
	return f, c, err
}

func wgConfig(f *conf.File) *conf.Entry {
	for i := range f.Globals {
		if f.Globals[i].Is("WGConfig") {
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

// kinds are the sections that are known, and the keys of each. [UDPProxyTunnel] is wireproxy's name for what has
// InactivityTimeout instead of IdleTimeout.
var kinds = []struct {
	name string
	kind Kind
	keys string
}{
	{"TCPClientTunnel", TCPClientTunnel, "BindAddress Target ResolveLocally"},
	{"TCPServerTunnel", TCPServerTunnel, "ListenPort Target"},
	{"STDIOTunnel", STDIOTunnel, "Target ResolveLocally"},
	{"Socks5", Socks5, "BindAddress Username Password ResolveLocally"},
	{"http", HTTP, "BindAddress Username Password CertFile KeyFile ResolveLocally"},
	{"UDPClientTunnel", UDPClientTunnel, "BindAddress Target ResolveLocally"},
	{"UDPServerTunnel", UDPServerTunnel, "ListenPort Target"},
	{"UDPProxyTunnel", UDPClientTunnel, "BindAddress Target ResolveLocally InactivityTimeout"},
}

// ReadConfig reads the sections and keys of the proxy. A section or key that nobody knows is an error. Names are resolved
// through the tunnel by default, or, as wireproxy does it, by the host when [Interface] names no DNS server.
func ReadConfig(f *conf.File) (*Config, error) {
	c := &Config{CheckAliveInterval: defaultInterval}
	for i := range f.Globals {
		if e := &f.Globals[i]; !e.Is("WGConfig") {
			return nil, e.WrongSecret("stands outside of a section; only WGConfig may")
		}
	}
	c.PreferIPv4 = true
	for _, a := range f.Interface.Address {
		c.PreferIPv4 = c.PreferIPv4 && a.Addr().Is4()
	}
	if err := c.readInterface(f.Interface.Extra); err != nil {
		return nil, err
	}
	stdio := false
	for i := range f.Sections {
		from := &f.Sections[i]
		if strings.EqualFold(from.Name, "Resolve") {
			if err := c.readResolve(from); err != nil {
				return nil, err
			}
			continue
		}
		s, err := readSection(from, len(f.Interface.DNS) == 0)
		if err != nil {
			return nil, err
		}
		if s.Kind == STDIOTunnel {
			if stdio {
				return nil, &conf.Error{Pos: s.Pos, Problem: "a second [STDIOTunnel]; there is only one standard input, so keep one"}
			}
			stdio = true
		}
		c.Sections = append(c.Sections, *s)
	}
	return c, nil
}

func (c *Config) readInterface(extra []conf.Entry) error {
	for i := range extra {
		e := &extra[i]
		if e.Is("CheckAlive") {
			for _, item := range e.List() {
				a, err := netip.ParseAddr(item.Value)
				if err != nil {
					return item.Wrong("not an address; use one like 192.0.2.1")
				}
				c.CheckAlive = append(c.CheckAlive, a.Unmap())
			}
			continue
		}
		d, err := duration(e)
		if err != nil || d < time.Second {
			return e.Wrong("not an interval; use seconds from 1 up")
		}
		c.CheckAliveInterval = d
	}
	return nil
}

func (c *Config) readResolve(from *conf.Section) error {
	for i := range from.Entries {
		e := &from.Entries[i]
		switch v := strings.ToLower(e.Value); {
		case !e.Is("ResolveStrategy"):
			return e.WrongSecret("there is no such key in [Resolve]; use ResolveStrategy")
		case v == "ipv4", v == "ipv6":
			c.PreferIPv4 = v == "ipv4"
		case v != "auto":
			return e.Wrong("use auto, ipv4 or ipv6")
		}
	}
	return nil
}

func readSection(from *conf.Section, locally bool) (*Section, error) {
	s := &Section{Name: from.Name, Pos: from.Pos, MaxConnections: defaultConnections, IdleTimeout: defaultIdleTCP, ResolveLocally: locally}
	keys := ""
	names := "[Interface] [Peer] [Resolve]"
	for _, k := range kinds {
		if strings.EqualFold(k.name, from.Name) {
			s.Kind, keys = k.kind, k.keys+" MaxConnections IdleTimeout"
		}
		names += " [" + k.name + "]"
	}
	if keys == "" {
		return nil, &conf.Error{Pos: from.Pos, Problem: "there is no section of this name; use one of " + names}
	}
	if s.Kind == UDPClientTunnel || s.Kind == UDPServerTunnel {
		s.IdleTimeout = defaultIdleUDP
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
		switch {
		case name == "":
			return nil, e.WrongSecret(fmt.Sprintf("there is no such key in [%s]; use one of %s", from.Name, strings.ReplaceAll(keys, " ", ", ")))
		case at[name] != nil:
			return nil, e.WrongSecret(fmt.Sprintf("a second one in this section; the first is on line %d", at[name].Pos.Line))
		}
		at[name] = e
		if err := s.set(name, e); err != nil {
			return nil, err
		}
	}
	for _, must := range []string{"BindAddress", "ListenPort", "Target"} {
		if strings.Contains(keys, must) && at[must] == nil {
			return nil, &conf.Error{Pos: from.Pos, Problem: fmt.Sprintf("[%s] has no %s; add one", from.Name, must)}
		}
	}
	if e := at["Password"]; e != nil && s.Kind == Socks5 && s.Username == "" && s.Password != "" {
		return nil, e.WrongSecret("there is no Username, and SOCKS5 has no password without; add one") // RFC 1929 §2
	}
	if (s.CertFile == "") != (s.KeyFile == "") {
		return nil, &conf.Error{Pos: from.Pos, Problem: "CertFile and KeyFile belong together; add the other one"}
	}
	return s, nil
}

// set takes one entry of a section.
func (s *Section) set(key string, e *conf.Entry) error {
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
			s.Username = Secret(e.Value)
			if s.Kind == HTTP && strings.Contains(e.Value, ":") { // RFC 7617 §2
				return e.WrongSecret("has a ':', which HTTP takes for its end; choose another one")
			}
		} else {
			s.Password = Secret(e.Value)
		}
	case "CertFile":
		s.CertFile = e.Value
	case "KeyFile":
		s.KeyFile = e.Value
	case "ResolveLocally":
		switch strings.ToLower(e.Value) {
		case "true", "yes", "on", "1":
			s.ResolveLocally = true
		case "false", "no", "off", "0":
			s.ResolveLocally = false
		default:
			return e.Wrong("use true or false")
		}
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
