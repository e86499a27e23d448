package text

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"throughline/wgtypes"
)

func statusText(t testing.TB, st wgtypes.Status) string {
	t.Helper()
	var b bytes.Buffer
	if err := WriteStatus(&b, &st); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWriteStatus(t *testing.T) {
	if got := statusText(t, fullStatus); got != fullStatusText {
		t.Errorf("got\n%s\nwant\n%s", got, fullStatusText)
	}
	if got := statusText(t, wgtypes.Status{}); got != "errno=0\n\n" {
		t.Errorf("an empty device: %q", got)
	}
	odd := wgtypes.Status{Peers: []wgtypes.PeerStatus{{
		Endpoint:      netip.AddrPortFrom(netip.MustParseAddr("fe80::1").WithZone("a\nerrno=1\n"), 1),
		LastHandshake: time.Unix(-5, 0),
	}, {
		Endpoint: netip.MustParseAddrPort("[::ffff:192.0.2.1]:9"),
	}}}
	got := statusText(t, odd)
	if strings.Contains(got, "errno=1") || strings.Contains(got, "fe80") {
		t.Errorf("a zone wrote lines of its own:\n%s", got)
	}
	if !strings.Contains(got, "last_handshake_time_sec=0\n") || strings.Contains(got, "=-") {
		t.Errorf("wg reads no negative numbers:\n%s", got)
	}
	if !strings.Contains(got, "endpoint=192.0.2.1:9\n") {
		t.Errorf("an IPv4 endpoint isn't written as one:\n%s", got)
	}
}

// TestWriteStatusPiecewise has more allowed IPs on one peer than fit into one piece.
func TestWriteStatusPiecewise(t *testing.T) {
	st := fullStatus
	list := make([]netip.Prefix, 10000)
	for i := range list {
		list[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)
	}
	st.Peers = append([]wgtypes.PeerStatus(nil), st.Peers...)
	st.Peers[1].AllowedIPs = list
	var w pieces
	if err := WriteStatus(&w, &st); err != nil {
		t.Fatal(err)
	}
	if w.largest > textSize || w.n < 5 {
		t.Errorf("%d pieces, the largest of %d bytes", w.n, w.largest)
	}
	got, err := readStatus(w.all.String())
	if err != nil || !reflect.DeepEqual(got, st) {
		t.Errorf("it doesn't read back: %v", err)
	}
	w = pieces{failAfter: 2}
	if err := WriteStatus(&w, &st); err != syscall.EPIPE || w.n != 3 {
		t.Errorf("after a failed write: %v, %d writes", err, w.n)
	}
}

// pieces counts writes, and fails after some.
type pieces struct {
	n, largest, failAfter int
	all                   bytes.Buffer
}

func (w *pieces) Write(p []byte) (int, error) {
	w.n++
	w.largest = max(w.largest, len(p))
	if w.failAfter > 0 && w.n > w.failAfter {
		return 0, syscall.EPIPE
	}
	return w.all.Write(p)
}

func TestReadStatus(t *testing.T) {
	got, err := readStatus(fullStatusText)
	if err != nil || !reflect.DeepEqual(got, fullStatus) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, fullStatus)
	}
	for n := range len(fullStatusText) {
		if _, err := readStatus(fullStatusText[:n]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("the first %d bytes of an answer: %v", n, err)
		}
	}
}

func TestReadStatusRefuses(t *testing.T) {
	peer := "public_key=" + hexOf(1) + "\n"
	for _, tc := range []struct{ text, want string }{
		{"", "uapi: line 1: the answer ends without errno"},
		{"listen_port=1\n", "uapi: line 2: the answer ends without errno"},
		{"errno=0\nerrno=0\n", "uapi: line 2: it comes after errno"},
		{"errno=0\n" + peer, "uapi: line 2: it comes after errno"},
		{"errno=\n", "uapi: line 1: errno: not a number, or too large"},
		{"errno=-\n", `uapi: line 1: errno "-": not a number, or too large`},
		{"errno=2147483648\n", `uapi: line 1: errno "2147483648": not a number, or too large`},
		{"errno=1\n", "uapi: get: operation not permitted"},
		{"errno=-1\n", "uapi: get: operation not permitted"},
		{"x\n", `uapi: line 1: no "=" in it`},
		{"x=1\n", "uapi: line 1: x: not a key of the protocol"},
		{"listen_port=1\nlisten_port=1\n", `uapi: line 2: listen_port "1": it comes twice`},
		{"listen_port=65536\n", `uapi: line 1: listen_port "65536": not a port (0 to 65535)`},
		{"private_key=" + hexOf(0x5e)[1:] + "\n", "uapi: line 1: private_key: not a key (64 hexadecimal digits)"},
		{"replace_peers=true\n", `uapi: line 1: replace_peers "true": not a key of the protocol`},
		{"endpoint=1.1.1.1:1\n", `uapi: line 1: endpoint "1.1.1.1:1": not a key of the protocol`},
		{"public_key=" + hexOf(1)[1:] + "\n", "uapi: line 1: public_key: not a key (64 hexadecimal digits)"},
		{peer + "listen_port=1\n", `uapi: line 2: listen_port "1": not a key of the protocol`},
		{peer + "preshared_key=" + hexOf(0x5e)[1:] + "\n", "uapi: line 2: preshared_key: not a key (64 hexadecimal digits)"},
		{peer + "protocol_version=2\n", `uapi: line 2: protocol_version "2": ` + badVersion},
		{peer + "endpoint=localhost:1\n", `uapi: line 2: endpoint "localhost:1": ` + badEndpoint},
		{peer + "endpoint=1.1.1.1:1\nendpoint=1.1.1.1:1\n", `uapi: line 3: endpoint "1.1.1.1:1": it comes twice`},
		{peer + "last_handshake_time_sec=-1\n", `uapi: line 2: last_handshake_time_sec "-1": not a number, or too large`},
		{peer + "last_handshake_time_sec=253402300800\n", `uapi: line 2: last_handshake_time_sec "253402300800": not a number, or too large`},
		{peer + "last_handshake_time_nsec=1000000000\n", `uapi: line 2: last_handshake_time_nsec "1000000000": not a number, or too large`},
		{peer + "rx_bytes=18446744073709551616\n", `uapi: line 2: rx_bytes "18446744073709551616": not a number, or too large`},
		{peer + "tx_bytes=a\n", `uapi: line 2: tx_bytes "a": not a number, or too large`},
		{peer + "persistent_keepalive_interval=65536\n", `uapi: line 2: persistent_keepalive_interval "65536": not an interval (0 to 65535 seconds)`},
		{peer + "allowed_ip=-10.0.0.0/8\n", `uapi: line 2: allowed_ip "-10.0.0.0/8": not a prefix (address/length)`},
		{peer + "remove=true\n", `uapi: line 2: remove "true": not a key of the protocol`},
		{peer + "rx_bytes=" + strings.Repeat("1", maxLine) + "\n", "uapi: line 2: a line longer than 4096 bytes"},
	} {
		st, err := readStatus(tc.text + "\n")
		if err == nil || err.Error() != tc.want || !reflect.DeepEqual(st, wgtypes.Status{}) {
			t.Errorf("%.60q:\n got %v\nwant %s", tc.text, err, tc.want)
		}
	}
}

func TestReadStatusLimits(t *testing.T) {
	for _, n := range []int{2, 3} {
		for line, what := range map[string]string{"public_key=" + hexOf(1) + "\n": tooManyPeers, "allowed_ip=::/0\n": tooManyPrefixes} {
			text := "public_key=" + hexOf(1) + "\n" + strings.Repeat(line, n) + "errno=0\n\n"
			s := statusReader{lines: lines{r: bufio.NewReader(strings.NewReader(text))}, maxPeers: 3, maxPrefixes: 2}
			if _, err := s.read(); (n == 3) != (err != nil) || err != nil && (!strings.Contains(err.Error(), what) || !errors.Is(err, syscall.E2BIG)) {
				t.Errorf("%d times %.10s: %v", n, line, err)
			}
		}
	}
}

func TestStatusThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		st := statusOf(drawConfig(t))
		for i := range st.Peers {
			p := &st.Peers[i]
			p.RxBytes, p.TxBytes = rapid.Uint64().Draw(t, "rx"), rapid.Uint64().Draw(t, "tx")
			if rapid.Bool().Draw(t, "handshake") {
				p.LastHandshake = time.Unix(rapid.Int64Range(0, maxSec).Draw(t, "sec"), rapid.Int64Range(1, 999999999).Draw(t, "nsec"))
			}
		}
		var text bytes.Buffer
		if err := WriteStatus(&text, &st); err != nil {
			t.Fatal(err)
		}
		got, err := ReadStatus(bufio.NewReaderSize(iotest.HalfReader(&text), 100))
		if err != nil || !reflect.DeepEqual(got, st) {
			t.Fatalf("there and back:\n got %+v, %v\nwant %+v", got, err, st)
		}
	})
}

func TestWriteConfigRefuses(t *testing.T) {
	for name, p := range map[string]wgtypes.PeerConfig{
		"no endpoint":          {Endpoint: &netip.AddrPort{}},
		"no port":              {Endpoint: new(netip.MustParseAddrPort("1.1.1.1:0"))},
		"a zone with lines":    {Endpoint: new(netip.AddrPortFrom(netip.MustParseAddr("fe80::1").WithZone("a\nremove=true"), 1))},
		"negative interval":    {PersistentKeepalive: new(-time.Second)},
		"long interval":        {PersistentKeepalive: new(65536 * time.Second)},
		"fraction of a second": {PersistentKeepalive: new(1500 * time.Millisecond)},
		"no prefix":            {AllowedIPs: make([]netip.Prefix, 1)},
		"no prefix to remove":  {RemoveAllowedIPs: make([]netip.Prefix, 1)},
	} {
		var text bytes.Buffer
		err := WriteConfig(&text, &wgtypes.Config{ListenPort: new(uint16(1)), Peers: []wgtypes.PeerConfig{{}, p}})
		if err == nil || text.Len() > 0 {
			t.Errorf("%s: %v, and %q was written", name, err, text.String())
		}
	}
	if got := configText(t, fullConfig); got != fullConfigText {
		t.Errorf("got\n%s\nwant\n%s", got, fullConfigText)
	}
}

func FuzzReadStatus(f *testing.F) {
	f.Add([]byte(fullStatusText))
	f.Add([]byte("errno=0\n\n"))
	f.Add([]byte("public_key=" + hexOf(1) + "\nerrno=-22\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		st, err := ReadStatus(bufio.NewReader(bytes.NewReader(text)))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := WriteStatus(&b, &st); err != nil {
			t.Fatal(err)
		}
		again, err := ReadStatus(bufio.NewReader(&b))
		if err != nil || !reflect.DeepEqual(again, st) {
			t.Fatalf("there and back: %v\n got %+v\nwant %+v", err, again, st)
		}
	})
}
