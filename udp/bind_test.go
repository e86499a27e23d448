package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestControl holds that Control sees each socket once.
func TestControl(t *testing.T) {
	for _, c := range []struct {
		address  netip.Addr
		networks []string
	}{{netip.Addr{}, []string{"udp4", "udp6"}}, {lo4, []string{"udp4"}}, {lo6, []string{"udp6"}}} {
		var networks []string
		newConn(t, &Host{Address: c.address, Control: func(network, address string, rc syscall.RawConn) error {
			networks = append(networks, network)
			return rc.Control(func(uintptr) {})
		}})
		if !slices.Equal(networks, c.networks) {
			t.Errorf("at %v: called for %v", c.address, networks)
		}
	}
}

// TestControlRefuses holds that an error of Control's is Listen's, whatever it wraps and whichever socket it is about,
// and that no socket stays open.
func TestControlRefuses(t *testing.T) {
	free := newConn(t, &Host{})
	port := free.Port()
	free.Close()
	for _, wraps := range []error{errors.New("no"), syscall.EADDRINUSE, syscall.EAFNOSUPPORT, syscall.EADDRNOTAVAIL, syscall.EPERM, syscall.EMFILE} {
		for _, at := range []string{"udp4", "udp6"} {
			for _, port := range []uint16{0, port} {
				calls := 0
				var seen []syscall.RawConn
				c, err := (&Host{Control: func(network, _ string, rc syscall.RawConn) error {
					calls++
					seen = append(seen, rc)
					if network == at {
						return fmt.Errorf("protect the socket: %w", wraps)
					}
					return nil
				}}).Listen(port)
				if want := fmt.Sprintf("udp: listen on port %d: protect the socket: %v", port, wraps); err == nil || err.Error() != want || !errors.Is(err, wraps) {
					t.Errorf("error %v, want %q", err, want)
				}
				if c != nil {
					t.Fatalf("%v for %s: a Conn all the same", wraps, at)
				}
				if want := map[string]int{"udp4": 1, "udp6": 2}[at]; calls != want {
					t.Errorf("%v for %s: called %d times, want %d", wraps, at, calls, want)
				}
				for i, rc := range seen {
					if err := rc.Control(func(uintptr) {}); err == nil {
						t.Errorf("%v for %s: socket %d is open", wraps, at, i)
					}
				}
			}
		}
	}
	again, err := (&Host{}).Listen(port)
	if err != nil {
		t.Fatalf("the port isn't free: %v", err)
	}
	again.Close()
	_, err = (&Host{Address: lo4, Control: func(string, string, syscall.RawConn) error { return net.ErrClosed }}).Listen(port)
	if !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), netip.AddrPortFrom(lo4, port).String()) {
		t.Errorf("at one address: %v", err)
	}
}
