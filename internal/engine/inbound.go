package engine

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"

	"throughline/internal/ipheader"
	"throughline/internal/mono"
	"throughline/internal/session"
	"throughline/internal/wire"
	"throughline/packet"
	"throughline/udp"
)

// inbound is the steps of the lane that receives from a socket: Take receives a batch and finds each train's session by
// its receiver index; Work opens; Emit checks the replay window and the inner source, and writes to the TUN.
type inbound struct {
	e        *Engine
	receiver udp.Receiver
}

// An inBatch is a batch of an inbound lane.
type inBatch struct {
	packet.Batch
	now    mono.Time
	trains []inTrain
}

// An inTrain is consecutive packets of one session from one endpoint, Packets[first:first+n].
type inTrain struct {
	first, n int
	run      int // Runs[run] has the endpoint
	entry    *indexEntry
}

func newInBatch() *inBatch { return &inBatch{Batch: *packet.New()} }

// The pauses after a receive that failed: doubling, so that an error that persists costs no CPU time.
const (
	receivePauseMin = time.Millisecond
	receivePauseMax = time.Second / 3
)

// Take receives a batch. It tries again after any error but the closing of the socket or the engine: were the lane to
// end, so would the tunnel.
func (in *inbound) Take(b *inBatch) (size int, more bool, err error) {
	b.Reset()
	b.trains = b.trains[:0]
	for pause := receivePauseMin; ; pause = min(2*pause, receivePauseMax) {
		if more, err = in.receiver.Receive(&b.Batch); err == nil {
			break
		}
		if errors.Is(err, net.ErrClosed) {
			return 0, false, err
		}
		in.e.limited.Failed("receive", err)
		b.Reset()
		select {
		case <-in.e.done:
			return 0, false, net.ErrClosed
		case <-time.After(pause):
		}
	}
	b.now = in.e.clock()
	in.e.wheel.WakeIfLate(b.now)
	for run := range b.Runs {
		size += in.e.classify(b, run)
	}
	return size, more, nil
}

// classify makes trains of the transport messages in a run and posts the handshake messages. It returns how many bytes
// the run has.
func (e *Engine) classify(b *inBatch, run int) (size int) {
	r := &b.Runs[run]
	var last *inTrain
	for i := r.First; i < r.First+r.N; i++ {
		p := &b.Packets[i]
		msg := b.Bytes(i)
		size += len(msg)
		if len(msg) < wire.TransportOverhead {
			p.Drop = packet.DropShort
			continue
		}
		// The three reserved bytes are part of the type: they must be zero. Whitepaper §5.4.
		if kind := binary.LittleEndian.Uint32(msg); kind != wire.TypeTransport {
			p.Drop = e.post(kind, msg, &r.Endpoint, b.now)
			continue
		}
		index := binary.LittleEndian.Uint32(msg[wire.TransportReceiver:])
		if last != nil && last.first+last.n == i && last.entry.keypair.LocalIndex == index {
			last.n++
			continue
		}
		entry := e.indices.Lookup(index)
		if entry == nil || entry.keypair == nil {
			p.Drop = packet.DropIndex
			continue
		}
		if !entry.keypair.CanReceive(b.now) {
			p.Drop = packet.DropExpired
			continue
		}
		b.trains = append(b.trains, inTrain{first: i, n: 1, run: run, entry: entry})
		last = &b.trains[len(b.trains)-1]
	}
	return size
}

// Work opens every train in place, and puts it into the order in which it was sent.
func (in *inbound) Work(b *inBatch) {
	for _, t := range b.trains {
		train := b.Packets[t.first : t.first+t.n]
		t.entry.keypair.Open(b.Slab, train)
		packet.SortByCounter(train)
	}
}

// Emit drops what was received before or isn't allowed, and writes the rest of the batch to the TUN.
func (in *inbound) Emit(b *inBatch) {
	e := in.e
	deliver := false
	for i := range b.trains {
		if e.receiveTrain(b, &b.trains[i]) {
			deliver = true
		}
	}
	if deliver {
		e.deliver(&b.Batch)
	}
	e.drops.Count(&b.Batch)
	clear(b.trains) // keep no reference to a peer, which may be removed
}

// receiveTrain does with an opened train all that must be done in the order of receipt. It reports whether any packet is
// for the TUN.
func (e *Engine) receiveTrain(b *inBatch, t *inTrain) (deliver bool) {
	t.entry.windowMu.Lock()
	received, data := t.entry.keypair.AcceptTrain(b.Packets[t.first : t.first+t.n])
	t.entry.windowMu.Unlock()
	if received == 0 {
		return false
	}
	e.handleTrain(t.entry, &b.Runs[t.run].Endpoint, b.now, received, data)
	if data {
		deliver = e.checkSources(b, t)
	}
	return deliver
}

// handleTrain does what follows from an authenticated train: the peer's endpoint is where it came from (§2.1), a next
// keypair is confirmed, timers and counters are updated.
func (e *Engine) handleTrain(entry *indexEntry, from *packet.Endpoint, now mono.Time, bytes uint64, data bool) {
	p := entry.peer
	p.Rx.Add(bytes)
	e.roam(p, from)
	if entry.keypair != p.Sending.Load() {
		e.confirm(p, entry.keypair)
	}
	due := p.Timers.AuthenticatedReceived(now)
	if data {
		due = min(due, p.Timers.DataReceived(now))
	}
	e.wheel.Arm(&p.timer, due)
	if entry.keypair.RekeyOnReceive(now) {
		e.requestHandshake(p, now)
	}
}

// confirm makes a keypair current if it is the next one: the initiator has used it, so it has consumed our response.
func (e *Engine) confirm(p *Peer, kp *session.Keypair) {
	if !kp.Initiator && !p.Proven.Load() {
		p.Proven.Store(true)
	}
	p.stateMu.Lock()
	if p.Removed || p.Keypairs.Next != kp {
		p.stateMu.Unlock()
		return
	}
	var retired session.Retired
	p.Keypairs, retired = p.Keypairs.Confirmed()
	p.Sending.Store(kp)
	p.Timers.HandshakeComplete(e.clock())
	staged := p.Waiting.Load()
	p.stateMu.Unlock()

	e.recordHandshake(p)
	e.retire(retired, p)
	if staged {
		e.work.Add(&p.work, wantFlush)
	}
}

// checkSources drops the packets of a train that aren't IP packets with a source among the peer's allowed IPs: cryptokey
// routing, §3. The longest matching prefix must be this very peer's. Padding is cut off. It reports whether any packet is
// for the TUN.
func (e *Engine) checkSources(b *inBatch, t *inTrain) (deliver bool) {
	var last netip.Addr
	var owner *Peer
	for i := t.first; i < t.first+t.n; i++ {
		p := &b.Packets[i]
		if p.Drop != 0 || p.Len == 0 {
			continue // dropped, or a keepalive: nothing for the TUN
		}
		from, length, ok := ipheader.Source(b.Bytes(i))
		if !ok {
			p.Drop = packet.DropInner
			continue
		}
		if from != last {
			owner, _ = e.allowed.Lookup(from)
			last = from
		}
		if owner != t.entry.peer {
			p.Drop = packet.DropNotAllowed
			continue
		}
		p.Len = length
		deliver = true
	}
	return deliver
}

// deliver writes a batch to the TUN.
func (e *Engine) deliver(b *packet.Batch) {
	e.sinkMu.Lock()
	defer e.sinkMu.Unlock()
	if err := e.sink.Write(b); err != nil {
		e.limited.Failed("tun: write", err)
	}
}
