package engine

import (
	"math/rand/v2"
	"time"

	"throughline/internal/mono"
	"throughline/internal/timers"
	"throughline/internal/wire"
	"throughline/packet"
	"throughline/wgtypes"
)

// look does what is due for a peer, and arms its timer for what comes next. The wheel's goroutine calls it.
func (e *Engine) look(p *Peer, now mono.Time) {
	p.stateMu.Lock()
	if p.Removed {
		p.stateMu.Unlock()
		return
	}
	do, next := p.Timers.Look(now, jitter())
	if do&timers.GiveUp != 0 {
		e.drops.Add(packet.DropHandshake, e.staged.Clear(&p.Staged))
		p.Waiting.Store(p.Flushing)
	}
	p.stateMu.Unlock()
	e.wheel.Arm(&p.timer, next)

	if do&timers.GiveUp != 0 {
		e.publishPeer(wgtypes.PeerSilent, p, nil)
	}
	if do&timers.EraseKeys != 0 {
		e.eraseKeys(p)
	}
	if do&timers.ClearSource != 0 {
		p.ClearSource(p.Endpoint()) // it may be why there is no response
	}
	if do&timers.Initiate != 0 {
		e.work.Add(&p.work, wantRetry)
	}
	if do&timers.Keepalive != 0 {
		e.work.Add(&p.work, wantKeepalive)
	}
}

// jitter is the random delay of a handshake retry. Whitepaper §6.1.
func jitter() time.Duration { return rand.N(wire.RekeyTimeoutJitterMax + 1) }
