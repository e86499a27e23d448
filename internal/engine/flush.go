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
			// Packets come faster than this sends them, and would make the oldest give way without end: now they aren't
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
		e.sentData(p, kp, now, sentBytes(b.Packets))
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
		kp, counter, ok = p.counters(now, n)
		return ok
	}) {
		return nil, false
	}
	setTrain(b, counter, to)
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
	kp, counter, ok := p.counters(now, 1)
	if !ok {
		e.initiate(p)
		return
	}
	b := e.spare.Get().(*packet.Batch)
	defer e.spare.Put(b)
	b.Reset()
	b.Append(nil)
	setTrain(b, counter, to)
	e.sealAndSend(kp, b)
	p.Tx.Add(sentBytes(b.Packets))
	e.wheel.Arm(&p.timer, p.Timers.AuthenticatedSent(now))
	if kp.RekeyOnSend(now) {
		e.requestHandshake(p, now)
	}
}

// setTrain makes the packets of a batch one train: counters from counter on, and one run to the endpoint.
func setTrain(b *packet.Batch, counter uint64, to *packet.Endpoint) {
	for i := range b.Packets {
		b.Packets[i].SetCounter(counter + uint64(i))
	}
	b.Runs = append(b.Runs, packet.Run{N: len(b.Packets), Endpoint: *to})
}

func (e *Engine) sealAndSend(kp *session.Keypair, b *packet.Batch) {
	kp.Seal(b.Slab, b.Packets, b.MTU)
	e.send(b)
}
