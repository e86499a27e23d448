package engine

import (
	"runtime"
	"sync"

	"throughline/internal/wire"
	"throughline/packet"
)

// An inbox is what waits for the handshake workers: messages that came, in a queue that drops when it is full, and peers
// for which there is something to do, in a list in which each peer stands at most once, so that it needs no bound.
type inbox struct {
	messages chan message
	bell     chan struct{} // rings when the list is not empty

	mu         sync.Mutex // guards the list
	head, tail *Peer
}

// A message is a handshake message that came, copied out of its batch.
type message struct {
	kind uint32
	size int
	data [wire.InitiationSize]byte // the longest of the three
	from packet.Endpoint
}

const (
	// inboxSize bounds the messages that wait: at 4,000 handshakes a second it is a quarter of a second.
	inboxSize = 1024

	// underLoad is how many waiting messages are a load, under which senders must prove their address. Whitepaper §5.3;
	// the kernel's eighth.
	underLoad = inboxSize / 8

	// maxHandshakers bounds the workers: handshakes must leave cores to the lanes.
	maxHandshakers = 4
)

// What a handshake worker may be wanted to do for a peer. Bits, so that what is wanted twice is done once.
const (
	wantInitiate  = 1 << iota // begin a handshake, because there is something to send
	wantRetry                 // begin one, because the last wasn't answered
	wantFlush                 // send what is staged, or begin the handshake it needs
	wantKeepalive             // send a keepalive, or begin the handshake it needs
)

func (in *inbox) init() {
	in.messages = make(chan message, inboxSize)
	in.bell = make(chan struct{}, 1)
}

// post queues a handshake message, and returns why not. The size of each type is exact. Whitepaper §5.4.
func (e *Engine) post(kind uint32, msg []byte, from *packet.Endpoint) packet.Drop {
	var size int
	switch kind {
	case wire.TypeInitiation:
		size = wire.InitiationSize
	case wire.TypeResponse:
		size = wire.ResponseSize
	case wire.TypeCookieReply:
		size = wire.CookieReplySize
	default:
		return packet.DropType
	}
	if len(msg) != size {
		return packet.DropShort
	}
	m := message{kind: kind, size: size, from: *from}
	copy(m.data[:], msg)
	select {
	case e.inbox.messages <- m:
		return 0
	default:
		return packet.DropQueue
	}
}

// want asks a handshake worker to do something for a peer. It never waits.
func (e *Engine) want(p *Peer, what uint32) {
	if p.wanted.Or(what) != 0 {
		return // it stands in the list
	}
	in := &e.inbox
	in.mu.Lock()
	if in.tail == nil {
		in.head = p
	} else {
		in.tail.nextWork = p
	}
	in.tail = p
	in.mu.Unlock()
	in.ring()
}

func (in *inbox) ring() {
	select {
	case in.bell <- struct{}{}:
	default:
	}
}

// take takes the first peer off the list, and what is wanted; nil when the list is empty.
func (in *inbox) take() (p *Peer, what uint32) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if p = in.head; p == nil {
		return nil, 0
	}
	if in.head = p.nextWork; in.head == nil {
		in.tail = nil
	} else {
		in.ring() // for another worker
	}
	p.nextWork = nil
	return p, p.wanted.Swap(0)
}

// shakeHands is a handshake worker. It ends when the engine closes. It turns to the list and to the messages by turns,
// so that neither a flood from outside nor many peers of our own can starve the other.
func (e *Engine) shakeHands() {
	for {
		select {
		case m := <-e.inbox.messages:
			if why := e.handle(&m); why != 0 {
				e.drop(why, 1)
			}
		case <-e.inbox.bell:
			if p, what := e.inbox.take(); p != nil {
				e.attend(p, what)
			}
		case <-e.done:
			return
		}
		runtime.Gosched() // packets first: a handshake is long, and the lanes' goroutines are few
	}
}
