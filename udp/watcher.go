package udp

import "throughline/packet"

// A Watcher is a [Conn] that notifies of changes after which the system may route datagrams otherwise than before. An
// endpoint's Src can outlive its use without the system refusing it: Linux keeps the addresses of a link that is down, and
// sends from them by any other. Methods are safe for concurrent use.
type Watcher interface {
	// Changed returns a channel that receives soon after links, addresses, routes or rules changed, at most about once a
	// second; one that wasn't received yet stands for all changes until it is. It is always the same, and closed by the
	// time that Close returns; where the system doesn't notify, it is closed from the start.
	Changed() <-chan struct{}

	// Stale reports whether datagrams to ep would now leave from ep.Src by another link than ep.SrcIf. Where that can't be
	// found out, or there is no route for now, and in IPv6, it says no: there Linux takes the addresses of a link away
	// that goes down, and that an address is gone is for Send to find out. It asks the system: microseconds, so not for the
	// packet path. ep is borrowed until it returns.
	Stale(ep *packet.Endpoint) bool
}
