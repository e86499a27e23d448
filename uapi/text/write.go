package text

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"time"

	"throughline/wgtypes"
)

// WriteConfig writes cfg as the lines of a set request, with the empty line that ends it and without the "set=1" that comes
// before. If the protocol can't carry cfg (see [Check]), it returns an error and writes nothing.
//
// In the protocol, replace_peers=true removes all peers first: a peer's nil fields then mean the default (see
// [ReadConfig]).
func WriteConfig(w io.Writer, cfg *wgtypes.Config) error {
	if err := Check(cfg); err != nil {
		return err
	}
	t := newText(w)
	defer t.wipe()
	if cfg.PrivateKey != nil {
		t.key("private_key=", cfg.PrivateKey[:])
	}
	if cfg.ListenPort != nil {
		t.uint("listen_port=", uint64(*cfg.ListenPort))
	}
	if cfg.Mark != nil {
		t.uint("fwmark=", uint64(*cfg.Mark))
	}
	if cfg.ReplacePeers {
		t.line("replace_peers=true\n")
	}
	for i := range cfg.Peers {
		t.peerConfig(&cfg.Peers[i])
	}
	t.line("\n")
	return t.flush()
}

func (t *text) peerConfig(p *wgtypes.PeerConfig) {
	t.key("public_key=", p.PublicKey[:])
	if p.Remove {
		t.line("remove=true\n")
		return
	}
	if p.UpdateOnly {
		t.line("update_only=true\n")
	}
	if p.PresharedKey != nil {
		t.key("preshared_key=", p.PresharedKey[:])
	}
	if p.Endpoint != nil {
		t.endpoint(*p.Endpoint)
	}
	if p.PersistentKeepalive != nil {
		t.uint("persistent_keepalive_interval=", uint64(*p.PersistentKeepalive/time.Second))
	}
	if p.ReplaceAllowedIPs {
		t.line("replace_allowed_ips=true\n")
	}
	for _, prefix := range p.RemoveAllowedIPs {
		t.prefix("allowed_ip=-", prefix)
	}
	for _, prefix := range p.AllowedIPs {
		t.prefix("allowed_ip=", prefix)
	}
}

// Check returns an error if the protocol can't carry cfg: an endpoint without an address or a port, a persistent keepalive
// that isn't a whole number of seconds from 0 to 65535, or an invalid prefix.
func Check(cfg *wgtypes.Config) error {
	for i := range cfg.Peers {
		p := &cfg.Peers[i]
		if p.Remove {
			continue
		}
		if e := p.Endpoint; e != nil && !(e.IsValid() && e.Port() != 0 && zoneOK(e.Addr().Zone())) {
			return fmt.Errorf("uapi: peer %v: endpoint %q: %s", p.PublicKey, e.String(), badEndpoint)
		}
		if d := p.PersistentKeepalive; d != nil && (*d < 0 || *d > 65535*time.Second || *d%time.Second != 0) {
			return fmt.Errorf("uapi: peer %v: persistent keepalive %v: %s", p.PublicKey, *d, badInterval)
		}
		for _, list := range [...][]netip.Prefix{p.RemoveAllowedIPs, p.AllowedIPs} {
			for _, prefix := range list {
				if !prefix.IsValid() {
					return fmt.Errorf("uapi: peer %v: an allowed IP: %s", p.PublicKey, badAllowed)
				}
			}
		}
	}
	return nil
}

// WriteStatus writes st as the answer to a get request: the lines, errno=0 and the empty line that ends it. It writes at
// most 32 KiB at a time, and keeps no more text in memory.
//
// The lines have wireguard-go's order. The device's are left out when their values are zero, as is the endpoint of a peer
// that has none; a peer's other lines are always there.
func WriteStatus(w io.Writer, st *wgtypes.Status) error {
	t := newText(w)
	defer t.wipe()
	if !st.PrivateKey.IsZero() {
		t.key("private_key=", st.PrivateKey[:])
	}
	if st.ListenPort != 0 {
		t.uint("listen_port=", uint64(st.ListenPort))
	}
	if st.Mark != 0 {
		t.uint("fwmark=", uint64(st.Mark))
	}
	for i := range st.Peers {
		t.peerStatus(&st.Peers[i])
		if t.err != nil {
			break
		}
	}
	t.line("errno=0\n\n")
	return t.flush()
}

func (t *text) peerStatus(p *wgtypes.PeerStatus) {
	t.key("public_key=", p.PublicKey[:])
	t.key("preshared_key=", p.PresharedKey[:])
	t.line("protocol_version=1\n")
	if p.Endpoint.IsValid() && zoneOK(p.Endpoint.Addr().Zone()) {
		t.endpoint(p.Endpoint)
	}
	var sec, nsec uint64
	if h := p.LastHandshake; !h.IsZero() && h.Unix() >= 0 { // wg(8) reads no sign
		sec, nsec = uint64(h.Unix()), uint64(h.Nanosecond())
	}
	t.uint("last_handshake_time_sec=", sec)
	t.uint("last_handshake_time_nsec=", nsec)
	t.uint("tx_bytes=", p.TxBytes)
	t.uint("rx_bytes=", p.RxBytes)
	t.uint("persistent_keepalive_interval=", uint64(p.PersistentKeepalive/time.Second))
	for _, prefix := range p.AllowedIPs {
		t.prefix("allowed_ip=", prefix)
	}
}

// textSize is how much text is gathered before it is written, in bytes.
const textSize = 32 << 10

// A text gathers lines and writes them when there are enough. It stops at the first error.
type text struct {
	w   io.Writer
	b   []byte
	err error
}

func newText(w io.Writer) *text { return &text{w: w, b: make([]byte, 0, textSize)} }

// wipe clears the buffer: there were keys in it.
func (t *text) wipe() { clear(t.b[:cap(t.b)]) }

func (t *text) flush() error {
	if t.err == nil && len(t.b) > 0 {
		_, t.err = t.w.Write(t.b)
	}
	t.b = t.b[:0]
	return t.err
}

// reserve makes space in the buffer for a line: a key's name and at most 64 hexadecimal digits, or an address with its zone.
func (t *text) reserve() {
	if cap(t.b)-len(t.b) < 128 {
		t.flush()
	}
}

func (t *text) line(s string) {
	t.reserve()
	t.b = append(t.b, s...)
}

func (t *text) key(name string, k []byte) {
	t.line(name)
	t.b = append(hex.AppendEncode(t.b, k), '\n')
}

func (t *text) uint(name string, v uint64) {
	t.line(name)
	t.b = append(strconv.AppendUint(t.b, v, 10), '\n')
}

func (t *text) endpoint(ap netip.AddrPort) {
	t.line("endpoint=")
	ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	t.b = append(ap.AppendTo(t.b), '\n')
}

func (t *text) prefix(name string, p netip.Prefix) {
	t.line(name)
	t.b = append(p.AppendTo(t.b), '\n')
}
