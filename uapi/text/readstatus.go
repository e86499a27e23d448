package text

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"throughline/wgtypes"
)

// ReadStatus reads the answer to a get request up to and including the empty line that ends it. A key that
// the protocol doesn't have is an error. The public key of the device is computed from the private key.
//
// An answer whose errno isn't 0 gives an error that wraps a [syscall.Errno].
func ReadStatus(r *bufio.Reader) (wgtypes.Status, error) {
	s := statusReader{lines: lines{r: r}, maxPeers: maxPeers, maxPrefixes: maxPrefixes}
	st, err := s.read()
	if err != nil {
		s.st.Wipe()
	}
	return st, err
}

func (s *statusReader) read() (wgtypes.Status, error) {
	for {
		line, err := s.lines.next()
		switch {
		case err == errLongLine:
			return wgtypes.Status{}, protocolError(s.lines.n, longLine)
		case err == io.EOF:
			err = io.ErrUnexpectedEOF
			fallthrough
		case err != nil:
			return wgtypes.Status{}, fmt.Errorf("uapi: line %d: %w", s.lines.n, err)
		}
		if len(line) == 0 {
			break
		}
		err = s.line(line)
		clear(line)
		if err != nil {
			return wgtypes.Status{}, err
		}
	}
	switch {
	case !s.ended:
		return wgtypes.Status{}, protocolError(s.lines.n, "the answer ends without errno")
	case s.errno != 0:
		return wgtypes.Status{}, fmt.Errorf("uapi: get: %w", s.errno)
	}
	s.finishPeer()
	s.st.PublicKey = s.st.PrivateKey.Public()
	return s.st, nil
}

// A statusReader makes a Status of lines.
type statusReader struct {
	lines                 lines
	st                    wgtypes.Status
	maxPeers, maxPrefixes int

	seen     uint           // a bit for each key seen since the answer's or the peer's beginning
	prefixes int            // allowed IPs in the answer so far
	list     []netip.Prefix // the allowed IPs of the last peer, until it is finished
	lists    prefixArena
	sec      int64 // of its last handshake, Unix time
	nsec     int64
	ended    bool // the line errno was there
	errno    syscall.Errno
}

// The keys that may come once in an answer or for each of its peers, as bits of seen.
const (
	seenPrivateKey = 1 << iota
	seenListenPort
	seenMark
	seenPresharedKey
	seenVersion
	seenEndpoint
	seenSec
	seenNsec
	seenTx
	seenRx
	seenInterval
)

// once reports whether a key comes for the first time.
func (s *statusReader) once(bit uint) bool {
	first := s.seen&bit == 0
	s.seen |= bit
	return first
}

const twice = "it comes twice"

func (s *statusReader) line(line []byte) error {
	key, value, ok := cut(line)
	if !ok {
		return protocolError(s.lines.n, noEquals)
	}
	if s.ended {
		return protocolError(s.lines.n, "it comes after errno")
	}
	var reason string
	switch k := string(key); {
	case k == "errno":
		reason = s.end(value)
	case k == "public_key":
		reason = s.peer(value)
	case len(s.st.Peers) == 0:
		reason = s.deviceLine(k, value)
	default:
		reason = s.peerLine(k, value)
	}
	if reason != "" {
		return lineError(s.lines.n, key, value, reason)
	}
	return nil
}

// end reads the errno. Errors come as positive numbers, as the protocol's description has them, and as negative ones, as
// wg(8) reads them from the answer to a set request.
func (s *statusReader) end(value []byte) string {
	n, ok := parseErrno(value)
	if !ok {
		return badNumber
	}
	s.ended, s.errno = true, n
	return ""
}

func (s *statusReader) peer(value []byte) string {
	var k wgtypes.PublicKey
	if !setKey((*[32]byte)(&k), value) {
		return badKey
	}
	if len(s.st.Peers) >= s.maxPeers {
		return tooManyPeers
	}
	s.finishPeer()
	s.grow()
	s.st.Peers = append(s.st.Peers, wgtypes.PeerStatus{PublicKey: k})
	return ""
}

// grow makes room for a peer, and leaves no preshared keys behind where the peers were before.
func (s *statusReader) grow() {
	if old := s.st.Peers; len(old) == cap(old) {
		s.st.Peers = slices.Grow(old, 1)
		for i := range old {
			old[i].PresharedKey.Wipe()
		}
	}
}

func (s *statusReader) finishPeer() {
	s.seen = 0
	if len(s.st.Peers) == 0 {
		return
	}
	p := &s.st.Peers[len(s.st.Peers)-1]
	if s.sec != 0 || s.nsec != 0 {
		p.LastHandshake = time.Unix(s.sec, s.nsec)
	}
	p.AllowedIPs = s.lists.put(s.list)
	s.list, s.sec, s.nsec = s.list[:0], 0, 0
}

func (s *statusReader) deviceLine(key string, value []byte) string {
	first, ok, reason := false, false, ""
	switch key {
	case "private_key":
		first, reason = s.once(seenPrivateKey), badKey
		ok = setKey((*[32]byte)(&s.st.PrivateKey), value)
	case "listen_port":
		var v uint64
		first, reason = s.once(seenListenPort), badPort
		v, ok = parseUint(value, 65535)
		s.st.ListenPort = uint16(v)
	case "fwmark":
		first, reason = s.once(seenMark), badMark
		s.st.Mark, ok = parseMark(value)
	default:
		return unknownKey
	}
	return verdict(first, ok, reason)
}

func (s *statusReader) peerLine(key string, value []byte) string {
	p := &s.st.Peers[len(s.st.Peers)-1]
	first, ok, reason := false, false, badNumber
	var v uint64
	switch key {
	case "preshared_key":
		first, reason = s.once(seenPresharedKey), badKey
		ok = setKey((*[32]byte)(&p.PresharedKey), value)
	case "protocol_version":
		first, reason = s.once(seenVersion), badVersion
		ok = string(value) == "1"
	case "endpoint":
		first, reason = s.once(seenEndpoint), badEndpoint
		p.Endpoint, ok = parseEndpoint(value)
	case "last_handshake_time_sec":
		first = s.once(seenSec)
		v, ok = parseUint(value, maxSec)
		s.sec = int64(v)
	case "last_handshake_time_nsec":
		first = s.once(seenNsec)
		v, ok = parseUint(value, uint64(time.Second-1))
		s.nsec = int64(v)
	case "tx_bytes":
		first = s.once(seenTx)
		p.TxBytes, ok = parseUint(value, 1<<64-1)
	case "rx_bytes":
		first = s.once(seenRx)
		p.RxBytes, ok = parseUint(value, 1<<64-1)
	case "persistent_keepalive_interval":
		first, reason = s.once(seenInterval), badInterval
		p.PersistentKeepalive, ok = parseInterval(value)
	case "allowed_ip":
		if s.prefixes++; s.prefixes > s.maxPrefixes {
			return tooManyPrefixes
		}
		var prefix netip.Prefix
		first, reason = true, badAllowed
		prefix, ok = parsePrefix(value)
		s.list = append(s.list, prefix)
	default:
		return unknownKey
	}
	return verdict(first, ok, reason)
}

// maxSec is the last second of the year 9999. Much later ones overflow in package time.
const maxSec = 253402300799

// verdict returns what is wrong with a line, given whether its key comes for the first time and its value is good.
func verdict(first, ok bool, reason string) string {
	switch {
	case !first:
		return twice
	case !ok:
		return reason
	}
	return ""
}
