package engine

import (
	"encoding/binary"
	"net/netip"

	"throughline/internal/grouping"
	"throughline/internal/ipheader"
	"throughline/internal/mono"
	"throughline/internal/session"
	"throughline/internal/wire"
	"throughline/packet"
	"throughline/tun"
)

// outbound is the steps of the lane that reads a queue of the TUN: Take reads a batch and reserves for each train a
// session and its counters; Work seals; Emit sends. For their order see lane.Steps.
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
	clear(b.owners) // keep no reference to a peer, which may be removed
	return size, more, nil
}

// route finds the peer of each packet. Whitepaper §3: a packet goes to the peer whose allowed IPs contain its
// destination. It returns how many bytes the packets have.
func (e *Engine) route(b *outBatch) (size int) {
	b.owners, b.ids = b.owners[:0], b.ids[:0]
	var last netip.Addr
	var owner, looped *Peer
	var endpoint *packet.Endpoint // owner's, if it has the packet's destination
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
			last, id, endpoint = to, 0, nil
			if owner != nil {
				id = owner.id
				if ep := owner.Endpoint(); ep != nil && ep.Addr.Addr() == to {
					endpoint = ep
				}
			}
		}
		if owner == nil {
			p.Drop = packet.DropNoPeer
		} else if endpoint != nil && e.sentByUs(b.Bytes(i), owner, endpoint) {
			p.Drop, looped = packet.DropLoop, owner
			b.owners, b.ids = append(b.owners, nil), append(b.ids, 0)
			continue
		}
		b.owners, b.ids = append(b.owners, owner), append(b.ids, id)
	}
	if looped != nil {
		e.limited.Warn(looped.id, "routing loop: the route to the peer's endpoint leads into its own tunnel; a default route needs a firewall mark, or the endpoint a route of its own",
			"peer", looped.LogName())
	}
	return size
}

// sentByUs reports whether a packet to the address of p's endpoint is a datagram that we sent to p. Sent once more it would
// come back for ever. Other tunnels', to the same host, are to be sent: what is ours has an index of ours, or of a
// session that we send with.
func (e *Engine) sentByUs(datagram []byte, p *Peer, to *packet.Endpoint) bool {
	port, msg, ok := ipheader.UDP(datagram)
	if !ok || port != to.Addr.Port() || len(msg) < wire.TransportOverhead {
		return false
	}
	switch index := binary.LittleEndian.Uint32(msg[4:]); binary.LittleEndian.Uint32(msg) {
	case wire.TypeInitiation, wire.TypeResponse: // the sender's
		entry := e.indices.Lookup(index)
		return entry != nil && entry.peer == p
	case wire.TypeTransport: // the receiver's
		kp := p.Sending.Load()
		return kp != nil && kp.RemoteIndex == index
	}
	return false
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

// reserve reserves the counters of a train. Without a session, or while earlier packets of the peer wait, it stages the
// train's packets and returns false.
func (e *Engine) reserve(b *outBatch, p *Peer, first, n int) (*session.Keypair, uint64, bool) {
	if !p.Waiting.Load() {
		if kp, counter, ok := p.Reserve(b.now, n); ok {
			return kp, counter, true
		}
	}
	p.stateMu.Lock()
	defer p.stateMu.Unlock()
	if !p.Waiting.Load() { // a session may have come while we waited for the lock
		if kp, counter, ok := p.Reserve(b.now, n); ok {
			return kp, counter, true
		}
	}
	for i := first; i < first+n; i++ {
		if p.Removed {
			b.Packets[i].Drop = packet.DropNoPeer
			continue
		}
		if e.link.Load() == linkHeld {
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
	if e.link.Load() == linkUnknown {
		e.wheel.Arm(&p.timer, b.now.Add(upWithin))
	}
	if !e.requestHandshake(p, b.now) { // completing that handshake flushes
		e.wheel.Arm(&p.timer, p.DeferInitiation(b.now, jitter()))
	}
	return nil, 0, false
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
			t.peer.ClearSource(t.to) // the socket found that this source can't be used any more
		}
		e.sentData(t.peer, t.keypair, b.now, packet.LiveBytes(b.Packets[t.first:t.first+t.n]))
	}
	clear(b.trains) // as in Take
}

// sentData records that data was sent: bytes of it, 0 when the socket refused all, which then awaits no answer. Kernel:
// wg_packet_create_data_done. Whitepaper §6.2: a session that is old enough is renewed.
func (e *Engine) sentData(p *Peer, kp *session.Keypair, now mono.Time, bytes uint64) {
	due := p.Timers.AuthenticatedSent(now)
	if bytes > 0 {
		p.Tx.Add(bytes)
		due = min(due, p.Timers.DataSent(now))
	}
	e.wheel.Arm(&p.timer, due)
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

// send sends the runs of a batch, and counts its dropped packets.
func (e *Engine) send(b *packet.Batch) {
	if s := e.sockets.Load(); s == nil {
		for i := range b.Packets {
			if b.Packets[i].Drop == 0 {
				b.Packets[i].Drop = packet.DropDown
			}
		}
	} else if err := s.conn.Send(b); err != nil {
		e.limited.Failed("send", err)
	}
	e.drops.Count(b)
}
