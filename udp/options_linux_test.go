package udp

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"throughline/internal/linux"
	"throughline/packet"
)

// TestOptions opens sockets as on other kernels.
func TestOptions(t *testing.T) {
	for _, c := range []struct {
		host            Host
		release         linux.Version
		gso, avoidEqual bool
		gro             bool
	}{
		{Host{}, linux.Version{5, 11, 22}, true, false, false},
		{Host{}, linux.Version{5, 12, 0}, true, false, true},
		{Host{}, linux.Version{7, 1, 0}, true, true, true},
		{Host{}, linux.Version{7, 2, 0}, true, false, true},
		{Host{Off: packet.GSO}, linux.Version{7, 1, 0}, false, false, true},
		{Host{Off: packet.GRO}, linux.Version{7, 2, 0}, true, false, false},
	} {
		pc, err := net.ListenUDP("udp4", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		rc, err := pc.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var s socket
		rc.Control(func(fd uintptr) {
			s.setOptions(int(fd), &c.host, c.release)
			if on, err := unix.GetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO); err != nil || (on != 0) != c.gro {
				t.Errorf("%+v on %v: UDP_GRO is %d, %v", c.host, c.release, on, err)
			}
		})
		if (s.gso.Load() == uint32(packet.OffloadOn)) != c.gso || s.avoidEqual != c.avoidEqual || s.gro != c.gro {
			t.Errorf("%+v on %v: GSO %d, avoidEqual %t, GRO %t", c.host, c.release, s.gso.Load(), s.avoidEqual, s.gro)
		}
	}
}
