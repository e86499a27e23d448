// Package throughline is a WireGuard tunnel for Go programs: a [Device] joins a TUN (the kernel's, or anything that
// implements [throughline/tun.Device]) to UDP sockets, and carries IP packets between its peers.
//
// Concurrency: all methods of a Device may be called from any goroutine. It starts a few goroutines, none for a peer or a
// packet, and Close waits for all of them.
//
// Ownership: a Device owns its TUN once [New] has succeeded.
//
// Limits: at most 2²⁰ peers. What waits for a handshake is bounded: the oldest packets of a peer give way, and a handshake
// message too many is dropped; both are counted. The package reads no environment and no flags, writes to no log but
// the one it is given, and never exits.
package throughline
