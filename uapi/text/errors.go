package text

import (
	"errors"
	"strconv"
	"syscall"

	"throughline/wgtypes"
)

// A ParseError is what is wrong with a line of a request or of an answer. It never shows a WireGuard key, nor anything
// that looks like one.
type ParseError struct {
	Line   int           // counted from 1, the first line after the operation
	Key    string        // what comes before the "=", when it is safe to show
	Value  string        // what comes after it, when it is safe to show
	Reason string        // what is wrong
	Errno  syscall.Errno // EPROTO for a line that isn't key=value or is too long, E2BIG beyond a limit, else EINVAL
}

// Error returns a line such as `uapi: line 3: listen_port "70000": not a port (0 to 65535)`.
func (e *ParseError) Error() string {
	b := append([]byte("uapi: line "), strconv.Itoa(e.Line)...)
	b = append(b, ": "...)
	if e.Key != "" {
		b = append(b, e.Key...)
		if e.Value != "" {
			b = append(b, ' ')
			b = strconv.AppendQuote(b, e.Value)
		}
		b = append(b, ": "...)
	}
	return string(append(b, e.Reason...))
}

// Unwrap returns the error number, which is what the client gets.
func (e *ParseError) Unwrap() error { return e.Errno }

// Reasons that are used by more than one file.
const (
	tooManyPeers    = "more than 1048576 peers"
	tooManyPrefixes = "more than 8388608 allowed IPs"

	unknownKey = "not a key of the protocol"
	noEquals   = `no "=" in it`
	longLine   = "a line longer than 4096 bytes"
)

// protocolError is the error of a line that isn't key=value.
func protocolError(line int, reason string) *ParseError {
	return &ParseError{Line: line, Reason: reason, Errno: syscall.EPROTO}
}

// lineError is the error of a line whose key or value is wrong.
func lineError(line int, key, value []byte, reason string) *ParseError {
	e := &ParseError{Line: line, Reason: reason, Errno: syscall.EINVAL}
	if reason == tooManyPeers || reason == tooManyPrefixes {
		e.Key, e.Errno = string(key), syscall.E2BIG
		return e
	}
	if !isWord(key) {
		return e // it may be a secret pasted by mistake, and so may the value
	}
	e.Key = string(key)
	if !isSecret(key) && !wgtypes.MayBeKey(value) {
		e.Value = string(value[:min(len(value), 64)])
	}
	return e
}

// isWord reports whether s could be the name of a key: too short for a secret, and of no characters but lower-case letters
// and '_'.
func isWord(s []byte) bool {
	if len(s) == 0 || len(s) > 32 {
		return false
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && c != '_' {
			return false
		}
	}
	return true
}

// isSecret reports whether the value of key must not be shown. An unknown key may be a secret one misspelt.
func isSecret(key []byte) bool {
	switch string(key) {
	case "listen_port", "fwmark", "replace_peers", "remove", "update_only", "endpoint", "persistent_keepalive_interval",
		"replace_allowed_ips", "allowed_ip", "protocol_version", "last_handshake_time_sec", "last_handshake_time_nsec",
		"tx_bytes", "rx_bytes", "errno":
		return false
	}
	return true
}

// errnoOf returns the error number for the client: the one err wraps, else EINVAL.
func errnoOf(err error) syscall.Errno {
	if n, ok := errors.AsType[syscall.Errno](err); ok && n != 0 {
		return n
	}
	return syscall.EINVAL
}
