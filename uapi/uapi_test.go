package uapi

import (
	"bufio"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"throughline/uapi/text"
	"throughline/wgtypes"
)

// TestUnsupported checks what systems without wg(8)'s sockets report; here it runs for all of them.
func TestUnsupported(t *testing.T) {
	for system, missing := range map[string]string{"windows": "named pipe", "plan9": "plan9", "js": "Unix sockets"} {
		err := unsupported(system)
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v doesn't wrap errors.ErrUnsupported", system, err)
		}
		if text := err.Error(); !strings.HasPrefix(text, "uapi: ") || !strings.Contains(text, missing) {
			t.Errorf("%s: the error is %q, without %q", system, text, missing)
		}
	}
	if !errors.Is(ErrUnsupported, errors.ErrUnsupported) {
		t.Errorf("%v doesn't wrap errors.ErrUnsupported", ErrUnsupported)
	}
}

// key returns a key of one repeated byte.
func key[K ~[32]byte](b byte) (k K) {
	for i := range k {
		k[i] = b
	}
	return k
}

// hexOf returns what key returns, as the protocol spells it.
func hexOf(b byte) string {
	const digits = "0123456789abcdef"
	return strings.Repeat(string([]byte{digits[b>>4], digits[b&15]}), 32)
}

// parsed returns a configuration and a status from texts that must be right.
func parsed(config, status string) (wgtypes.Config, wgtypes.Status) {
	cfg, err := text.ReadConfig(bufio.NewReader(strings.NewReader(config + "\n")))
	if err != nil {
		panic(err)
	}
	st, err := text.ReadStatus(bufio.NewReader(strings.NewReader(status + "errno=0\n\n")))
	if err != nil {
		panic(err)
	}
	return cfg, st
}

var fullConfig, fullStatus = parsed(
	"private_key="+hexOf(0x11)+"\nlisten_port=51820\nfwmark=51\n"+
		"public_key="+hexOf(0x22)+"\nupdate_only=true\npreshared_key="+hexOf(0x33)+"\nendpoint=192.0.2.1:4500\n"+
		"persistent_keepalive_interval=25\nreplace_allowed_ips=true\nallowed_ip=-10.2.0.0/16\nallowed_ip=10.1.0.0/16\nallowed_ip=::/0\n"+
		"public_key="+hexOf(0x44)+"\nremove=true\n",
	"private_key="+hexOf(0x11)+"\nlisten_port=51820\nfwmark=51\n"+
		"public_key="+hexOf(0x22)+"\npreshared_key="+hexOf(0x33)+"\nprotocol_version=1\nendpoint=192.0.2.1:4500\n"+
		"last_handshake_time_sec=1700000000\nlast_handshake_time_nsec=5\ntx_bytes=148\nrx_bytes=18446744073709551615\n"+
		"persistent_keepalive_interval=25\nallowed_ip=10.1.0.0/16\nallowed_ip=::/0\n"+
		"public_key="+hexOf(0x04)+"\npreshared_key="+hexOf(0)+"\nprotocol_version=1\n",
)

// A model is a device that only holds a configuration. It is a slow and simple implementation of what the comments in
// config.go say.
type model struct {
	mu      sync.Mutex
	st      wgtypes.Status
	configs []wgtypes.Config // as they came, with copies of the keys
	refuse  error
}

func (m *model) Status() wgtypes.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.st
	st.Peers = append([]wgtypes.PeerStatus(nil), st.Peers...)
	return st
}

// setRefuse makes the model refuse every configuration with err, none when it is nil.
func (m *model) setRefuse(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = err
}

func (m *model) Configure(cfg wgtypes.Config) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse != nil {
		return m.refuse
	}
	m.configs = append(m.configs, copied(cfg))
	m.st.Peers = append([]wgtypes.PeerStatus(nil), m.st.Peers...)
	if cfg.PrivateKey != nil {
		m.st.PrivateKey = *cfg.PrivateKey
		m.st.PublicKey = cfg.PrivateKey.Public()
	}
	if cfg.ListenPort != nil {
		m.st.ListenPort = *cfg.ListenPort
	}
	if cfg.Mark != nil {
		m.st.Mark = *cfg.Mark
	}
	if cfg.ReplacePeers {
		named := map[wgtypes.PublicKey]bool{}
		for _, p := range cfg.Peers {
			named[p.PublicKey] = true
		}
		for _, p := range m.st.Peers {
			if !named[p.PublicKey] {
				m.remove(p.PublicKey)
			}
		}
	}
	for _, p := range cfg.Peers {
		m.peer(p)
	}
	return nil
}

func (m *model) peer(c wgtypes.PeerConfig) {
	if c.Remove {
		m.remove(c.PublicKey)
		return
	}
	p := m.find(c.PublicKey)
	if p == nil {
		if c.UpdateOnly {
			return
		}
		p = m.add(c.PublicKey)
	}
	if c.PresharedKey != nil {
		p.PresharedKey = *c.PresharedKey
	}
	if c.Endpoint != nil {
		p.Endpoint = *c.Endpoint
	}
	if c.PersistentKeepalive != nil {
		p.PersistentKeepalive = *c.PersistentKeepalive
	}
	if c.ReplaceAllowedIPs {
		p.AllowedIPs = nil
	}
	for _, prefix := range c.RemoveAllowedIPs {
		p.AllowedIPs = without(p.AllowedIPs, prefix)
	}
	for _, prefix := range c.AllowedIPs {
		m.grant(p, prefix)
	}
}

func (m *model) find(k wgtypes.PublicKey) *wgtypes.PeerStatus {
	for i := range m.st.Peers {
		if m.st.Peers[i].PublicKey == k {
			return &m.st.Peers[i]
		}
	}
	return nil
}

func (m *model) add(k wgtypes.PublicKey) *wgtypes.PeerStatus {
	m.st.Peers = append(m.st.Peers, wgtypes.PeerStatus{PublicKey: k})
	return m.find(k)
}

func (m *model) remove(k wgtypes.PublicKey) {
	var kept []wgtypes.PeerStatus
	for _, p := range m.st.Peers {
		if p.PublicKey != k {
			kept = append(kept, p)
		}
	}
	m.st.Peers = kept
}

func (m *model) grant(p *wgtypes.PeerStatus, prefix netip.Prefix) {
	for i := range m.st.Peers {
		m.st.Peers[i].AllowedIPs = without(m.st.Peers[i].AllowedIPs, prefix)
	}
	p.AllowedIPs = append(p.AllowedIPs, prefix)
}

func without(list []netip.Prefix, prefix netip.Prefix) []netip.Prefix {
	var kept []netip.Prefix
	for _, p := range list {
		if p != prefix {
			kept = append(kept, p)
		}
	}
	return kept
}

// copied returns cfg with keys of its own, for those of a request are wiped.
func copied(cfg wgtypes.Config) wgtypes.Config {
	if cfg.PrivateKey != nil {
		cfg.PrivateKey = new(*cfg.PrivateKey)
	}
	cfg.Peers = append([]wgtypes.PeerConfig(nil), cfg.Peers...)
	for i := range cfg.Peers {
		if k := cfg.Peers[i].PresharedKey; k != nil {
			cfg.Peers[i].PresharedKey = new(*k)
		}
	}
	return cfg
}
