package engine

import "net"

// Rebind closes the sockets and opens new ones on the same port, with the same mark; sessions, and what is staged for
// peers, stay. What is sent or received in the moment between is lost. While the engine is down it does nothing. When the
// port can't be had any more the engine is down; Up, or the next port that is configured, tries again.
func (e *Engine) Rebind() error {
	e.configMu.Lock()
	defer e.configMu.Unlock()
	if e.closed {
		return net.ErrClosed
	}
	if !e.up {
		return nil
	}
	// The old sockets go first: two of one port can't be had at once.
	e.stop(e.sockets.Swap(nil))
	fresh, err := e.listen(e.port, e.mark)
	if err != nil {
		e.down(linkHeld)
		e.wantUp = true
		return err
	}
	e.start(fresh)
	e.clearSources()
	e.flushWaiting()
	return nil
}

// flushWaiting has what is staged sent: a flush may have been asked for while there were no sockets. configMu is held.
func (e *Engine) flushWaiting() {
	for _, p := range e.order {
		if p.Waiting.Load() {
			e.work.Add(&p.work, wantFlush)
		}
	}
}
