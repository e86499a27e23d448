// Package socks5 reads and writes the messages of SOCKS5: RFC 1928, and user names with passwords: RFC 1929.
//
// It knows messages only: what is served, to which clients and for how long, the caller decides. The readers read a message
// to its last byte and not one further, so that what follows stays in the connection. Nothing here is shared or kept.
//
// Limits: those of lengths of one byte, so that a message has at most 513 bytes.
package socks5

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
)

// Versions, methods, commands, types of addresses and replies.
const (
	Version = 5

	MethodNone  = 0x00 // RFC 1928 §3
	MethodLogin = 0x02
	NoMethod    = 0xff

	Connect   = 1 // RFC 1928 §4
	Associate = 3

	addrIPv4 = 1 // RFC 1928 §5
	addrName = 3
	addrIPv6 = 4

	Succeeded          = 0 // RFC 1928 §6
	Failure            = 1
	NetworkUnreachable = 3
	HostUnreachable    = 4
	Refused            = 5
	Expired            = 6
	CommandUnknown     = 7
	AddressUnknown     = 8

	LoginVersion = 1 // RFC 1929 §2
)

// What may be wrong with a message.
var (
	ErrVersion     = errors.New("not SOCKS5")
	ErrVersion4    = fmt.Errorf("SOCKS4: %w", ErrVersion)
	ErrAddressType = errors.New("unknown address type")
	ErrName        = errors.New("not a host name")
	ErrFragment    = errors.New("fragmented datagram")
)

// Rejected4 is what a client of SOCKS4 is answered: request rejected or failed, with an address that means nothing. SOCKS4,
// "CONNECT".
var Rejected4 = []byte{0, 91, 0, 0, 0, 0, 0, 0}

// ReadMethods reads the methods a client offers. RFC 1928 §3. Nothing is read beyond the message.
func ReadMethods(r io.Reader) ([]byte, error) {
	var b [2 + 255]byte
	if _, err := io.ReadFull(r, b[:2]); err != nil {
		return nil, err
	}
	switch b[0] {
	case Version:
	case 4:
		return nil, ErrVersion4
	default:
		return nil, ErrVersion
	}
	methods := b[2 : 2+int(b[1])]
	_, err := io.ReadFull(r, methods)
	return methods, err
}

// ReadLogin reads a user name and a password. RFC 1929 §2.
func ReadLogin(r io.Reader) (user, password string, err error) {
	var b [255]byte
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return "", "", err
	}
	if b[0] != LoginVersion {
		return "", "", ErrVersion
	}
	for _, to := range []*string{&user, &password} {
		if _, err := io.ReadFull(r, b[:1]); err != nil {
			return "", "", err
		}
		text := b[:b[0]]
		if _, err := io.ReadFull(r, text); err != nil {
			return "", "", err
		}
		*to = string(text)
	}
	return user, password, nil
}

// ReadRequest reads a request. RFC 1928 §4.
func ReadRequest(r io.Reader) (cmd byte, address string, err error) {
	var b [4 + 1 + 255 + 2]byte
	if _, err := io.ReadFull(r, b[:5]); err != nil {
		return 0, "", err
	}
	if b[0] != Version {
		return 0, "", ErrVersion
	}
	n := addressSize(b[3], b[4])
	if n == 0 {
		return 0, "", ErrAddressType
	}
	if _, err := io.ReadFull(r, b[5:3+n]); err != nil {
		return 0, "", err
	}
	address, _, err = parseAddress(b[3 : 3+n])
	return b[1], address, err
}

// addressSize returns how long an address is with its type and port, given its first two bytes; 0 for an unknown type.
func addressSize(typ, first byte) int {
	switch typ {
	case addrIPv4:
		return 1 + 4 + 2
	case addrIPv6:
		return 1 + 16 + 2
	case addrName:
		return 1 + 1 + int(first) + 2
	}
	return 0
}

// parseAddress reads an address as host:port, and returns what follows it. RFC 1928 §5.
func parseAddress(b []byte) (address string, rest []byte, err error) {
	if len(b) < 2 {
		return "", nil, io.ErrUnexpectedEOF
	}
	n := addressSize(b[0], b[1])
	if n == 0 {
		return "", nil, ErrAddressType
	}
	if len(b) < n {
		return "", nil, io.ErrUnexpectedEOF
	}
	host := ""
	if b[0] == addrName {
		if host = string(b[2 : n-2]); !IsHost(host) {
			return "", nil, ErrName
		}
	} else {
		a, _ := netip.AddrFromSlice(b[1 : n-2])
		host = a.Unmap().String()
	}
	port := binary.BigEndian.Uint16(b[n-2:])
	return net.JoinHostPort(host, strconv.Itoa(int(port))), b[n:], nil
}

// HostPort returns where a host is that may have a port of its own, as in a URL. It may be looked up, or is an address.
func HostPort(host, port string) (string, error) {
	if h, p, err := net.SplitHostPort(host); err == nil {
		host, port = h, p
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if _, bad := netip.ParseAddr(host); err != nil || n == 0 || bad != nil && !IsHost(host) {
		return "", errors.New("not a host and a port")
	}
	return net.JoinHostPort(host, port), nil
}

// IsHost reports whether s may be looked up: it is not empty, and has nothing in it that is not to be printed, nor what
// would end a host in an address or a URL.
func IsHost(s string) bool {
	return s != "" && len(s) <= 255 && strings.IndexFunc(s, func(r rune) bool {
		return r <= ' ' || r == 0x7f || r == '/' || r == '@' || r == '%' || r == '[' || r == ']' || r == 0xfffd
	}) < 0
}

// AppendReply appends a reply. RFC 1928 §6.
func AppendReply(b []byte, code byte, bound netip.AddrPort) []byte {
	return appendAddress(append(b, Version, code, 0), bound)
}

// appendAddress appends an address with its type and port; the zero AddrPort is 0.0.0.0:0.
func appendAddress(b []byte, ap netip.AddrPort) []byte {
	switch a := ap.Addr().Unmap(); {
	case !a.IsValid():
		b = append(b, addrIPv4, 0, 0, 0, 0)
	case a.Is4():
		b = append(append(b, addrIPv4), a.AsSlice()...)
	default:
		b = append(append(b, addrIPv6), a.AsSlice()...)
	}
	return binary.BigEndian.AppendUint16(b, ap.Port())
}

// ParseDatagram reads the header of a client's datagram. RFC 1928 §7.
func ParseDatagram(b []byte) (address string, data []byte, err error) {
	if len(b) < 3 {
		return "", nil, io.ErrUnexpectedEOF
	}
	if b[2] != 0 {
		return "", nil, ErrFragment // §7: an implementation without reassembly must drop them
	}
	return parseAddress(b[3:])
}

// AppendHeader appends the header of a datagram that came from an address. RFC 1928 §7.
func AppendHeader(b []byte, from netip.AddrPort) []byte {
	return appendAddress(append(b, 0, 0, 0), from)
}

// ReplyOf returns the reply for the reason why a target wasn't reached. A user-space stack has no errnos, so the texts of its
// errors count too.
func ReplyOf(err error) byte {
	var dns *net.DNSError
	text := err.Error()
	switch {
	case errors.As(err, &dns):
		return HostUnreachable
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT), IsTimeout(err):
		return Expired
	case errors.Is(err, syscall.ECONNREFUSED), strings.Contains(text, "refused"):
		return Refused
	case errors.Is(err, syscall.ENETUNREACH), strings.Contains(text, "network is unreachable"):
		return NetworkUnreachable
	case errors.Is(err, syscall.EHOSTUNREACH), strings.Contains(text, "unreachable"), strings.Contains(text, "no route"):
		return HostUnreachable
	}
	return Failure
}

// IsTimeout reports whether an error is a time-out.
func IsTimeout(err error) bool {
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout()
}
