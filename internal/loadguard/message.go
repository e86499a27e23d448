package loadguard

import (
	"encoding/binary"

	"throughline/internal/mono"
	"throughline/internal/ratelimit"
	"throughline/internal/wire"
	"throughline/internal/workqueue"
	"throughline/packet"
)

const (
	// MaxMessages bounds the messages that wait, those that aren't held up by a flood and the others each: at 4,000
	// handshakes a second it is a quarter of a second.
	MaxMessages = 1024

	// underLoad is how many waiting messages are a load. Whitepaper §5.3; the kernel's eighth.
	underLoad = MaxMessages / 8

	// maxBatch is how many a worker takes at once where many wait: cookie replies to them leave together.
	maxBatch = 32
)

// A Message is a received handshake message, copied out of its batch.
type Message struct {
	Kind uint32
	From packet.Endpoint

	size   int
	proven bool                      // by its mac2, and it has taken its token
	data   [wire.InitiationSize]byte // the longest of the three
}

// Bytes returns the message, borrowed.
func (m *Message) Bytes() []byte { return m.data[:m.size] }

// NewQueue returns a queue of handshake messages, and of items T, for workers.
func NewQueue[T any]() *workqueue.Queue[Message, T] {
	return workqueue.New[Message, T](MaxMessages, maxBatch)
}

// Post queues a handshake message: it returns packet.Taken, or why it is dropped. It is called for each that is received, so
// nothing is computed here but, under load, whether a mac2 that isn't zero is right. g is nil while there is no identity.
//
// What shows that its sender receives at its address doesn't wait behind what doesn't: under load an initiation or a
// response with a cookie; and whatever names a receiver index that we gave out for it, which nobody else can know who isn't
// on the path. These come first. In either queue sources have their turns; of what names an index, each index. ours reports whether an index is in use, and
// whether a response is awaited under it.
func Post[T any](q *workqueue.Queue[Message, T], g *Guard, now mono.Time, kind uint32, msg []byte, from *packet.Endpoint, ours func(index uint32) (used, awaited bool)) packet.Drop {
	size, ok := wire.HandshakeSize(kind)
	if !ok {
		return packet.DropType
	}
	if len(msg) != size {
		return packet.DropShort
	}
	first, proven, source := false, false, ratelimit.Source(from.Addr.Addr())
	switch kind {
	case wire.TypeCookieReply:
		index := binary.LittleEndian.Uint32(msg[wire.CookieReplyReceiver:])
		if used, _ := ours(index); !used {
			return packet.DropIndex
		}
		first, source = true, uint64(index)
	case wire.TypeResponse:
		index := binary.LittleEndian.Uint32(msg[wire.ResponseReceiver:])
		if _, first = ours(index); first {
			source = uint64(index)
		}
	}
	if kind != wire.TypeCookieReply && g != nil {
		g.look(now, q.Messages())
		switch g.Classify(now, msg, from.Addr) {
		case TooMany:
			return packet.DropRate
		case Proven:
			first, proven = true, true
		}
	}
	m := Message{Kind: kind, From: *from, size: size, proven: proven}
	copy(m.data[:], msg)
	if !q.Post(&m, source, first) {
		return packet.DropQueue // this one or, in its stead, another
	}
	return packet.Taken
}

// look looks whether so many waiting messages are a load.
func (g *Guard) look(now mono.Time, waiting int) {
	if waiting >= underLoad {
		g.Loaded(now)
	}
}

// Check reports whether an initiation or a response is to be handled, 0, or why it is dropped. waiting is how many messages
// wait. If the sender is to prove its address, a cookie reply is added to replies, which has room for a batch's.
func (g *Guard) Check(now mono.Time, m *Message, waiting int, replies *packet.Batch) packet.Drop {
	msg := m.Bytes()
	// §5.3: mac1 shows that the sender knows our public key; without it there is no answer.
	if !g.CheckMAC1(msg) {
		return packet.DropMAC1
	}
	if g.look(now, waiting); m.proven || !g.UnderLoad(now) {
		return 0
	}
	switch g.Classify(now, msg, m.From.Addr) { // again: it may have come before the load
	case TooMany:
		return packet.DropRate
	case Unproven:
		_, free := replies.Free()
		if err := g.Reply(now, free, msg, m.From.Addr); err == nil {
			replies.Received(wire.CookieReplySize, 0, m.From)
		}
		return packet.DropMAC2
	}
	return 0
}
