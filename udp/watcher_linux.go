package udp

import (
	"net/netip"

	"throughline/internal/rtnl"
	"throughline/packet"
)

// routes are what a conn knows of the system's.
type routes struct {
	watch *rtnl.Watch // nil where rtnetlink is not to be had
}

func newRoutes() routes {
	w, _ := rtnl.NewWatch()
	return routes{w}
}

func (r routes) close() {
	if r.watch != nil {
		r.watch.Close()
	}
}

// unwatched is what Changed returns where the system doesn't notify: a closed channel.
var unwatched = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Changed implements [Watcher].
func (c *conn) Changed() <-chan struct{} {
	if c.routes.watch == nil {
		return unwatched
	}
	return c.routes.watch.Changed()
}

// Stale implements [Watcher].
func (c *conn) Stale(ep *packet.Endpoint) bool {
	if c.routes.watch == nil || c.v4 == nil || !ep.Src.Is4() || ep.SrcIf == 0 {
		return false
	}
	f := rtnl.Flow{To: ep.Addr, From: netip.AddrPortFrom(ep.Src, c.port), Bound: c.v4.bound}
	c.markMu.Lock()
	f.Mark = c.mark
	c.markMu.Unlock()
	r, err := c.routes.watch.Route(&f)
	// That there is no route may pass, and choosing a source anew would find none. What stays in this host goes by lo,
	// whichever link it is received by.
	return err == nil && r.Link != ep.SrcIf && !r.Local
}
