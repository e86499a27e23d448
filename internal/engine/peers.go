package engine

import (
	"sync"
	"sync/atomic"

	"throughline/internal/mono"
	"throughline/internal/peer"
	"throughline/internal/session"
	"throughline/internal/wheel"
	"throughline/internal/workqueue"
	"throughline/packet"
	"throughline/wgtypes"
)

// A Peer is a peer as the engine holds it: its state, the locks that guard it, and its places in the wheel and in
// the work queue. For the order of the locks see engine.go.
type Peer struct {
	peer.Peer
	id uint64 // unique in this engine, not 0

	handshakeMu sync.Mutex // guards Peer.Handshake
	stateMu     sync.Mutex // guards Peer.Keypairs, Staged, Flushing, Removed, the cold half of Timers, and turn
	turn        mono.Time  // when it may be sent an initiation that waits for that; 0: none waits

	lastHandshakeSent atomic.Int64 // mono.Time when we last sent an initiation or a response; 0: never

	timer wheel.Node[*Peer]     // its place in Engine.wheel
	work  workqueue.Node[*Peer] // its place in Engine.work, and what is wanted there: bits want...
}

// An indexEntry is what a receiver index leads to: a peer, and once the handshake is done the keypair.
type indexEntry struct {
	peer    *Peer
	keypair *session.Keypair // nil while the handshake is pending

	windowMu sync.Mutex // guards the keypair's replay window
}

// lookup returns the peer with this public key, nil if there is none.
func (e *Engine) lookup(public wgtypes.PublicKey) *Peer {
	e.configMu.RLock()
	defer e.configMu.RUnlock()
	return e.peers[public]
}

// addPeer adds a peer that isn't there. configMu is held.
func (e *Engine) addPeer(public wgtypes.PublicKey) *Peer {
	e.lastID++
	p := &Peer{id: e.lastID}
	p.Public = public
	p.timer.Init(p)
	p.work.Init(p)
	e.peers[public] = p
	e.order = append(e.order, p)
	return p
}

// removePeers removes peers. configMu is held.
func (e *Engine) removePeers(removed []*Peer) {
	edit := e.allowed.BeginLists(prefixesOf)
	for _, p := range removed {
		delete(e.peers, p.Public)
		edit.DeleteAll(p)
	}
	edit.Commit()
	e.stopRemoved(removed)
}

// stopRemoved stops peers that were taken out of the tables. configMu is held.
func (e *Engine) stopRemoved(removed []*Peer) {
	if len(removed) == 0 {
		return
	}
	for _, p := range removed {
		p.stateMu.Lock()
		p.Removed = true
		p.stateMu.Unlock()
		e.stopPeer(p)
	}
	kept := make([]*Peer, 0, max(len(e.order)-len(removed), 0))
	for _, p := range e.order {
		if !p.Removed { // written under configMu, which is held
			kept = append(kept, p)
		}
	}
	e.order = kept
}

// stopPeer ends a peer's sessions, handshakes and timers, and drops its staged packets. The cause (another identity, no
// sockets, its removal) was stored before, so no handshake begins or completes between these steps or after them.
func (e *Engine) stopPeer(p *Peer) {
	e.endHandshakes(p)
	p.stateMu.Lock()
	why := packet.DropDown
	if p.Removed {
		why = packet.DropNoPeer
	}
	// The TUN may be up again, and then they are sent if there is a key; if it isn't, look drops them.
	keep := !p.Removed && e.link.Load() == linkUnknown && e.identity.Load() != nil
	if !keep {
		e.clearStaged(p, why)
	}
	p.stateMu.Unlock()
	if keep && p.Waiting.Load() {
		e.wheel.Arm(&p.timer, e.clock().Add(upWithin))
	}
}

// endHandshakes ends a peer's sessions, handshakes and timers, and wipes its preshared key if it was removed.
func (e *Engine) endHandshakes(p *Peer) {
	p.handshakeMu.Lock()
	defer p.handshakeMu.Unlock()
	e.erase(p)
	p.Handshake.Forget()
	p.stateMu.Lock()
	p.Timers.Stop()
	p.turn = 0
	p.lastHandshakeSent.Store(0)
	if p.Removed {
		p.Handshake.SetPreshared(nil)
	}
	p.stateMu.Unlock()
	e.wheel.Remove(&p.timer)
}

// dropStaged drops a peer's staged packets.
func (e *Engine) dropStaged(p *Peer, why packet.Drop) {
	p.stateMu.Lock()
	defer p.stateMu.Unlock()
	e.clearStaged(p, why)
}

// clearStaged is dropStaged with stateMu held.
func (e *Engine) clearStaged(p *Peer, why packet.Drop) {
	e.drops.Add(why, e.staged.Clear(&p.Staged))
	p.Waiting.Store(p.Flushing)
}

// eraseKeys erases a peer's keypairs and pending handshake. Whitepaper §6.3.
func (e *Engine) eraseKeys(p *Peer) {
	p.handshakeMu.Lock()
	defer p.handshakeMu.Unlock()
	e.erase(p)
}

// erase is eraseKeys with handshakeMu held.
func (e *Engine) erase(p *Peer) {
	if index, pending := p.Handshake.Pending(); pending {
		p.Handshake.GiveUp()
		e.deleteIndex(index, p)
	}
	p.stateMu.Lock()
	var retired session.Retired
	p.Keypairs, retired = p.Keypairs.Erased()
	p.Sending.Store(nil)
	p.stateMu.Unlock()
	e.retire(retired, p)
}

// deleteIndex deletes an index if it is p's.
func (e *Engine) deleteIndex(i uint32, p *Peer) {
	e.indices.Delete(i, func(entry *indexEntry) bool { return entry.peer == p })
}

// retire deletes the indices of p's keypairs that were retired, and erases their keys. Whitepaper §6.3.
func (e *Engine) retire(retired session.Retired, p *Peer) {
	for _, kp := range retired {
		if kp != nil {
			e.deleteIndex(kp.LocalIndex, p)
			kp.Wipe()
		}
	}
}
