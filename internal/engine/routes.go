package engine

import (
	"slices"
	"time"

	"throughline/udp"
)

// watchRoutes forgets, whenever routes change, the sources that have become stale ([udp.Watcher]), until the sockets
// close. The kernel's module does it when its cached route is renewed: Linux, drivers/net/wireguard/socket.c, send4.
//
// Its goroutine takes configMu, so stop, which is called with that held, mustn't wait for it: closing the sockets ends
// it, and Close waits for it after unlocking. It asks the system without the lock.
func (e *Engine) watchRoutes(s *sockets) {
	w, ok := s.conn.(udp.Watcher)
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
				if e.sockets.Load() != s {
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
