package engine

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"throughline/internal/noise"
	"throughline/internal/wire"
	"throughline/packet"
	"throughline/tun"
	"throughline/udp"
)

// A PeerStatus is what a peer is and did at one moment.
type PeerStatus struct {
	Public        noise.PublicKey
	Preshared     [wire.KeySize]byte
	Endpoint      netip.AddrPort
	Keepalive     time.Duration
	LastHandshake time.Time
	Rx, Tx        uint64
	AllowedIPs    []netip.Prefix // a copy, unsorted
}

// A Status is what an engine is and did at one moment.
type Status struct {
	Private [wire.KeySize]byte
	Public  noise.PublicKey
	Port    uint16
	Mark    uint32
	Peers   []PeerStatus // in the order they were added
	Drops   [packet.NumDrops]uint64
	Cipher  string

	// Offloads are the states of the TUN's offloads and, while the engine is up, the sockets', as far as those know any.
	Offloads packet.OffloadStates
}

// Status returns what the engine is and did.
func (e *Engine) Status() *Status {
	e.config.RLock()
	defer e.config.RUnlock()
	s := &Status{Port: e.port, Mark: e.mark, Cipher: e.cipher.String(), Peers: make([]PeerStatus, 0, len(e.order)), Offloads: make(packet.OffloadStates)}
	if me := e.self.Load(); me != nil {
		s.Private, s.Public = me.private, me.identity.Public()
	}
	for i := range e.drops {
		s.Drops[i] = e.drops[i].Load()
	}
	if o, ok := e.device.(tun.Offloader); ok {
		maps.Copy(s.Offloads, o.Offloads())
	}
	if l := e.link.Load(); l != nil {
		if o, ok := l.conn.(udp.Offloader); ok {
			maps.Copy(s.Offloads, o.Offloads())
		}
	}
	for _, p := range e.order {
		ps := PeerStatus{
			Public: p.Public, Keepalive: p.Keepalive, LastHandshake: p.LastHandshake(),
			Rx: p.Rx.Load(), Tx: p.Tx.Load(), AllowedIPs: slices.Clone(p.AllowedIPs),
		}
		if to := p.Endpoint(); to != nil {
			ps.Endpoint = to.Addr
		}
		p.handshake.Lock()
		if p.Handshake.Preshared != nil {
			ps.Preshared = *p.Handshake.Preshared
		}
		p.handshake.Unlock()
		s.Peers = append(s.Peers, ps)
	}
	return s
}
