package udp

import (
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"throughline/internal/linux"
	"throughline/packet"
	"throughline/udp/internal/zone"
)

// A socket is the socket of one family. Opening and its options are here; send_linux.go and recv_linux.go move data.
type socket struct {
	pc    *net.UDPConn
	rc    syscall.RawConn
	v6    bool
	sys   kernel
	zones *zone.Names
	bound uint32 // the index of the interface it is bound to; 0: all of them
	rx    receiver

	gso        atomic.Uint32 // a packet.OffloadState; On may change to Withdrawn
	avoidEqual bool          // this kernel corrupts super-packets whose segments are all of one size: none is sent
	refusing   destinations  // those that refuse super-packets
	refusals   atomic.Int32  // destinations that refused super-packets with EINVAL since a super-packet last got out
	gro        bool
}

// newSocket returns a socket that owns pc, and sets its options; those that the kernel or a container refuses stay unset.
func (h *Host) newSocket(pc *net.UDPConn, v6 bool) (*socket, error) {
	rc, err := pc.SyscallConn()
	if err != nil {
		pc.Close()
		return nil, err
	}
	s := &socket{pc: pc, rc: rc, v6: v6, sys: syscalls{}, zones: &zone.Host}
	err = rc.Control(func(fd uintptr) { s.setOptions(int(fd), h, linux.Running()) })
	if err != nil {
		pc.Close()
		return nil, err
	}
	s.rx.init(s)
	return s, nil
}

func (s *socket) setOptions(fd int, h *Host, release linux.Version) {
	// FORCE goes beyond the administrator's limit, and needs CAP_NET_ADMIN.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferSize) != nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bufferSize)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, bufferSize) != nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, bufferSize)
	}
	s.bound = boundTo(fd)
	if s.v6 {
		unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1)
	} else {
		unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_PKTINFO, 1)
	}
	if h.Off&packet.GSO == 0 {
		if _, err := unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT); err == nil {
			s.gso.Store(uint32(packet.OffloadOn))
			s.avoidEqual = release.CorruptsEqualSegments()
		}
	}
	if h.Off&packet.GRO == 0 && release.HasSoundGRO() {
		s.gro = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) == nil
	}
}

func (s *socket) port() uint16 { return s.pc.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

func (s *socket) receiver() Receiver { return &s.rx }

func (s *socket) close() error { return s.pc.Close() }

func (s *socket) setMark(mark uint32) error {
	var err error
	if e := s.rc.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark))
	}); e != nil {
		return e
	}
	return err
}

func (s *socket) offloads() packet.OffloadStates {
	states := packet.OffloadStates{packet.GSO: packet.OffloadState(s.gso.Load()), packet.GRO: packet.OffloadOff}
	if s.gro {
		states[packet.GRO] = packet.OffloadOn
	}
	return states
}

// isLinkLocal reports whether a is valid only together with a link.
func isLinkLocal(a netip.Addr) bool { return a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() }
