package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"throughline/proxy/internal/login"
)

// Defaults. The idle time-outs are not those of a zero Section, which has none: they are what a reader of files gives to
// sections that don't set one.
const (
	DefaultConnections = 1024            // of Section.MaxConnections
	DefaultInterval    = 5 * time.Second // of Config.CheckAliveInterval
	DefaultIdleTCP     = 2 * time.Hour   // RFC 5382 §5 REQ-5 asks of a NAT for a little more, without keepalives
	DefaultIdleUDP     = 2 * time.Minute // RFC 4787 §4.3 REQ-5
)

// A Kind is what a section does.
type Kind int

// The kinds of sections. "Client" tunnels listen on the host and connect through the tunnel, "server" tunnels listen in
// the tunnel and connect from the host.
const (
	TCPClientTunnel Kind = iota
	TCPServerTunnel
	STDIOTunnel // connects Stdin and Stdout to a target through the tunnel
	Socks5      // a SOCKS5 proxy on the host, with UDP: RFC 1928, RFC 1929
	HTTP        // an HTTP proxy on the host, with CONNECT
	UDPClientTunnel
	UDPServerTunnel
)

var kindNames = [...]string{"TCPClientTunnel", "TCPServerTunnel", "STDIOTunnel", "Socks5", "HTTP", "UDPClientTunnel", "UDPServerTunnel"}

// String returns the kind's name.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return kindNames[k]
}

func (k Kind) udp() bool { return k == UDPClientTunnel || k == UDPServerTunnel }

// A Secret is a user name or a password. Formatted with any verb, in JSON and in slog it shows "(hidden)".
type Secret = login.Secret

// A Section is one proxy or forwarded port.
type Section struct {
	Kind Kind
	Name string // in errors, logs and metrics; empty stands for the kind's name
	At   string // where it is described, like "proxy.conf:3:1": errors begin with it. May be empty

	BindAddress string // host:port where it listens; an empty host stands for all addresses, port 0 for a free one
	Target      string // host:port where the tunnels connect to

	Username Secret // of the proxies, at most 255 bytes; without both, no login is asked for
	Password Secret
	CertFile string // with KeyFile, in PEM: the HTTP proxy speaks TLS. Both are read by Run
	KeyFile  string

	ResolveLocally bool          // the host resolves names, not the network of the targets
	MaxConnections int           // connections or UDP sessions at a time, of one source of datagrams half; 0 stands for DefaultConnections
	IdleTimeout    time.Duration // how long nothing may move; 0: for ever
}

// name returns how the section is called.
func (s *Section) name() string {
	if s.Name == "" {
		return s.Kind.String()
	}
	return s.Name
}

// errorf returns an error that begins with where the section is described, and its name.
func (s *Section) errorf(format string, args ...any) error {
	at := s.At
	if at == "" {
		at = "proxy"
	}
	return fmt.Errorf("%s: [%s] %w", at, s.name(), fmt.Errorf(format, args...))
}

// Certificate reads CertFile and KeyFile.
func (s *Section) Certificate() (tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
	if err != nil {
		err = s.errorf("CertFile and KeyFile: %w", err)
	}
	return cert, err
}

// A Config is what a proxy serves. It must not be changed while a proxy uses it.
type Config struct {
	Sections           []Section
	CheckAlive         []netip.Addr  // pinged through the tunnel
	CheckAliveInterval time.Duration // 0 stands for DefaultInterval
	PreferIPv4         bool          // of a name with addresses of both families, which are tried first

	// Stdin and Stdout are those of the STDIOTunnel. They are closed when it ends, if they can be; Run doesn't wait
	// for a Read of Stdin that doesn't end when it is closed.
	Stdin  io.Reader
	Stdout io.Writer
}

// Check returns what is wrong with a configuration: all of it, as joined errors, a line for each. It opens no file and
// resolves no name. [Proxy.Run] calls it, so that a program needs to only if it wants to know earlier.
func (c *Config) Check() error {
	var errs []error
	stdio := false
	for i := range c.Sections {
		s := &c.Sections[i]
		errs = append(errs, s.check()...)
		if s.Kind != STDIOTunnel {
			continue
		}
		if stdio {
			errs = append(errs, s.errorf("a second one; there is only one standard input, so keep one"))
		} else if c.Stdin == nil || c.Stdout == nil {
			errs = append(errs, s.errorf("there is no standard input and output to connect; set Stdin and Stdout"))
		}
		stdio = true
	}
	for _, a := range c.CheckAlive {
		if !a.IsValid() {
			errs = append(errs, errors.New("proxy: CheckAlive has an address that isn't valid"))
		}
	}
	if c.CheckAliveInterval < 0 {
		errs = append(errs, fmt.Errorf("proxy: CheckAliveInterval %v: less than 0", c.CheckAliveInterval))
	}
	return errors.Join(errs...)
}

func (s *Section) check() (errs []error) {
	wrong := func(format string, args ...any) { errs = append(errs, s.errorf(format, args...)) }
	if s.Kind < 0 || int(s.Kind) >= len(kindNames) {
		wrong("there is no such kind; use one of %s", strings.Join(kindNames[:], ", "))
		return errs
	}
	isProxy := s.Kind == Socks5 || s.Kind == HTTP
	if s.Kind != STDIOTunnel && !isHostPort(s.BindAddress, true) {
		wrong("BindAddress %q: not host:port; use one like 127.0.0.1:1080 or [::1]:1080", s.BindAddress)
	}
	if !isProxy && !isHostPort(s.Target, false) {
		wrong("Target %q: not host:port; use one like 192.0.2.1:80 or [2001:db8::1]:80", s.Target)
	}
	if len(s.Username) > 255 || len(s.Password) > 255 { // RFC 1929 §2
		wrong("Username or Password is longer than 255 bytes; choose a shorter one")
	}
	switch {
	case s.Kind == HTTP && strings.Contains(string(s.Username), ":"): // RFC 7617 §2
		wrong("Username has a ':', which HTTP takes for its end; choose another one")
	case s.Kind == Socks5 && s.Username == "" && s.Password != "": // RFC 1929 §2
		wrong("there is no Username, and SOCKS5 has no password without; set one")
	case !isProxy && (s.Username != "" || s.Password != ""):
		wrong("Username and Password belong to proxies; a tunnel asks for no login")
	}
	switch {
	case (s.CertFile == "") != (s.KeyFile == ""):
		wrong("CertFile and KeyFile belong together; set the other one")
	case s.CertFile != "" && s.Kind != HTTP:
		wrong("CertFile and KeyFile belong to an HTTP proxy; there would be no TLS here")
	}
	if s.MaxConnections < 0 {
		wrong("MaxConnections %d: less than 0", s.MaxConnections)
	}
	if s.IdleTimeout < 0 {
		wrong("IdleTimeout %v: less than 0", s.IdleTimeout)
	}
	return errs
}

// isHostPort reports whether s is host:port; with listen, the host may be empty and the port 0.
func isHostPort(s string, listen bool) bool {
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.ParseUint(port, 10, 16)
	return err == nil && perr == nil && (listen || host != "" && n != 0)
}
