// Package throughline is a WireGuard tunnel for Go programs: a [Device] joins a TUN (the kernel's, or anything that
// implements [throughline/tun.Device]) to UDP sockets, and carries IP packets between its peers.
package throughline
