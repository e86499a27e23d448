package text

import (
	"encoding/hex"
	"net/netip"
	"time"

	"throughline/internal/wire"
	"throughline/wgtypes"
)

// What is wrong with a value.
const (
	badKey      = "not a key (64 hexadecimal digits)"
	badPort     = "not a port (0 to 65535)"
	badMark     = "not a mark (0 to 4294967295, or hexadecimal behind 0x)"
	badTrue     = `not "true"`
	badEndpoint = "not an endpoint (address:port or [IPv6 address]:port, and no name)"
	badInterval = "not an interval (0 to 65535 seconds)"
	badAllowed  = "not a prefix (address/length)"
	badVersion  = "not a supported protocol version (1)"
	badNumber   = "not a number, or too large"
)

// setKey reads a key in hexadecimal into k and wipes the text. It reports whether it was one.
func setKey(k *[wire.KeySize]byte, text []byte) bool {
	ok := len(text) == 2*len(k)
	if ok {
		_, err := hex.Decode(k[:], text)
		ok = err == nil
	}
	clear(text)
	return ok
}

// parseUint reads decimal digits, nothing else, up to limit.
func parseUint(text []byte, limit uint64) (v uint64, ok bool) {
	for _, c := range text {
		d := uint64(c - '0')
		if c < '0' || c > '9' || v > (limit-d)/10 || d > limit {
			return 0, false
		}
		v = v*10 + d
	}
	return v, len(text) > 0
}

// parseMark reads a number of 32 bits, decimal or, as users of wg(8) write it, hexadecimal after 0x.
func parseMark(text []byte) (uint32, bool) {
	if len(text) <= 2 || text[0] != '0' || text[1]|0x20 != 'x' {
		v, ok := parseUint(text, 1<<32-1)
		return uint32(v), ok
	}
	var b [4]byte
	digits := text[2:]
	for len(digits) > 8 && digits[0] == '0' {
		digits = digits[1:]
	}
	padded := []byte("00000000")
	if len(digits) > len(padded) {
		return 0, false
	}
	copy(padded[len(padded)-len(digits):], digits)
	_, err := hex.Decode(b[:], padded)
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]), err == nil
}

// parseInterval reads the seconds of a keepalive interval.
func parseInterval(text []byte) (time.Duration, bool) {
	v, ok := parseUint(text, 65535)
	return time.Duration(v) * time.Second, ok
}

// parseEndpoint reads an address and port. Names are refused: the client resolves them. Port 0 is accepted here, as datagrams
// can come from it; ReadConfig refuses it.
func parseEndpoint(text []byte) (netip.AddrPort, bool) {
	ap, err := netip.ParseAddrPort(string(text))
	if err != nil || !zoneOK(ap.Addr().Zone()) {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), true
}

// zoneOK reports whether zone can be written in a line: printable ASCII without delimiters, no longer than an interface's
// name.
func zoneOK(zone string) bool {
	if len(zone) > maxZone {
		return false
	}
	for _, c := range []byte(zone) {
		if c <= ' ' || c >= 0x7f || c == '%' || c == ']' || c == '/' {
			return false
		}
	}
	return true
}

// parsePrefix reads a prefix and masks it. An address without a length is refused: the protocol has none, and whether
// it stands for a host or for a classful net is a guess.
func parsePrefix(text []byte) (netip.Prefix, bool) {
	if p, ok := parsePrefix4(text); ok {
		return p, true
	}
	p, err := netip.ParsePrefix(string(text))
	return wgtypes.CanonicalPrefix(p), err == nil
}

// parsePrefix4 reads an IPv4 prefix as netip does, without copying the text. It doesn't read every prefix that netip does.
func parsePrefix4(text []byte) (netip.Prefix, bool) {
	var b [4]byte
	i := 0
	for n := range b {
		v, end := 0, i
		for end < len(text) && end < i+3 && text[end] >= '0' && text[end] <= '9' {
			v = v*10 + int(text[end]-'0')
			end++
		}
		if end == i || v > 255 || text[i] == '0' && end > i+1 {
			return netip.Prefix{}, false
		}
		if want := ".../"[n]; end == len(text) || text[end] != want {
			return netip.Prefix{}, false
		}
		b[n], i = byte(v), end+1
	}
	if len(text) == i || len(text) > i+2 || text[i] == '0' && len(text) > i+1 {
		return netip.Prefix{}, false
	}
	bits, ok := parseUint(text[i:], 32)
	if !ok {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(netip.AddrFrom4(b), int(bits)).Masked(), true
}
