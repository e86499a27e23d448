package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"throughline/proxy/internal/datagram"
	"throughline/proxy/internal/relay"
	"throughline/proxy/internal/socks5"
)

var (
	errLogin  = errors.New("wrong user name or password")
	errMethod = errors.New("the client offers no acceptable authentication method")
)

// handleSocks serves one connection to its end.
func (s *section) handleSocks(l *live, v *client) error {
	c := v.Conn
	c.SetDeadline(time.Now().Add(handshakeTimeout))
	if err := s.negotiate(c); err != nil {
		relay.Linger(c)
		return err
	}
	cmd, address, err := socks5.ReadRequest(c)
	if err != nil {
		if errors.Is(err, socks5.ErrAddressType) {
			c.Write(socks5.AppendReply(nil, socks5.AddressUnknown, netip.AddrPort{}))
		} else if errors.Is(err, socks5.ErrName) {
			c.Write(socks5.AppendReply(nil, socks5.HostUnreachable, netip.AddrPort{}))
		}
		relay.Linger(c)
		return err
	}
	if err := v.serve(); err != nil {
		c.Write(socks5.AppendReply(nil, socks5.Failure, netip.AddrPort{}))
		relay.Linger(c)
		return err
	}
	switch cmd {
	case socks5.Connect:
		target, err := s.dial(l.ctx, l, "tcp", address)
		c.SetDeadline(time.Now().Add(handshakeTimeout)) // dialling took of the time that was the client's
		if err != nil {
			c.Write(socks5.AppendReply(nil, socks5.ReplyOf(err), netip.AddrPort{}))
			relay.Linger(c)
			return err
		}
		defer l.drop(target)
		if _, err := c.Write(socks5.AppendReply(nil, socks5.Succeeded, datagram.AddrPort(target.LocalAddr()))); err != nil {
			return err
		}
		c.SetDeadline(time.Time{})
		return relay.Join(c, target, s.IdleTimeout, &s.toTarget, &s.toClient)
	case socks5.Associate:
		return s.associate(l, c, address)
	}
	c.Write(socks5.AppendReply(nil, socks5.CommandUnknown, netip.AddrPort{}))
	relay.Linger(c)
	return fmt.Errorf("command %d is not supported", cmd)
}

// negotiate selects an authentication method, and checks the client's login if one is asked for. RFC 1928 §3.
func (s *section) negotiate(c io.ReadWriter) error {
	methods, err := socks5.ReadMethods(c)
	if err != nil {
		if errors.Is(err, socks5.ErrVersion4) {
			c.Write(socks5.Rejected4)
		}
		return err
	}
	method := byte(socks5.MethodNone)
	if s.login != nil {
		method = socks5.MethodLogin
	}
	if !slices.Contains(methods, method) {
		c.Write([]byte{socks5.Version, socks5.NoMethod})
		return errMethod
	}
	if _, err := c.Write([]byte{socks5.Version, method}); err != nil || s.login == nil {
		return err
	}
	user, password, err := socks5.ReadLogin(c)
	if err != nil {
		return err
	}
	if !s.login.Matches(user, password) {
		c.Write([]byte{socks5.LoginVersion, 1})
		return errLogin
	}
	_, err = c.Write([]byte{socks5.LoginVersion, 0})
	return err
}
