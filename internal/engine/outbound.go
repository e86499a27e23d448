package engine

import (
	"context"
	"log/slog"
	"net/netip"

	"throughline/internal/grouping"
	"throughline/internal/ipheader"
	"throughline/internal/mono"
	"throughline/internal/session"
	"throughline/internal/wire"
	"throughline/packet"
	"throughline/tun"
)

// outbound is the stages of the lane that reads a queue of the TUN: Take reads a batch and reserves for each train a
// session and its counters; Work seals; Emit sends. For the order of the stages see lane.Stages.
type outbound struct {
	e     *Engine
	queue tun.Queue
}

// An outBatch is a batch of an outbound lane.
type outBatch struct {
	packet.Batch
	now    mono.Time
	owners []*Peer  // the peer of each packet; nil: dropped
	ids    []uint64 // and its id; 0: dropped
	trains []outTrain
	group  grouping.Grouping[*Peer]
}

// An outTrain is consecutive packets of one session, Packets[first:first+n].
type outTrain struct {
	first, n int
	run      int // Runs[run] is the same packets, and where they go
	peer     *Peer
	keypair  *session.Keypair
	to       *packet.Endpoint
}

func newOutBatch() *outBatch {
	return &outBatch{Batch: *packet.New(), owners: make([]*Peer, 0, packet.MaxPackets), ids: make([]uint64, 0, packet.MaxPackets)}
}

// Take reads a batch, looks up each packet's peer, and reserves counters in the order of reading.
func (o *outbound) Take(b *outBatch) (size int, more bool, err error) {
	b.Reset()
	b.trains = b.trains[:0]
	b.MTU = int(o.e.mtu.Load())
	if more, err = o.queue.Read(&b.Batch); err != nil {
		return 0, false, err
	}
	b.now = o.e.clock()
	o.e.wheel.WakeIfLate(b.now)
	size = o.e.route(b)
	b.group.Group(b.Packets, b.owners, b.ids)
	for i := 0; i < len(b.Packets); {
		owner, first := b.owners[i], i
		for i++; i < len(b.Packets) && b.owners[i] == owner; i++ {
		}
		if owner != nil {
			o.e.reserveTrain(b, owner, first, i-first)
		}
	}
	return size, more, nil
}

// route finds the peer of each packet. Whitepaper §3: a packet goes to the peer whose allowed IPs contain its
// destination. It returns how many bytes the packets have.
func (e *Engine) route(b *outBatch) (size int) {
	b.owners, b.ids = b.owners[:0], b.ids[:0]
	var last netip.Addr
	var owner *Peer
	var id uint64
	for i := range b.Packets {
		p := &b.Packets[i]
		size += p.Len
		if p.Drop != 0 {
			b.owners, b.ids = append(b.owners, nil), append(b.ids, 0)
			continue
		}
		to, ok := ipheader.Destination(b.Bytes(i))
		if !ok {
			p.Drop = packet.DropMalformed
			b.owners, b.ids = append(b.owners, nil), append(b.ids, 0)
			continue
		}
		if to != last { // packets of one flow come together: most need no look-up
			owner, _ = e.allowed.Lookup(to)
			last, id = to, 0
			if owner != nil {
				id = owner.id
			}
		}
		if owner == nil {
			p.Drop = packet.DropNoPeer
		}
		b.owners, b.ids = append(b.owners, owner), append(b.ids, id)
	}
	return size
}

// reserveTrain makes a train of packets of one peer: it reserves their counters and sets their endpoint. Without a session
// they are staged, and a handshake is requested. It runs in Take, so that counter order is read order.
func (e *Engine) reserveTrain(b *outBatch, p *Peer, first, n int) {
	packets := b.Packets[first : first+n]
	to := p.Endpoint()
	if to == nil {
		for i := range packets {
			packets[i].Drop = packet.DropNoEndpoint
		}
		return
	}
	kp, counter, ok := e.reserve(b, p, first, n)
	if !ok {
		return
	}
	for i := range packets {
		packets[i].SetCounter(counter + uint64(i))
	}
	b.trains = append(b.trains, outTrain{first: first, n: n, run: len(b.Runs), peer: p, keypair: kp, to: to})
	b.Runs = append(b.Runs, packet.Run{First: first, N: n, Endpoint: *to})
}

// reserve reserves the counters of a train; or, without a session, stages its packets and returns false.
func (e *Engine) reserve(b *outBatch, p *Peer, first, n int) (*session.Keypair, uint64, bool) {
	if !p.Waiting.Load() {
		if kp, counter, ok := p.counters(b.now, n); ok {
			return kp, counter, true
		}
	}
	p.stateMu.Lock()
	defer p.stateMu.Unlock()
	if !p.Waiting.Load() { // a session may have come while we waited for the lock
		if kp, counter, ok := p.counters(b.now, n); ok {
			return kp, counter, true
		}
	}
	for i := first; i < first+n; i++ {
		if p.Removed {
			b.Packets[i].Drop = packet.DropNoPeer
			continue
		}
		if e.sockets.Load() == nil {
			b.Packets[i].Drop = packet.DropDown
			continue
		}
		if e.identity.Load() == nil { // with a key, every peer begins anew
			b.Packets[i].Drop = packet.DropNoKey
			continue
		}
		e.drops.Add(packet.DropStagedFull, e.staged.Push(&p.Staged, b.Bytes(i)))
		b.Packets[i].Drop = packet.Taken
		p.Waiting.Store(true)
	}
	if !e.requestHandshake(p, b.now) { // completing that handshake flushes
		e.wheel.Arm(&p.timer, p.deferInitiation(b.now))
	}
	return nil, 0, false
}

// counters reserves n counters of the session that p sends with; false when there is none.
func (p *Peer) counters(now mono.Time, n int) (*session.Keypair, uint64, bool) {
	kp := p.Sending.Load()
	if kp == nil || !kp.CanSend(now) {
		return nil, 0, false
	}
	counter, ok := kp.Reserve(n)
	return kp, counter, ok
}

// Work seals every train in place.
func (o *outbound) Work(b *outBatch) {
	for _, t := range b.trains {
		t.keypair.Seal(b.Slab, b.Packets[t.first:t.first+t.n], b.MTU)
	}
}

// Emit sends the batch, then updates each peer's timers and counters once for each train.
func (o *outbound) Emit(b *outBatch) {
	e := o.e
	if len(b.trains) == 0 {
		e.drops.Count(&b.Batch)
		return
	}
	e.send(&b.Batch)
	for i := range b.trains {
		t := &b.trains[i]
		if t.to.Src.IsValid() && !b.Runs[t.run].Endpoint.Src.IsValid() {
			t.peer.ClearSource(t.to) // the socket found that it can't be had any more
		}
		e.sentData(t.peer, t.keypair, b.now, sentBytes(b.Packets[t.first:t.first+t.n]))
	}
	clear(b.trains) // keep no reference to a peer, which may be removed
}

// sentData records that data was sent. Whitepaper §6.2: a session that is old enough is renewed.
func (e *Engine) sentData(p *Peer, kp *session.Keypair, now mono.Time, bytes uint64) {
	p.Tx.Add(bytes)
	e.wheel.Arm(&p.timer, min(p.Timers.DataSent(now), p.Timers.AuthenticatedSent(now)))
	if kp.RekeyOnSend(now) {
		e.requestHandshake(p, now)
	}
}

// requestHandshake asks the workers for a handshake, and reports whether it did: not within RekeyTimeout of the last,
// whose response may still come.
func (e *Engine) requestHandshake(p *Peer, now mono.Time) bool {
	if last := mono.Time(p.lastHandshakeSent.Load()); last != 0 && now.Sub(last) < wire.RekeyTimeout {
		return false
	}
	e.work.Add(&p.work, wantInitiate)
	return true
}

// deferInitiation arms an initiation for what is staged, in case the handshake under way, which may be the peer's,
// doesn't complete. It returns when that is due, Never if nothing was armed. stateMu is held.
func (p *Peer) deferInitiation(now mono.Time) (due mono.Time) {
	if kp := p.Sending.Load(); p.Staged.Len() == 0 || kp != nil && kp.CanSend(now) {
		return mono.Never
	}
	return p.Timers.InitiationDeferred(jitter())
}

// send sends the runs of a batch, and counts its dropped packets.
func (e *Engine) send(b *packet.Batch) {
	if s := e.sockets.Load(); s == nil {
		for i := range b.Packets {
			if b.Packets[i].Drop == 0 {
				b.Packets[i].Drop = packet.DropDown
			}
		}
	} else if err := s.conn.Send(b); err != nil && e.log.Enabled(context.Background(), slog.LevelDebug) {
		e.log.Debug("send", "error", err)
	}
	e.drops.Count(b)
}

// sentBytes returns how many bytes the packets that weren't dropped have.
func sentBytes(packets []packet.Packet) (n uint64) {
	for i := range packets {
		if packets[i].Drop == 0 {
			n += uint64(packets[i].Len)
		}
	}
	return n
}
