// Package engine is the packet path and all that keeps it going: it moves batches between a TUN and the sockets, performs
// the handshakes, runs the timers, and holds the peers.
//
// A packet's path out is outbound.go from top to bottom, its path in is inbound.go; both are steps of a lane, so one
// goroutine opens or seals a whole batch, and only its emitting may fall to another. Handshakes run on a few workers of
// their own (handshake.go) and never in a lane: they serve a work queue (work.go). One goroutine looks at the timers of
// all peers (timers.go).
//
// Locks, outermost first; nobody holds more than three of them. Those within wheel, workqueue, staging, loadguard and
// loglimit are leaves:
//
//	Engine.configMu     the peers, their allowed IPs and keepalives, the identity, the sockets; configure.go
//	Peer.handshakeMu    one peer's handshake state; held through Diffie-Hellman
//	Peer.stateMu        one peer's keypairs, staged packets and cold timers; held for moments
//	receivers.Table.mu  writers of the receiver-index table
//	Engine.sinkMu       the TUN's writing half, by the inbound lanes
//
// Of the engine's locks the packet path takes only these: once for each train that arrives indexEntry.windowMu (for the
// replay window), once for each batch that is delivered Engine.sinkMu, and Peer.stateMu where a packet is staged or was
// received with another session than the one we send with.
//
// Limits: at most [wire.MaxPeers] peers; at most 1,024 handshake messages wait that a flood can't hold up, and as many others;
// [wire.MaxStaged] packets a peer, within one budget of bytes; those beyond are dropped and counted. What packets can make it
// log is bounded by loglimit. Goroutines are a few for each queue and socket, and none for each peer.
package engine

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"throughline/internal/aead"
	"throughline/internal/allowedips"
	"throughline/internal/broadcast"
	"throughline/internal/lane"
	"throughline/internal/loadguard"
	"throughline/internal/loglimit"
	"throughline/internal/mono"
	"throughline/internal/noise"
	"throughline/internal/ratelimit"
	"throughline/internal/receivers"
	"throughline/internal/staging"
	"throughline/internal/wheel"
	"throughline/internal/wire"
	"throughline/internal/workqueue"
	"throughline/packet"
	"throughline/tun"
	"throughline/udp"
	"throughline/wgtypes"
)

// Options are what an engine is made of. TUN and Network must be set.
type Options struct {
	TUN     tun.Device
	Network udp.Network
	Clock   func() mono.Time // goes on while the machine sleeps, never goes back, never returns 0
	Log     *slog.Logger
	Workers int                  // goroutines a lane may use; 0: GOMAXPROCS
	Cipher  *aead.Implementation // seals and opens trains; nil: the fastest that this machine can use

	StagedBytes int // bounds what is staged for all peers; 0: staging.DefaultBytes
}

// An Engine is a running device. All methods are safe for concurrent use.
type Engine struct {
	device  tun.Device
	network udp.Network
	clock   func() mono.Time
	log     *slog.Logger  // for what happens once, or by our operator
	limited *loglimit.Log // for all that packets can cause
	workers int
	cipher  *aead.Implementation

	// What the packet path reads without a lock.
	identity atomic.Pointer[identity] // nil without a private key
	sockets  atomic.Pointer[sockets]  // nil while down
	allowed  allowedips.Table[*Peer]
	mtu      atomic.Int32
	link     atomic.Int32 // of linkUnknown, linkUp, linkHeld: what becomes of packets while sockets is nil
	drops    packet.Drops
	events   broadcast.Topic[wgtypes.Event]

	configMu   sync.RWMutex // guards what follows, to the blank line
	peers      map[wgtypes.PublicKey]*Peer
	order      []*Peer // as they were added
	lastID     uint64
	port       uint16 // the one asked for; 0: any
	mark       uint32
	wantUp     bool // Up was asked for last; the sockets may still be closed, because the port was taken
	up, closed bool

	indices receivers.Table[indexEntry]

	sinkMu sync.Mutex // guards sink.Write, which the inbound lanes of both address families share
	sink   tun.Queue  // where packets are delivered: the TUN's first queue

	wheel *wheel.Wheel[*Peer]                        // when each peer's timers are to be looked at
	work  *workqueue.Queue[loadguard.Message, *Peer] // what waits for the handshake workers

	staged   *staging.Store  // the packets that wait for a session, of all peers
	turns    ratelimit.Turns // of the initiations that we begin
	spare    sync.Pool       // of *packet.Batch, for what is sent outside the lanes
	done     chan struct{}   // closed when the engine closes
	tunEnded chan struct{}   // closed when no queue of the TUN is read any more
	tasks    sync.WaitGroup  // the outbound lanes, the handshake workers, the wheel, the watcher of routes
}

// An identity is our static key pair, and what depends on it. It is replaced when the private key changes.
type identity struct {
	static *noise.Identity
	guard  *loadguard.Guard // protects handshakes against floods
}

// A sockets is what one udp.Network.Listen opened, and the lanes that receive from it.
type sockets struct {
	conn  udp.Conn
	lanes sync.WaitGroup
}

// spareSize is the size in bytes of the slab of a spare batch: it holds any one packet.
const spareSize = 80 << 10

// New returns an engine that runs, has no key and no peers, and is down.
func New(o Options) (*Engine, error) {
	mtu, err := o.TUN.MTU()
	if err != nil {
		return nil, err
	}
	e := &Engine{
		device: o.TUN, network: o.Network, clock: o.Clock, log: o.Log, limited: loglimit.New(o.Log, o.Clock),
		workers: o.Workers, cipher: o.Cipher,
		staged: staging.New(o.StagedBytes),
		peers:  make(map[wgtypes.PublicKey]*Peer),
		done:   make(chan struct{}), tunEnded: make(chan struct{}),
	}
	if e.workers == 0 {
		e.workers = runtime.GOMAXPROCS(0)
	}
	if e.cipher == nil {
		e.cipher = aead.Best()
	}
	e.mtu.Store(int32(mtu))
	e.spare.New = func() any { return packet.NewSize(spareSize, wire.MaxStaged) }
	e.wheel = wheel.New[*Peer](e.clock())
	e.work = loadguard.NewQueue[*Peer]()

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
				close(e.tunEnded)
			}
		})
	}
	for range min(e.workers, maxHandshakers) {
		e.tasks.Go(func() { e.work.Serve(e.done, worker{e}) })
	}
	e.tasks.Go(func() { e.wheel.Run(e.done, e.clock, e.look) })
	return e, nil
}

// TUNEnded returns a channel that is closed when the TUN has ended: it was closed, or the interface deleted.
func (e *Engine) TUNEnded() <-chan struct{} { return e.tunEnded }

// SetMTU sets the TUN's MTU in bytes after it changed. It bounds the padding of packets that are read from then on.
func (e *Engine) SetMTU(mtu int) { e.mtu.Store(int32(mtu)) }

// What is known of the TUN's link.
const (
	// linkUnknown: no event said that it is up. A packet that is read may be the first to show it, before the event is
	// handled, so it is staged; for upWithin.
	linkUnknown = iota
	linkUp
	linkHeld // down, whatever the TUN's state, as a program called Down or Up failed: packets are dropped
)

// upWithin is how long after a packet was read from the TUN the event is awaited that the TUN came up.
const upWithin = time.Second

// Up opens the sockets, unless they are open, and begins to receive; peers with a persistent keepalive are sent
// one. When it fails, because the port is taken, it is tried again with the next port that is configured.
func (e *Engine) Up() error {
	e.configMu.Lock()
	defer e.configMu.Unlock()
	if e.closed {
		return net.ErrClosed
	}
	e.wantUp = true
	if e.up {
		return nil
	}
	s, err := e.listen(e.port, e.mark)
	if err != nil {
		e.down(linkHeld)
		e.wantUp = true
		return err
	}
	e.bringUp(s)
	return nil
}

// bringUp makes the engine up, with the sockets s. configMu is held.
func (e *Engine) bringUp(s *sockets) {
	e.up, e.port = true, s.conn.Port()
	e.link.Store(linkUp)
	e.start(s)
	for _, p := range e.order {
		e.startKeepalive(p)
	}
	e.flushWaiting()
	e.publish(wgtypes.Up)
}

// Down closes the sockets and forgets every session; peers and configuration stay. What is read from the TUN until Up is
// dropped.
func (e *Engine) Down() {
	e.configMu.Lock()
	defer e.configMu.Unlock()
	e.down(linkHeld)
}

// LinkDown is Down when the TUN was set down. What is read from it after that may show that it is up again.
func (e *Engine) LinkDown() {
	e.configMu.Lock()
	defer e.configMu.Unlock()
	e.down(linkUnknown)
}

// down makes the engine down; link is linkHeld or linkUnknown. configMu is held.
func (e *Engine) down(link int32) {
	e.wantUp = false
	e.link.Store(link)
	if !e.up {
		if link == linkHeld {
			for _, p := range e.order {
				e.dropStaged(p, packet.DropDown)
			}
		}
		return
	}
	e.up = false
	if s := e.sockets.Swap(nil); s != nil { // nil: Rebind couldn't open any
		e.stop(s)
	}
	for _, p := range e.order {
		e.stopPeer(p)
	}
	e.publish(wgtypes.Down)
}

// Close ends the engine: down, the TUN closed, and every goroutine of the engine ended when it returns. It may be
// called more than once.
func (e *Engine) Close() {
	e.configMu.Lock()
	if e.closed {
		e.configMu.Unlock()
		e.tasks.Wait()
		return
	}
	e.down(linkHeld)
	e.closed = true
	e.removePeers(e.order)
	if s := e.identity.Swap(nil); s != nil {
		s.static.Wipe()
	}
	e.configMu.Unlock()

	close(e.done)
	e.device.Close() // unblocks the outbound lanes
	e.tasks.Wait()
	e.staged.Close()
	e.events.Close()
}

// listen opens sockets with the mark set. configMu is held.
func (e *Engine) listen(port uint16, mark uint32) (*sockets, error) {
	conn, err := e.network.Listen(port)
	if err != nil {
		return nil, err
	}
	if p, ok := conn.(udp.Partial); ok && p.MissingFamily() != nil {
		e.log.Error("sockets: no peer can be reached in one address family", "error", p.MissingFamily())
	}
	if mark != 0 {
		if err := conn.SetMark(mark); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return &sockets{conn: conn}, nil
}

// start sends by the sockets s from now on, and starts a lane for each of their receivers. configMu is held.
func (e *Engine) start(s *sockets) {
	e.sockets.Store(s)
	e.watchRoutes(s)
	for _, r := range s.conn.Receivers() {
		s.lanes.Go(func() {
			lane.New(&inbound{e: e, receiver: r}, e.workers, e.workers+2, newInBatch).Run()
		})
	}
}

// stop closes sockets that are no longer sent by, and waits for their lanes. configMu is held.
func (e *Engine) stop(s *sockets) {
	s.conn.Close()
	s.lanes.Wait()
}
