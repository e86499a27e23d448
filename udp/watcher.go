package udp

import "throughline/packet"

// A Watcher is a [Conn] that notifies of changes after which the system may route datagrams differently. An endpoint's
// Src can become wrong without the system refusing it: Linux keeps the addresses of a link that is down, and sends from
// them by any other. Methods are safe for concurrent use.
type Watcher interface {
	// Changed returns a channel that receives soon after links, addresses, routes or rules changed, at most about once a
	// second; one that wasn't received yet stands for all changes until it is. It is always the same, and closed by the
	// time that Close returns; where the system doesn't notify, it is closed from the start.
	Changed() <-chan struct{}

	// Stale reports whether datagrams to ep would now leave from ep.Src by another link than ep.SrcIf. It returns false
	// where that can't be found out, while there is no route, and in IPv6: there Linux removes the addresses of a link
	// that goes down, and Send finds out that an address is gone. It asks the system: microseconds, so not for the packet
	// path. ep is borrowed until it returns.
	Stale(ep *packet.Endpoint) bool
}
