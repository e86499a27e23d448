package engine

import (
	"throughline/internal/mono"
	"throughline/internal/session"
	"throughline/internal/wire"
	"throughline/packet"
)

// flushLimit is how many packets flush sends before it lets those that the TUN brings be sent beside those that are
// staged.
const flushLimit = 4 * wire.MaxStaged

// flush sends what is staged for a peer, in order, and before anything that the TUN brings meanwhile: while flush runs,
// the packet path stages behind it. Without a session it begins the handshake that one needs.
func (e *Engine) flush(p *Peer) {
	b := e.spare.Get().(*packet.Batch)
	defer e.spare.Put(b)

	p.stateMu.Lock()
	if p.Flushing || p.Removed {
		p.stateMu.Unlock()
		return // the flush under way goes on until nothing is staged
	}
	p.Flushing = true
	needHandshake := false
	for sent := 0; ; sent += len(b.Packets) {
		now := e.clock()
		if sent >= flushLimit {
			// Packets come faster than this sends them, and would have the oldest dropped without end: now they aren't
			// staged any more. A few may overtake others, in their counters and on the wire.
			p.Waiting.Store(false)
		}
		kp, ready := e.unstage(p, b, now)
		if !ready {
			needHandshake = p.Staged.Len() > 0
			break
		}
		p.stateMu.Unlock()
		e.sealAndSend(kp, b)
		e.sentData(p, kp, now, packet.LiveBytes(b.Packets))
		p.stateMu.Lock()
	}
	p.Flushing = false
	p.Waiting.Store(p.Staged.Len() > 0)
	p.stateMu.Unlock()

	if needHandshake {
		e.initiate(p)
	}
}

// unstage moves staged packets into b, as many as it holds, with their counters, and returns the session to send them
// with; false when nothing is staged, or there is no session or endpoint. stateMu is held.
func (e *Engine) unstage(p *Peer, b *packet.Batch, now mono.Time) (*session.Keypair, bool) {
	to := p.Endpoint()
	if to == nil {
		return nil, false
	}
	b.Reset()
	b.MTU = int(e.mtu.Load())
	var kp *session.Keypair
	var counter uint64
	if !e.staged.MoveTo(&p.Staged, b, func(n int) (ok bool) {
		kp, counter, ok = p.Reserve(now, n)
		return ok
	}) {
		return nil, false
	}
	b.SetTrain(counter, *to)
	return kp, true
}

// keepalive sends a keepalive, an empty packet, to a peer, or in its place what is staged. Without a session it begins a
// handshake, whose completion sends one. Whitepaper §6.5.
func (e *Engine) keepalive(p *Peer) {
	if p.Waiting.Load() {
		e.flush(p)
		return
	}
	now, to := e.clock(), p.Endpoint()
	if to == nil {
		return
	}
	kp, counter, ok := p.Reserve(now, 1)
	if !ok {
		e.initiate(p)
		return
	}
	b := e.spare.Get().(*packet.Batch)
	defer e.spare.Put(b)
	b.Reset()
	b.Append(nil)
	b.SetTrain(counter, *to)
	e.sealAndSend(kp, b)
	p.Tx.Add(packet.LiveBytes(b.Packets))
	e.wheel.Arm(&p.timer, p.Timers.AuthenticatedSent(now))
	if kp.RekeyOnSend(now) {
		e.requestHandshake(p, now)
	}
}

func (e *Engine) sealAndSend(kp *session.Keypair, b *packet.Batch) {
	kp.Seal(b.Slab, b.Packets, b.MTU)
	e.send(b)
}
