package interop

import (
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTheFirstPacketIsNotLost asks: does what the kernel sends in the instant an interface comes up reach the other side
// with the first handshake, not with a retry seconds later?
func TestTheFirstPacketIsNotLost(t *testing.T) {
	for _, c := range []struct {
		plan
		down time.Duration // at most, in rounds of longer and longer
	}{
		{plan{a: ours, b: theirs}, 60 * time.Millisecond}, // the daemon follows, mostly
		{plan{a: ours, b: theirs}, 2 * time.Millisecond},  // it comes too late, mostly
		{plan{a: theirs, b: ours}, 60 * time.Millisecond},
	} {
		p := c.plan
		t.Run(fmt.Sprintf("from %s, down for %v", p.a, c.down), func(t *testing.T) {
			b := newBed(t, p)
			b.configure()
			var far *net.UDPConn
			b.b.enter(func() (err error) {
				far, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(b.b.inner[ipv4])})
				return err
			})
			defer far.Close()
			to := far.LocalAddr().(*net.UDPAddr)
			lost, buf := 0, make([]byte, 100)
			const rounds = 50
			for i := range rounds {
				time.Sleep(60 * time.Millisecond) // the other side takes no initiation soon after the last
				b.a.setUp(false, nil)
				time.Sleep(c.down * time.Duration(i+1) / rounds)
				word := fmt.Sprintf("packet %d", i)
				b.a.setUp(true, func() error {
					fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
					if err != nil {
						return err
					}
					defer unix.Close(fd)
					return unix.Sendto(fd, []byte(word), 0, &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())})
				})
				far.SetReadDeadline(time.Now().Add(2 * time.Second))
				if n, _, err := far.ReadFromUDP(buf); err != nil {
					lost++
				} else if string(buf[:n]) != word {
					t.Errorf("round %d: received %q", i, buf[:n])
				}
				if lost > 5 {
					t.Fatalf("%d of %d packets were lost", lost, i+1)
				}
			}
			if lost > 0 {
				t.Errorf("%d of %d packets were lost", lost, rounds)
			}
		})
	}
}

// setUp sets the tunnel's interface up or down, and calls then on the same thread at once, without so much as a system
// call in between.
func (s *side) setUp(up bool, then func() error) {
	s.t.Helper()
	s.enter(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		ifr, err := unix.NewIfreq(s.tunnel)
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
			return err
		}
		flags := ifr.Uint16() &^ unix.IFF_UP
		if up {
			flags |= unix.IFF_UP
		}
		ifr.SetUint16(flags)
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
			return err
		}
		if then == nil {
			return nil
		}
		return then()
	})
}
