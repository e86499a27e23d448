package engine

import (
	"fmt"
	"net"
	"net/netip"

	"throughline/internal/allowedips"
	"throughline/internal/loadguard"
	"throughline/internal/noise"
	"throughline/internal/wire"
	"throughline/packet"
	"throughline/wgtypes"
)

// Configure applies a change, whole or not at all: what can fail is done first, and what follows can't. It keeps no
// reference to change.
func (e *Engine) Configure(change *wgtypes.Config) error {
	canonical, err := change.Canonical()
	if err != nil {
		return err
	}
	defer canonical.PrivateKey.Wipe() // a copy
	c := &canonical
	e.configMu.Lock()
	defer e.configMu.Unlock()
	if e.closed {
		return net.ErrClosed
	}
	if n := len(e.order) + len(c.Peers); n > wire.MaxPeers && e.countAfter(c) > wire.MaxPeers {
		return fmt.Errorf("more than %d peers", wire.MaxPeers)
	}
	local, err := e.newIdentity(c.PrivateKey)
	if err != nil {
		return err
	}
	if err := e.rebindSockets(c.ListenPort, c.Mark); err != nil {
		if local != nil {
			local.static.Wipe()
		}
		return err
	}

	if local != nil {
		e.setIdentity(local)
	}
	u := update{e: e, allowed: e.allowed.BeginLists(prefixesOf)}
	u.apply(c)
	return nil
}

// countAfter returns how many peers there would be after the change c.
func (e *Engine) countAfter(c *wgtypes.Config) int {
	n, seen := len(e.order), make(map[wgtypes.PublicKey]bool, len(c.Peers))
	if c.ReplacePeers {
		n = 0
	}
	for i := range c.Peers {
		pc := &c.Peers[i]
		if _, there := e.peers[pc.PublicKey]; !pc.Remove && !seen[pc.PublicKey] && (c.ReplacePeers || !there) {
			n++
		}
		seen[pc.PublicKey] = true
	}
	return n
}

// newIdentity makes the identity of a private key; nil when it isn't to change.
func (e *Engine) newIdentity(private *wgtypes.PrivateKey) (*identity, error) {
	if private == nil {
		return nil, nil
	}
	if old := e.identity.Load(); old != nil && old.static.Private() == *private || old == nil && private.IsZero() {
		return nil, nil
	}
	if private.IsZero() {
		return new(identity), nil
	}
	static, err := noise.NewIdentity(private)
	if err != nil {
		return nil, err
	}
	return &identity{static: static, guard: loadguard.New(static.Public())}, nil
}

// rebindSockets applies port and mark. New sockets are open before the old ones close, so that a failure changes nothing.
func (e *Engine) rebindSockets(port *uint16, mark *uint32) error {
	wantPort, wantMark := e.port, e.mark
	if port != nil {
		wantPort = *port
	}
	if mark != nil {
		wantMark = *mark
	}
	if old := e.sockets.Load(); old == nil {
		if port != nil && e.wantUp { // Up failed before
			fresh, err := e.listen(wantPort, wantMark)
			if err != nil {
				return err
			}
			e.bringUp(fresh)
			wantPort = e.port
		}
	} else {
		switch {
		case port != nil && *port != old.conn.Port():
			fresh, err := e.listen(wantPort, wantMark)
			if err != nil {
				return err
			}
			e.start(fresh)
			e.stop(old)
			wantPort = fresh.conn.Port()
			e.clearSources()
		case wantMark != e.mark:
			if err := old.conn.SetMark(wantMark); err != nil {
				return err
			}
			e.clearSources()
		}
	}
	e.port, e.mark = wantPort, wantMark
	return nil
}

// clearSources forgets each peer's source, the local address that it is sent to from: other sockets, or another mark, may
// need another. configMu is held.
func (e *Engine) clearSources() {
	for _, p := range e.order {
		p.ClearSource(p.Endpoint())
	}
}

// setIdentity changes the identity. Every session and handshake belongs to the old one: they end, and peers with a
// persistent keepalive get a new handshake at once.
func (e *Engine) setIdentity(local *identity) {
	old := e.identity.Load()
	if local.static == nil {
		local = nil
	}
	e.identity.Store(local)
	if old != nil {
		old.static.Wipe()
	}
	for _, p := range e.order {
		e.stopPeer(p)
	}
	if local == nil {
		return
	}
	if p := e.peers[local.static.Public()]; p != nil {
		e.removePeers([]*Peer{p}) // a device isn't its own peer
	}
	for _, p := range e.order {
		e.startKeepalive(p)
	}
}

// startKeepalive starts the persistent keepalive of a peer that has one: it sets the timer, and asks for a keepalive at
// once. configMu is held.
func (e *Engine) startKeepalive(p *Peer) {
	if !e.up || p.Keepalive == 0 {
		return
	}
	p.stateMu.Lock()
	due := p.Timers.SetPersistentKeepalive(e.clock(), p.Keepalive)
	p.stateMu.Unlock()
	e.wheel.Arm(&p.timer, due)
	e.work.Add(&p.work, wantKeepalive)
}

// An update is a change being applied, as far as that can't fail. The packet path sees its allowed IPs change at once.
type update struct {
	e       *Engine
	allowed *allowedips.ListEdit[*Peer]
}

func prefixesOf(p *Peer) *[]netip.Prefix { return &p.AllowedIPs }

func (u *update) apply(c *wgtypes.Config) {
	e := u.e
	var removed []*Peer
	remove := func(p *Peer) {
		delete(e.peers, p.Public)
		u.allowed.DeleteAll(p)
		removed = append(removed, p)
	}
	if c.ReplacePeers {
		named := make(map[wgtypes.PublicKey]bool, len(c.Peers))
		for i := range c.Peers {
			named[c.Peers[i].PublicKey] = true
		}
		for _, p := range e.order {
			if !named[p.Public] {
				remove(p)
			}
		}
	}
	local := e.identity.Load()
	for i := range c.Peers {
		pc := &c.Peers[i]
		if local != nil && pc.PublicKey == local.static.Public() {
			continue // a device isn't its own peer
		}
		p := e.peers[pc.PublicKey]
		switch {
		case pc.Remove:
			if p != nil {
				remove(p)
			}
		case p == nil && pc.UpdateOnly:
		default:
			if p == nil {
				p = e.addPeer(pc.PublicKey)
			}
			u.applyPeer(p, pc)
		}
	}
	u.allowed.Commit()
	e.stopRemoved(removed)
}

// applyPeer applies a change to a peer that is there.
func (u *update) applyPeer(p *Peer, pc *wgtypes.PeerConfig) {
	e := u.e
	if pc.PresharedKey != nil {
		p.handshakeMu.Lock()
		p.Handshake.SetPreshared(pc.PresharedKey) // the next handshake's; the session goes on
		p.handshakeMu.Unlock()
	}
	if pc.Endpoint != nil {
		p.SetEndpoint(&packet.Endpoint{Addr: *pc.Endpoint})
	}
	if pc.ReplaceAllowedIPs {
		u.allowed.DeleteAll(p)
	}
	for _, prefix := range pc.RemoveAllowedIPs {
		u.allowed.Delete(prefix, p)
	}
	for _, prefix := range pc.AllowedIPs {
		u.allowed.Insert(prefix, p)
	}
	if pc.PersistentKeepalive != nil && *pc.PersistentKeepalive != p.Keepalive {
		before := p.Keepalive
		p.Keepalive = *pc.PersistentKeepalive
		if before == 0 {
			e.startKeepalive(p)
		} else if e.up {
			p.stateMu.Lock()
			due := p.Timers.SetPersistentKeepalive(e.clock(), p.Keepalive)
			p.stateMu.Unlock()
			e.wheel.Arm(&p.timer, due)
		}
	}
	if e.up && p.Waiting.Load() {
		e.work.Add(&p.work, wantFlush) // it may have an endpoint now
	}
}
