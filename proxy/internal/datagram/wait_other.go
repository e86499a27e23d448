//go:build !unix

package datagram

import "net"

// Wait returns once a Read of a connected UDP socket is worth a buffer: here at once, unless the socket can tell.
func Wait(c net.Conn) error {
	if w, ok := c.(interface{ WaitRead() error }); ok {
		return w.WaitRead()
	}
	return nil
}
