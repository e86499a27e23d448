package engine

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"sync/atomic"

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
	stateMu     sync.Mutex // guards Peer.Keypairs, Staged, Flushing, Removed, and the cold half of Timers

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
	edit := e.allowed.Begin()
	for _, p := range removed {
		delete(e.peers, p.Public)
		for _, prefix := range p.AllowedIPs {
			edit.Delete(prefix, p)
		}
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
	p.handshakeMu.Lock()
	defer p.handshakeMu.Unlock()
	e.erase(p)
	p.Handshake.Forget()
	p.stateMu.Lock()
	p.Timers.Stop()
	p.lastHandshakeSent.Store(0)
	why := packet.DropDown
	if p.Removed {
		why = packet.DropNoPeer
		p.Handshake.SetPreshared(nil)
	}
	e.drops.Add(why, p.Staged.Clear())
	p.Waiting.Store(p.Flushing)
	p.stateMu.Unlock()
	e.wheel.Remove(&p.timer)
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

// newIndex publishes an entry under a random index. Whitepaper §5.4.2.
func (e *Engine) newIndex(entry *indexEntry) uint32 {
	e.indicesMu.Lock()
	defer e.indicesMu.Unlock()
	return e.indices.Insert(entry, func() uint32 {
		var b [4]byte
		rand.Read(b[:])
		return binary.LittleEndian.Uint32(b[:])
	})
}

// deleteIndex deletes an index if it is p's.
func (e *Engine) deleteIndex(i uint32, p *Peer) {
	e.indicesMu.Lock()
	defer e.indicesMu.Unlock()
	if entry := e.indices.Lookup(i); entry != nil && entry.peer == p {
		e.indices.Delete(i, entry)
	}
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
