package engine

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"time"

	"throughline/internal/loadguard"
	"throughline/internal/mono"
	"throughline/internal/noise"
	"throughline/internal/peer"
	"throughline/internal/session"
	"throughline/internal/wire"
	"throughline/packet"
)

// initiate begins a handshake with p, unless one was begun a moment ago. Whitepaper §5.4.2, §6.1.
func (e *Engine) initiate(p *Peer) {
	local, to, now := e.identity.Load(), p.Endpoint(), e.clock()
	if local == nil || to == nil {
		return
	}
	p.handshakeMu.Lock()
	defer p.handshakeMu.Unlock()
	p.stateMu.Lock()
	may, due := !p.Removed && e.identity.Load() == local && e.sockets.Load() != nil, mono.Never
	if may && !p.Timers.MayInitiate(now) {
		may, due = false, p.DeferInitiation(now, jitter())
	}
	if may {
		if at := e.turns.Take(now, &p.turn, p.Sending.Load() != nil); at > now {
			may, due = false, p.Timers.InitiationPaced(at)
		}
	}
	p.stateMu.Unlock()
	e.wheel.Arm(&p.timer, due)
	if !may {
		return
	}
	ephemeral, err := noise.NewEphemeral(rand.Reader)
	if err != nil {
		e.limited.Error(0, "handshake: no randomness", "error", err)
		return
	}
	if index, pending := p.Handshake.Pending(); pending {
		e.deleteIndex(index, p)
	}
	index := e.indices.Insert(&indexEntry{peer: p})
	var msg [wire.InitiationSize]byte
	err = p.Handshake.Initiate(now, msg[:], local.static, p.Public, ephemeral, index, noise.TAI64N(time.Now()))
	if err != nil { // the peer's public key is a low-order point, or local was replaced meanwhile, and its key wiped
		e.deleteIndex(index, p)
		if e.identity.Load() != local {
			return // setIdentity is about to stop the peer
		}
		p.stateMu.Lock()
		p.Timers.HandshakeSent(now) // as if it were: the next packets mustn't each try again
		p.lastHandshakeSent.Store(int64(now))
		e.clearStaged(p, packet.DropHandshake) // nothing will ever come of them
		p.stateMu.Unlock()
		e.limited.Warn(p.id, "handshake: cannot begin", "peer", p.LogName(), "error", err)
		return
	}
	// The timer starts before the message is out: its answer may come at once.
	p.stateMu.Lock()
	due = min(p.Timers.HandshakeInitiated(now, jitter()), p.Timers.AuthenticatedSent(now))
	p.lastHandshakeSent.Store(int64(now))
	p.stateMu.Unlock()
	e.wheel.Arm(&p.timer, due)
	e.limited.Debug(p.id, "handshake: initiation sent", "peer", p.LogName(), "to", to.Addr)
	p.Tx.Add(e.sendMessage(msg[:], to))
}

// handleMessage handles a handshake message. It returns why the message was dropped, 0 if it wasn't. If it is to be answered
// by a cookie, that is added to replies.
func (e *Engine) handleMessage(m *loadguard.Message, replies *packet.Batch) packet.Drop {
	local, msg, now := e.identity.Load(), m.Bytes(), e.clock()
	if local == nil {
		return packet.DropDown
	}
	if m.Kind == wire.TypeCookieReply {
		return e.handleCookieReply(msg, now)
	}
	if why := local.guard.Check(now, m, e.work.Messages(), replies); why != 0 {
		return why
	}
	if m.Kind == wire.TypeInitiation {
		return e.handleInitiation(local, msg, &m.From, now)
	}
	return e.handleResponse(local, msg, &m.From, now)
}

// handleInitiation answers an initiation. Nothing is stored, and no endpoint changes, before it has authenticated.
func (e *Engine) handleInitiation(local *identity, msg []byte, from *packet.Endpoint, now mono.Time) packet.Drop {
	r, err := noise.ConsumeInitiation(msg, local.static)
	if err != nil {
		return packet.DropInitiation
	}
	defer r.Clear()
	p := e.lookup(r.Static())
	if p == nil {
		return packet.DropInitiation
	}
	p.handshakeMu.Lock()
	defer p.handshakeMu.Unlock()
	if e.identity.Load() != local {
		return packet.DropInitiation // the identity changed meanwhile
	}
	entry := &indexEntry{peer: p}
	index := e.indices.Insert(&indexEntry{peer: p}) // replaced by entry, which has the keypair
	var reply [wire.ResponseSize]byte
	kp, err := p.Handshake.Accept(now, reply[:], r, local.static, rand.Reader, index, e.cipher)
	if err != nil {
		e.deleteIndex(index, p)
		if errors.Is(err, peer.ErrStale) {
			e.limited.Debug(p.id, "handshake: initiation replayed, or the peer's clock was set back", "peer", p.LogName())
		}
		return packet.DropInitiation
	}
	entry.keypair = kp
	if !e.installKeypair(p, entry, now, session.Keypairs.Responded) {
		e.retire(session.Retired{kp}, p)
		return packet.DropInitiation
	}
	// A response counts as a handshake begun: what is staged is sent when the peer confirms this one. Kernel:
	// wg_packet_send_handshake_response.
	p.stateMu.Lock()
	p.Timers.HandshakeSent(now)
	p.lastHandshakeSent.Store(int64(now))
	p.stateMu.Unlock()
	p.Rx.Add(uint64(len(msg)))
	if old := p.Endpoint(); p.Proven.Load() || old == nil || old.Addr == from.Addr { // see peer.Peer
		e.roam(p, from)
	}
	e.wheel.Arm(&p.timer, min(p.Timers.AuthenticatedReceived(now), p.Timers.AuthenticatedSent(now)))
	e.limited.Debug(p.id, "handshake: response sent", "peer", p.LogName(), "to", from.Addr)
	p.Tx.Add(e.sendMessage(reply[:], from))
	return 0
}

// handleResponse completes a handshake that we began.
func (e *Engine) handleResponse(local *identity, msg []byte, from *packet.Endpoint, now mono.Time) packet.Drop {
	entry := e.indices.Lookup(binary.LittleEndian.Uint32(msg[wire.ResponseReceiver:]))
	if entry == nil {
		return packet.DropIndex
	}
	p := entry.peer
	p.handshakeMu.Lock()
	if e.identity.Load() != local {
		p.handshakeMu.Unlock()
		return packet.DropResponse
	}
	kp, err := p.Handshake.ConsumeResponse(now, msg, local.static, e.cipher)
	if err != nil {
		p.handshakeMu.Unlock()
		return packet.DropResponse
	}
	p.stateMu.Lock()
	if own := local.static.Public(); p.Keypairs.Crossed() && bytes.Compare(own[:], p.Public[:]) > 0 {
		kp.Yield()
	}
	p.stateMu.Unlock()
	installed := e.installKeypair(p, &indexEntry{peer: p, keypair: kp}, now, session.Keypairs.Initiated)
	p.handshakeMu.Unlock()
	if !installed {
		e.retire(session.Retired{kp}, p)
		return packet.DropResponse
	}
	p.Rx.Add(uint64(len(msg)))
	e.roam(p, from)
	e.recordHandshake(p)
	e.wheel.Arm(&p.timer, p.Timers.AuthenticatedReceived(now))
	e.limited.Debug(p.id, "handshake: complete", "peer", p.LogName(), "with", from.Addr)
	// The responder may not send before we have: what is staged confirms the session, or else a keepalive. §5.4.6.
	e.flush(p)
	if kp.Unused() {
		e.keepalive(p)
	}
	return 0
}

// installKeypair adds a fresh keypair to a peer's and publishes its index; false if the peer was removed or stopped
// meanwhile.
func (e *Engine) installKeypair(p *Peer, entry *indexEntry, now mono.Time, step func(session.Keypairs, *session.Keypair) (session.Keypairs, session.Retired)) bool {
	kp := entry.keypair
	if !e.indices.Replace(kp.LocalIndex, entry) {
		return false
	}
	p.stateMu.Lock()
	if p.Removed || e.sockets.Load() == nil {
		p.stateMu.Unlock()
		return false
	}
	var retired session.Retired
	p.Keypairs, retired = step(p.Keypairs, kp)
	due := p.Timers.SessionDerived(now)
	if kp.Initiator {
		p.Timers.HandshakeComplete(now)
		p.Waiting.Store(p.Flushing || p.Staged.Len() > 0) // until flush has sent what was staged
		p.Sending.Store(kp)
	}
	p.stateMu.Unlock()
	e.retire(retired, p)
	e.wheel.Arm(&p.timer, due)
	return true
}

// sendMessage sends one handshake message. It returns how many bytes were sent: 0 when the socket refused it.
func (e *Engine) sendMessage(msg []byte, to *packet.Endpoint) uint64 {
	b := e.spare.Get().(*packet.Batch)
	defer e.spare.Put(b)
	b.Reset()
	_, free := b.Free()
	b.Received(copy(free, msg), 0, *to)
	e.send(b)
	return packet.LiveBytes(b.Packets)
}

// handleCookieReply stores a cookie. It doesn't authenticate its source address, so no endpoint changes. §5.4.7.
func (e *Engine) handleCookieReply(msg []byte, now mono.Time) packet.Drop {
	entry := e.indices.Lookup(binary.LittleEndian.Uint32(msg[wire.CookieReplyReceiver:]))
	if entry == nil {
		return packet.DropIndex
	}
	p := entry.peer
	p.handshakeMu.Lock()
	defer p.handshakeMu.Unlock()
	if !p.Handshake.ConsumeCookie(now, msg, p.Public) {
		return packet.DropCookieReply
	}
	return 0
}
