package engine

import (
	"io"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"

	"throughline/packet"
	"throughline/tun/tuntest"
	"throughline/udp"
	"throughline/wgtypes"
)

// A routed conn is a udp.Watcher whose changes and answers the test makes up. It is a udp.Network too, which opens itself.
type routed struct {
	*nullConn
	changed chan struct{} // without buffer: what is sent has been received
	stale   func(*packet.Endpoint) bool
}

func (c *routed) Listen(uint16) (udp.Conn, error) {
	c.changed = make(chan struct{})
	return c, nil
}

func (c *routed) Changed() <-chan struct{} { return c.changed }

func (c *routed) Stale(ep *packet.Endpoint) bool { return c.stale(ep) }

// Close notifies of a last change, at the worst moment: stop holds configMu.
func (c *routed) Close() error {
	c.changed <- struct{}{}
	close(c.changed)
	return nil
}

// TestRoutesChange forgets the sources of those endpoints that are stale, and holds no lock that others wait for: not
// while it asks, nor when the sockets close.
func TestRoutesChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asking := make(chan *packet.Endpoint)
		asked := make(chan bool)
		c := &routed{nullConn: &nullConn{scripted: &scripted{}}, stale: func(ep *packet.Endpoint) bool {
			asking <- ep
			return <-asked
		}}
		e, err := New(Options{TUN: tuntest.New(1420), Network: c, Clock: simulatedClock(), Workers: 1, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		if err := e.Configure(&wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: wgtypes.PublicKey{1}}, {PublicKey: wgtypes.PublicKey{2}}, {PublicKey: wgtypes.PublicKey{3}}}}); err != nil {
			t.Fatal(err)
		}
		learned := packet.Endpoint{Addr: netip.MustParseAddrPort("192.0.2.2:51820"), Src: netip.MustParseAddr("192.0.2.1"), SrcIf: 7}
		forgotten := packet.Endpoint{Addr: learned.Addr}
		first, second := e.lookup(wgtypes.PublicKey{1}), e.lookup(wgtypes.PublicKey{3}) // between them one that nobody has heard
		first.SetEndpoint(&learned)
		second.SetEndpoint(&learned)

		for range 2 { // the second time with other sockets
			if err := e.Up(); err != nil {
				t.Fatal(err)
			}
			c.changed <- struct{}{}
			for _, answer := range []bool{false, true} {
				if ep := <-asking; *ep != learned {
					t.Errorf("asked about %+v", ep)
				}
				if err := e.Configure(&wgtypes.Config{}); err != nil { // takes the lock
					t.Fatal(err)
				}
				asked <- answer
			}
			synctest.Wait()
			if *first.Endpoint() != learned || *second.Endpoint() != forgotten {
				t.Errorf("after the change: %+v, %+v", first.Endpoint(), second.Endpoint())
			}
			second.SetEndpoint(&learned)
			e.Down() // nothing is asked for sockets that close
			synctest.Wait()
		}
	})
}
