// Package session is what a handshake yields: a keypair that seals trains and opens them, with its counter and its replay
// window, and the keypairs that a peer holds.
//
// A keypair never changes once made but for its sending counter, which is atomic, and its replay window, which the
// caller guards. Seal and Open work on disjoint trains from any number of goroutines at once.
//
// When a keypair is retired its keys are wiped. The rule: Seal and Open count as uses while they run; Wipe lets no further
// use begin; and each key is cleared by the last use to end, or by Wipe if there is none. So no call waits, and none works
// with a key that is being cleared: what comes later is dropped.
//
// Limits: a keypair seals and opens no more than [wire.RejectAfterMessages] packets, and for [wire.RejectAfterTime] at most;
// the caller asks [Keypair.CanSend] and [Keypair.CanReceive].
package session

import (
	"encoding/binary"
	"sync/atomic"

	"throughline/internal/aead"
	"throughline/internal/mono"
	"throughline/internal/replay"
	"throughline/internal/secret"
	"throughline/internal/wire"
	"throughline/packet"
)

// A Keypair is one session: two keys, one for each direction. Whitepaper §5.4.5.
type Keypair struct {
	LocalIndex  uint32    // by which the peer addresses it: our receiver index
	RemoteIndex uint32    // by which we address it: the peer's
	Birth       mono.Time // when the handshake that made it completed
	Initiator   bool      // whether we began that handshake

	yields  bool // see Yield
	send    key
	counter atomic.Uint64 // the next one to be sent with
	receive key
	window  replay.Window // guarded by the caller of Accept
}

// A key is that of one direction.
type key struct {
	*aead.Key
	users secret.Users // the calls of Seal or Open under way
}

// end ends a use.
func (k *key) end() {
	if k.users.End() {
		k.Wipe()
	}
}

// retire ends what may begin.
func (k *key) retire() {
	if k.users.Retire() {
		k.Wipe()
	}
}

// New returns the keypair of a handshake, sealed and opened by impl. The keys are copied; the caller clears its own.
func New(impl *aead.Implementation, send, receive *[wire.KeySize]byte, local, remote uint32, initiator bool, now mono.Time) *Keypair {
	return &Keypair{
		LocalIndex: local, RemoteIndex: remote, Birth: now, Initiator: initiator,
		send: key{Key: impl.NewKey(send)}, receive: key{Key: impl.NewKey(receive)},
	}
}

// Wipe erases the keys: the keypair was retired. Trains being sealed or opened are finished; later ones are dropped. Any
// goroutine may call it, more than once. Whitepaper §6.3.
func (k *Keypair) Wipe() {
	k.send.retire()
	k.receive.retire()
}

// Reserve reserves n consecutive counters, for one train, and returns the first. It reports false when fewer remain: the
// keypair must not send any more. Whitepaper §6.2, Reject-After-Messages. Any goroutine may call it.
func (k *Keypair) Reserve(n int) (first uint64, ok bool) {
	for {
		first = k.counter.Load()
		if first >= wire.RejectAfterMessages || uint64(n) > wire.RejectAfterMessages-first {
			return 0, false
		}
		if k.counter.CompareAndSwap(first, first+uint64(n)) {
			return first, true
		}
	}
}

// Unused reports whether nothing was ever sent with the keypair.
func (k *Keypair) Unused() bool { return k.counter.Load() == 0 }

// Expire ends the keypair's use for sending; what the peer still sends with it is received.
func (k *Keypair) Expire() { k.counter.Store(wire.RejectAfterMessages) }

// CanSend reports whether the keypair may still send. Whitepaper §6.2, Reject-After-Time and Reject-After-Messages.
func (k *Keypair) CanSend(now mono.Time) bool {
	return now.Sub(k.Birth) < wire.RejectAfterTime && k.counter.Load() < wire.RejectAfterMessages
}

// CanReceive reports whether what was sealed with the keypair may still be opened. Whitepaper §6.2.
func (k *Keypair) CanReceive(now mono.Time) bool { return now.Sub(k.Birth) < wire.RejectAfterTime }

// RekeyOnSend reports whether sending with the keypair should begin a new handshake: after Rekey-After-Messages, and
// for the initiator after Rekey-After-Time. Whitepaper §6.2.
func (k *Keypair) RekeyOnSend(now mono.Time) bool {
	after := wire.RekeyAfterTime
	if k.yields {
		after += wire.KeepaliveTimeout
	}
	return k.counter.Load() >= wire.RekeyAfterMessages || k.Initiator && now.Sub(k.Birth) >= after
}

// Yield makes RekeyOnSend wait KeepaliveTimeout longer, so that the peer begins the next handshake. When both sides began
// at once each is the initiator of a session, and without it they would begin at once again and again. It must be called
// before the keypair is used.
func (k *Keypair) Yield() { k.yields = true }

// RekeyOnReceive reports whether receiving with the keypair should begin a new handshake: for the initiator, when it
// would otherwise expire before an answer to a keepalive could come. Whitepaper §6.2.
func (k *Keypair) RekeyOnReceive(now mono.Time) bool {
	return k.Initiator && now.Sub(k.Birth) >= wire.RekeyOnReceiveAfter
}

// Accept reports whether a counter is new, and remembers it. It must be called only after the packet was opened: an
// unauthenticated counter must not move the window. Whitepaper §5.4.6. One caller at a time.
func (k *Keypair) Accept(counter uint64) bool { return k.window.Accept(counter) }

// AcceptTrain accepts the counters of an opened train, one after the other: a packet whose counter isn't new gets
// packet.DropReplay. It returns how many bytes the datagrams have that were accepted, 0 for none, and whether any is data:
// one without bytes inside is a keepalive. §6.5. One caller at a time.
func (k *Keypair) AcceptTrain(train []packet.Packet) (received uint64, data bool) {
	for i := range train {
		p := &train[i]
		if p.Drop != 0 {
			continue
		}
		if !k.Accept(p.Counter()) {
			p.Drop = packet.DropReplay
			continue
		}
		received += uint64(p.Len) + wire.TransportOverhead
		data = data || p.Len > 0
	}
	return received, data
}

// Seal turns the IP packets of a train, whose counters were reserved and set, into datagrams: padded, sealed in place,
// the header before them. mtu bounds the padding as it did when the batch was laid. Packets already dropped are skipped.
// After Wipe all get packet.DropExpired, and are left as they are.
func (k *Keypair) Seal(slab []byte, train []packet.Packet, mtu int) {
	if !k.send.users.Begin() {
		expire(train)
		return
	}
	defer k.send.end()
	for i := range train {
		p := &train[i]
		if p.Drop != 0 {
			continue
		}
		padded := wire.Padded(p.Len, mtu)
		clear(slab[p.Off+p.Len : p.Off+padded])
		p.Len = padded

		header := slab[p.Off-wire.TransportHeaderSize : p.Off]
		binary.LittleEndian.PutUint32(header, wire.TypeTransport)
		binary.LittleEndian.PutUint32(header[wire.TransportReceiver:], k.RemoteIndex)
		binary.LittleEndian.PutUint64(header[wire.TransportCounter:], p.Counter())
	}
	k.send.Seal(slab, train)
	for i := range train {
		if p := &train[i]; p.Drop == 0 {
			p.Off -= wire.TransportHeaderSize
			p.Len += wire.TransportHeaderSize
		}
	}
}

// Open turns the datagrams of a train into padded IP packets, opened in place, with their counters. The datagrams are
// known to be transport messages for this keypair, of [wire.TransportOverhead] bytes at least. A packet whose tag is
// wrong gets packet.DropTag. The counters are not checked; see Accept. After Wipe all get packet.DropExpired.
func (k *Keypair) Open(slab []byte, train []packet.Packet) {
	if !k.receive.users.Begin() {
		expire(train)
		return
	}
	defer k.receive.end()
	for i := range train {
		if p := &train[i]; p.Drop == 0 {
			p.SetCounter(binary.LittleEndian.Uint64(slab[p.Off+wire.TransportCounter:]))
			p.Off += wire.TransportHeaderSize
			p.Len -= wire.TransportHeaderSize
		}
	}
	k.receive.Open(slab, train)
}

// expire drops the packets of a train whose keypair was wiped.
func expire(train []packet.Packet) {
	for i := range train {
		if p := &train[i]; p.Drop == 0 {
			p.Drop = packet.DropExpired
		}
	}
}
