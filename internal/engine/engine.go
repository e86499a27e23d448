// Package engine is the data path and all that keeps it going: it moves batches between a TUN and the sockets, runs the
// handshakes, turns the timers, and holds the peers.
//
// The walk of a packet out is outbound.go from top to bottom, the walk in is inbound.go; both are stages of a lane, so a
// packet's whole life is on one goroutine. Handshakes run on a few workers of their own (handshake.go) and never in a
// lane. One goroutine turns the timer wheel for all peers (wheel.go).
//
// Locks, outermost first; nobody holds more than three of them, and the last three are leaves:
//
//	Engine.config    the peers, their allowed IPs and keepalives, the identity, the link; configure.go
//	Peer.handshake   one peer's handshake state; held through Diffie-Hellman
//	Peer.state       one peer's keypairs, staged packets and cold timers; held for moments
//	Engine.indexing  writers of the receiver-index table
//	wheel.mu         the wheel
//	inbox.mu         the peers that want something
//
// The packet path takes no lock but, once for each train that arrives, the keypair's own (which guards its replay
// window), and Peer.state where a packet has to wait for a session or comes with another than the one we send with.
//
// Limits: at most [wire.MaxPeers] peers; at most 1,024 handshake messages wait, and [wire.MaxStaged] packets a peer; what is too
// much is dropped and counted. Goroutines are a few for each queue and socket, and none for each peer.
package engine

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"throughline/internal/aead"
	"throughline/internal/allowedips"
	"throughline/internal/cookie"
	"throughline/internal/index"
	"throughline/internal/lane"
	"throughline/internal/mono"
	"throughline/internal/noise"
	"throughline/internal/ratelimit"
	"throughline/internal/wire"
	"throughline/packet"
	"throughline/tun"
	"throughline/udp"
)

// Options are what an engine is made of. TUN and Network must be set.
type Options struct {
	TUN     tun.Device
	Network udp.Network
	Clock   func() mono.Time // counts sleep, never goes back, never returns 0
	Log     *slog.Logger
	Workers int       // goroutines a lane may use; 0: GOMAXPROCS
	Cipher  *aead.Way // how trains are sealed and opened; nil: the best this machine can
}

// An Engine is a running device. All methods are safe for concurrent use.
type Engine struct {
	device  tun.Device
	network udp.Network
	clock   func() mono.Time
	log     *slog.Logger
	workers int
	cipher  *aead.Way

	// Snapshots and tables that the packet path reads without a lock.
	self    atomic.Pointer[self]
	link    atomic.Pointer[link] // nil while down
	allowed allowedips.Table[*Peer]
	indices index.Table[receiver]
	mtu     atomic.Int32
	drops   [packet.NumDrops]atomic.Uint64
	loaded  atomic.Int64 // mono.Time when the inbox was last seen under load; 0: never

	config     sync.RWMutex // guards what follows, to the blank line
	peers      map[noise.PublicKey]*Peer
	order      []*Peer // as they were added
	lastID     uint32
	port       uint16 // the one asked for; 0: any
	mark       uint32
	wanted     bool // Up was asked for last; the sockets may still be closed, because the port was taken
	up, closed bool

	indexing sync.Mutex // guards the writing of indices

	wheel   wheel
	inbox   inbox
	writing sync.Mutex // guards sink's write side, which the receivers of both families share
	sink    tun.Queue  // where packets are delivered: the TUN's first queue

	spare sync.Pool      // of *packet.Batch, for what doesn't come through a lane
	done  chan struct{}  // closed when the engine closes
	gone  chan struct{}  // closed when the TUN has ended
	tasks sync.WaitGroup // the outbound lanes, the handshake workers, the wheel, who watches routes
}

// self is who we are: a snapshot that changes with the private key.
type self struct {
	identity *noise.Identity
	private  [wire.KeySize]byte // as it was set; for a status only

	checker *cookie.Checker // CheckMAC1 by anyone, the rest under mu
	mu      sync.Mutex      // guards checker's secret and limiter
	limiter ratelimit.Limiter
}

// A link is one set of open sockets and the lanes that receive from them.
type link struct {
	conn  udp.Conn
	lanes sync.WaitGroup
}

// spareSize is the slab of a batch outside the lanes: it holds any one packet.
const spareSize = 80 << 10

// New returns an engine that runs, has no key and no peers, and is down.
func New(o Options) (*Engine, error) {
	mtu, err := o.TUN.MTU()
	if err != nil {
		return nil, err
	}
	e := &Engine{
		device: o.TUN, network: o.Network, clock: o.Clock, log: o.Log, workers: o.Workers, cipher: o.Cipher,
		peers: make(map[noise.PublicKey]*Peer),
		done:  make(chan struct{}), gone: make(chan struct{}),
	}
	if e.workers == 0 {
		e.workers = runtime.GOMAXPROCS(0)
	}
	if e.cipher == nil {
		e.cipher = aead.Best()
	}
	e.mtu.Store(int32(mtu))
	e.spare.New = func() any { return packet.NewSize(spareSize, wire.MaxStaged) }
	e.wheel.init(e.clock())
	e.inbox.init()

	queues := e.device.Queues()
	e.sink = queues[0]
	running := int32(len(queues))
	for _, q := range queues {
		e.tasks.Go(func() {
			err := lane.New(&outbound{e: e, queue: q}, e.workers, e.workers+2, newOutBatch).Run()
			if !errors.Is(err, os.ErrClosed) {
				e.log.Error("tun: reading ended", "error", err)
			}
			if atomic.AddInt32(&running, -1) == 0 {
				close(e.gone)
			}
		})
	}
	for range min(e.workers, maxHandshakers) {
		e.tasks.Go(e.shakeHands)
	}
	e.tasks.Go(e.turnWheel)
	return e, nil
}

// Gone returns a channel that is closed when the TUN has ended: the interface was deleted, or closed.
func (e *Engine) Gone() <-chan struct{} { return e.gone }

// SetMTU tells the engine that the TUN's MTU changed. It bounds the padding of what is read from then on.
func (e *Engine) SetMTU(mtu int) { e.mtu.Store(int32(mtu)) }

// Up opens the sockets, unless they are open, and begins to receive; peers with a persistent keepalive are spoken to. When
// it fails, because the port is taken, it is tried again with the next port that is configured.
func (e *Engine) Up() error {
	e.config.Lock()
	defer e.config.Unlock()
	if e.closed {
		return net.ErrClosed
	}
	e.wanted = true
	if e.up {
		return nil
	}
	l, err := e.listen(e.port, e.mark)
	if err != nil {
		return err
	}
	e.rise(l)
	return nil
}

// rise puts the first link to use. The configuration lock is held.
func (e *Engine) rise(l *link) {
	e.up, e.port = true, l.conn.Port()
	e.start(l)
	for _, p := range e.order {
		e.greet(p)
	}
}

// Down closes the sockets and forgets every session; peers and configuration stay.
func (e *Engine) Down() {
	e.config.Lock()
	defer e.config.Unlock()
	e.down()
}

func (e *Engine) down() {
	e.wanted = false
	if !e.up {
		return
	}
	e.up = false
	e.stop(e.link.Swap(nil))
	for _, p := range e.order {
		e.rest(p)
	}
}

// Close ends the engine: down, the TUN closed, and every goroutine of the engine ended when it returns. It may be
// called more than once.
func (e *Engine) Close() {
	e.config.Lock()
	if e.closed {
		e.config.Unlock()
		e.tasks.Wait()
		return
	}
	e.down()
	e.closed = true
	e.removePeers(e.order)
	if s := e.self.Swap(nil); s != nil {
		clear(s.private[:])
	}
	e.config.Unlock()

	close(e.done)
	e.device.Close() // unblocks the outbound lanes
	e.tasks.Wait()
}

// listen opens sockets with the mark set. The configuration lock is held.
func (e *Engine) listen(port uint16, mark uint32) (*link, error) {
	conn, err := e.network.Listen(port)
	if err != nil {
		return nil, err
	}
	if p, ok := conn.(udp.Partial); ok && p.Lacks() != nil {
		e.log.Error("sockets: no peer can be reached in one address family", "error", p.Lacks())
	}
	if mark != 0 {
		if err := conn.SetMark(mark); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return &link{conn: conn}, nil
}

// start puts a link to use, and a lane to each of its receivers.
func (e *Engine) start(l *link) {
	e.link.Store(l)
	e.watch(l)
	for _, r := range l.conn.Receivers() {
		l.lanes.Go(func() {
			lane.New(&inbound{e: e, link: l, from: r}, e.workers, e.workers+2, newInBatch).Run()
		})
	}
}

// stop closes a link that is no longer in use and waits for its lanes.
func (e *Engine) stop(l *link) {
	l.conn.Close()
	l.lanes.Wait()
}

// send sends a batch outside the lanes.
func (e *Engine) send(b *packet.Batch) {
	l := e.link.Load()
	if l == nil {
		e.dropAll(b, packet.DropDown)
		return
	}
	if err := l.conn.Send(b); err != nil && e.log.Enabled(context.Background(), slog.LevelDebug) {
		e.log.Debug("send", "error", err)
	}
	e.count(b)
}

// sendMessage sends one handshake message.
func (e *Engine) sendMessage(msg []byte, to *packet.Endpoint) {
	b := e.spare.Get().(*packet.Batch)
	b.Reset()
	_, free := b.Free()
	b.Received(copy(free, msg), 0, *to)
	e.send(b)
	e.spare.Put(b)
}

// drop counts n packets that go no further.
func (e *Engine) drop(why packet.Drop, n int) {
	if n > 0 {
		e.drops[why].Add(uint64(n))
	}
}

// count counts what was dropped of a batch.
func (e *Engine) count(b *packet.Batch) {
	for i := range b.Packets {
		if why := b.Packets[i].Drop; why != 0 {
			e.drops[why].Add(1)
		}
	}
}

func (e *Engine) dropAll(b *packet.Batch, why packet.Drop) {
	for i := range b.Packets {
		if b.Packets[i].Drop == 0 {
			b.Packets[i].Drop = why
		}
	}
	e.count(b)
}

// jitter is the random delay of a handshake retry. Whitepaper §6.1.
func jitter() time.Duration { return rand.N(wire.RekeyTimeoutJitterMax + 1) }
