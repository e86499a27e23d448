package engine

import (
	"throughline/internal/wire"
	"throughline/packet"
)

// A message is a received handshake message, copied out of its batch.
type message struct {
	kind uint32
	size int
	data [wire.InitiationSize]byte // the longest of the three
	from packet.Endpoint
}

const (
	// maxMessages bounds the messages that wait: at 4,000 handshakes a second it is a quarter of a second.
	maxMessages = 1024

	// underLoad is how many waiting messages are a load, under which senders must prove their address. Whitepaper §5.3;
	// an eighth of the queue, as in the kernel.
	underLoad = maxMessages / 8

	// maxHandshakers bounds the workers: handshakes must leave cores to the lanes.
	maxHandshakers = 4
)

// What a handshake worker is to do for a peer. Bits, so that what is asked for twice is done once.
const (
	wantInitiate  = 1 << iota // begin a handshake, because there is something to send
	wantRetry                 // begin one, because a timer asks for it; attempts go on being counted
	wantFlush                 // send what is staged, or begin the handshake it needs
	wantKeepalive             // send a keepalive, or begin the handshake it needs
)

// post queues a handshake message: it returns packet.Taken, or why it is dropped.
func (e *Engine) post(kind uint32, msg []byte, from *packet.Endpoint) packet.Drop {
	size, ok := wire.HandshakeSize(kind)
	if !ok {
		return packet.DropType
	}
	if len(msg) != size {
		return packet.DropShort
	}
	m := message{kind: kind, size: size, from: *from}
	copy(m.data[:], msg)
	if !e.work.Post(m) {
		return packet.DropQueue
	}
	return packet.Taken
}

// A worker is the work queue's Handler, whose methods run on the handshake workers.
type worker struct{ e *Engine }

// HandleMessage handles a handshake message, and counts it if it is dropped.
func (w worker) HandleMessage(m *message) {
	if why := w.e.handleMessage(m); why != 0 {
		w.e.drops.Add(why, 1)
	}
}

// HandleItem does for a peer what was asked for.
func (w worker) HandleItem(p *Peer, wanted uint32) {
	e := w.e
	if e.sockets.Load() == nil {
		return // down: bringUp or Rebind asks again
	}
	if wanted&wantInitiate != 0 {
		p.stateMu.Lock()
		p.Timers.ResetAttempts() // for new packets the initiation may be repeated as often as for the first. §6.4
		p.stateMu.Unlock()
	}
	if wanted&(wantInitiate|wantRetry) != 0 {
		e.initiate(p)
	}
	if wanted&wantFlush != 0 {
		e.flush(p)
	}
	if wanted&wantKeepalive != 0 {
		e.keepalive(p)
	}
}
