package engine

import (
	"slices"
	"time"

	"throughline/udp"
)

// watch forgets, whenever routes change, the local addresses that the routing table wouldn't send to a peer from any more
// by the link it was received on, until the link's sockets close. The kernel's module does it when its cached route is
// renewed: Linux, drivers/net/wireguard/socket.c, send4.
//
// It takes configMu, so stop, which is called with that held, mustn't wait for it, and doesn't: closing the
// sockets ends it, and Close waits, when it has let go of the lock. It asks the system without the lock.
func (e *Engine) watch(l *link) {
	w, ok := l.conn.(udp.Watcher)
	if !ok {
		return
	}
	e.tasks.Go(func() {
		for range w.Changed() {
			begun := e.clock()
			e.configMu.RLock()
			peers := slices.Clone(e.order)
			e.configMu.RUnlock()
			for _, p := range peers {
				if e.link.Load() != l {
					return
				}
				if to := p.Endpoint(); to != nil && w.Stale(to) {
					p.ClearSource(to)
				}
			}
			// A twentieth of a processor at most, however many peers there are and however often routes change.
			select {
			case <-time.After(20 * e.clock().Sub(begun)):
			case <-e.done:
				return
			}
		}
	})
}
