package engine

import (
	"maps"

	"throughline/packet"
	"throughline/tun"
	"throughline/udp"
	"throughline/wgtypes"
)

// Status returns what the engine is and did, its private key included.
func (e *Engine) Status() wgtypes.Status {
	e.configMu.RLock()
	defer e.configMu.RUnlock()
	s := wgtypes.Status{
		ListenPort: e.port, Mark: e.mark, CipherImplementation: e.cipher.String(), Drops: make(map[packet.Drop]uint64),
		Offloads: e.offloads(), Peers: make([]wgtypes.PeerStatus, 0, len(e.order)),
	}
	if local := e.identity.Load(); local != nil {
		s.PrivateKey, s.PublicKey = local.static.Private(), local.static.Public()
	}
	for why := range e.drops {
		if n := e.drops[why].Load(); n > 0 {
			s.Drops[packet.Drop(why)] = n
		}
	}
	for _, p := range e.order {
		s.Peers = append(s.Peers, p.status())
	}
	return s
}

// offloads returns the states of the offloads at both ends.
func (e *Engine) offloads() packet.OffloadStates {
	states := make(packet.OffloadStates)
	if o, ok := e.device.(tun.Offloader); ok {
		maps.Copy(states, o.Offloads())
	}
	if s := e.sockets.Load(); s != nil {
		if o, ok := s.conn.(udp.Offloader); ok {
			maps.Copy(states, o.Offloads())
		}
	}
	return states
}

// status returns what the peer is and did. configMu is held.
func (p *Peer) status() wgtypes.PeerStatus {
	p.handshakeMu.Lock()
	defer p.handshakeMu.Unlock()
	return p.Peer.Status()
}
