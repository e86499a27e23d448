//go:build !linux

package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"syscall"

	"throughline/packet"
)

// A socket is the socket of one family, with nothing but what package net offers: a system call for each datagram, no
// choice of the source: an endpoint's Src is not looked at.
type socket struct {
	pc *net.UDPConn
	v6 bool
	rx receiver
}

// routes are what a conn knows of the system's: nothing.
type routes struct{}

func newRoutes() routes { return routes{} }

func (routes) close() {}

func (h *Host) newSocket(pc *net.UDPConn, v6 bool) (*socket, error) {
	// Some systems refuse what is beyond their limit, and some count the whole against a small total.
	for size := bufferSize; size >= 256<<10 && pc.SetReadBuffer(size) != nil; size /= 2 {
	}
	for size := bufferSize; size >= 256<<10 && pc.SetWriteBuffer(size) != nil; size /= 2 {
	}
	s := &socket{pc: pc, v6: v6}
	s.rx.s = s
	return s, nil
}

func (s *socket) port() uint16 { return s.pc.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

func (s *socket) receiver() Receiver { return &s.rx }

func (s *socket) close() error { return s.pc.Close() }

func (s *socket) setMark(mark uint32) error {
	if mark != 0 {
		return fmt.Errorf("no firewall marks on %s: %w", runtime.GOOS, errors.ErrUnsupported)
	}
	return nil
}

func (s *socket) offloads() packet.OffloadStates {
	return packet.OffloadStates{packet.GSO: packet.OffloadOff, packet.GRO: packet.OffloadOff}
}

func (s *socket) send(b *packet.Batch) (first error) {
	for i := range b.Runs {
		r := &b.Runs[i]
		if !isFamily(r.Endpoint.Addr.Addr(), s.v6) {
			continue
		}
		for j := r.First; j < r.First+r.N; j++ {
			p := &b.Packets[j]
			if p.Drop != 0 {
				continue
			}
			if _, _, err := s.pc.WriteMsgUDPAddrPort(b.Bytes(j), nil, r.Endpoint.Addr); err != nil {
				p.Drop = packet.DropSend
				if errno, ok := errors.AsType[syscall.Errno](err); ok {
					err = errno
				}
				first = firstError(first, sendError(r.Endpoint.Addr, err))
			}
		}
	}
	return first
}

// A receiver receives from one socket, one datagram a call: package net can't ask for more without waiting.
type receiver struct {
	s *socket
}

// Receive implements [Receiver].
func (r *receiver) Receive(b *packet.Batch) (more bool, err error) {
	for first := len(b.Packets); len(b.Packets) == first; {
		_, free := b.Free()
		n, _, _, from, err := r.s.pc.ReadMsgUDPAddrPort(free, nil)
		switch {
		case errors.Is(err, net.ErrClosed):
			return false, net.ErrClosed
		case err != nil:
			// Windows reports ICMP errors of earlier sends here, and truncation. Both are passing.
			return false, err
		}
		b.Received(n, n, packet.Endpoint{Addr: netip.AddrPortFrom(from.Addr().Unmap(), from.Port())})
	}
	return false, nil
}
