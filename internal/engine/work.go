package engine

import (
	"encoding/binary"

	"throughline/internal/loadguard"
	"throughline/internal/mono"
	"throughline/internal/ratelimit"
	"throughline/internal/wire"
	"throughline/packet"
)

// A message is a received handshake message, copied out of its batch.
type message struct {
	kind uint32
	size int
	data [wire.InitiationSize]byte // the longest of the three
	from packet.Endpoint

	proven bool // by its mac2, and it has taken its token
}

const (
	// maxMessages bounds the messages that wait, those whose sender is proven and the others each: at 4,000 handshakes a
	// second it is a quarter of a second.
	maxMessages = 1024

	// messageBatch is how many a worker takes at once where many wait: cookie replies to them leave together.
	messageBatch = 32

	// underLoad is how many waiting messages are a load, under which senders must prove their address. Whitepaper §5.3;
	// the kernel's eighth.
	underLoad = maxMessages / 8

	// maxHandshakers bounds the workers: handshakes must leave cores to the lanes.
	maxHandshakers = 4
)

// What a handshake worker is to do for a peer. Bits, so that what is asked for twice is done once.
const (
	wantInitiate  = 1 << iota // begin a handshake, because there is something to send
	wantRetry                 // begin one, because the last wasn't answered
	wantFlush                 // send what is staged, or begin the handshake it needs
	wantKeepalive             // send a keepalive, or begin the handshake it needs
)

// post queues a handshake message: it returns packet.Taken, or why it is dropped. It runs for each that is received, so
// nothing is computed here but, under load, whether a mac2 that isn't zero is right.
//
// What shows that its sender receives at its address doesn't wait behind what doesn't: under load an initiation or a
// response with a cookie; and whatever names a receiver index that we gave out for it, which nobody else can know who isn't
// on the path. These wait in the fair queue, by their source, or by the index.
func (e *Engine) post(kind uint32, msg []byte, from *packet.Endpoint, now mono.Time) packet.Drop {
	size, ok := wire.HandshakeSize(kind)
	if !ok {
		return packet.DropType
	}
	if len(msg) != size {
		return packet.DropShort
	}
	m := message{kind: kind, size: size, from: *from}
	fair, source := false, uint64(0)
	switch kind {
	case wire.TypeCookieReply:
		index := binary.LittleEndian.Uint32(msg[wire.CookieReplyReceiver:])
		if e.indices.Lookup(index) == nil {
			return packet.DropIndex
		}
		fair, source = true, uint64(index)
	case wire.TypeResponse:
		index := binary.LittleEndian.Uint32(msg[wire.ResponseReceiver:])
		entry := e.indices.Lookup(index)
		fair, source = entry != nil && entry.keypair == nil, uint64(index)
	}
	if local := e.identity.Load(); local != nil && kind != wire.TypeCookieReply && e.underLoad(local, now) {
		switch local.guard.Classify(now, msg, from.Addr) {
		case loadguard.TooMany:
			return packet.DropRate
		case loadguard.Proven:
			m.proven = true
			if !fair {
				fair, source = true, ratelimit.Source(from.Addr.Addr())
			}
		}
	}
	if !fair && e.work.Full() {
		return packet.DropQueue
	}
	copy(m.data[:], msg)
	if !fair {
		if !e.work.Post(&m) {
			return packet.DropQueue
		}
	} else if !e.work.PostFair(&m, source) {
		e.drops.Add(packet.DropQueue, 1) // this or, rather, another's
	}
	return packet.Taken
}

// underLoad reports whether senders must prove their address.
func (e *Engine) underLoad(local *identity, now mono.Time) bool {
	if e.work.Messages() >= underLoad {
		local.guard.Loaded(now)
	}
	return local.guard.UnderLoad(now)
}

// A worker is the work queue's handler: it does on a handshake worker what is queued.
type worker struct{ e *Engine }

// HandleMessages handles handshake messages, and counts those that are dropped. Cookie replies to them are sent by one call,
// and while nothing is locked.
func (w worker) HandleMessages(ms []message) {
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
		p.Timers.ResetAttempts() // what is new to send deserves all of them. §6.4
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
