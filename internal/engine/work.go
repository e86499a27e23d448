package engine

import (
	"throughline/internal/loadguard"
	"throughline/internal/mono"
	"throughline/packet"
)

// maxHandshakers bounds the workers: handshakes must leave cores to the lanes.
const maxHandshakers = 4

// What a handshake worker is to do for a peer. Bits, so that what is asked for twice is done once.
const (
	wantInitiate  = 1 << iota // begin a handshake, because there is something to send
	wantRetry                 // begin one, because a timer asks for it; attempts go on being counted
	wantFlush                 // send what is staged, or begin the handshake it needs
	wantKeepalive             // send a keepalive, or begin the handshake it needs
)

// post queues a handshake message: it returns packet.Taken, or why it is dropped.
func (e *Engine) post(kind uint32, msg []byte, from *packet.Endpoint, now mono.Time) packet.Drop {
	var guard *loadguard.Guard
	if local := e.identity.Load(); local != nil {
		guard = local.guard
	}
	return loadguard.Post(e.work, guard, now, kind, msg, from, func(index uint32) (used, awaited bool) {
		entry := e.indices.Lookup(index)
		return entry != nil, entry != nil && entry.keypair == nil
	})
}

// A worker is the work queue's Handler, whose methods run on the handshake workers.
type worker struct{ e *Engine }

// HandleMessages handles handshake messages, and counts those that are dropped. Cookie replies to them are sent by one call,
// and while nothing is locked.
func (w worker) HandleMessages(ms []loadguard.Message) {
	replies := w.e.spare.Get().(*packet.Batch)
	replies.Reset()
	for i := range ms {
		if why := w.e.handleMessage(&ms[i], replies); why != 0 {
			w.e.drops.Add(why, 1)
		}
	}
	if len(replies.Packets) > 0 {
		w.e.send(replies)
	}
	w.e.spare.Put(replies)
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
