package engine

import (
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"throughline/internal/wire"
	"throughline/packet"
	"throughline/udp"
	"throughline/udp/udptest"
)

// refusing makes the node's sockets refuse every datagram, until it is called again.
func (x *node) refusing(t *testing.T) (again func()) {
	t.Helper()
	open := x.sockets.Load()
	x.sockets.Store(&sockets{conn: refusingConn{open.conn}})
	return func() { x.sockets.Store(open) }
}

type refusingConn struct{ udp.Conn }

func (refusingConn) Send(b *packet.Batch) error {
	for i := range b.Packets {
		if b.Packets[i].Drop == 0 {
			b.Packets[i].Drop = packet.DropSend
		}
	}
	return syscall.ENETUNREACH
}

// What the socket refused wasn't sent: it is in no counter of bytes, and no handshake is begun for want of an answer to it.
// Kernel: wg_packet_create_data_done, wg_socket_send_skb_to_peer.
func TestWhatIsRefusedWasNotSent(t *testing.T) {
	for _, path := range []string{"the lane", "a flush"} {
		t.Run(path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := udptest.New(1, udptest.Options{})
				a, b := pair(t, net)
				a.send(datagram(a.inner, b.inner, 1, 100))
				b.wants(datagram(a.inner, b.inner, 1, 100))
				synctest.Wait()                            // a has recorded what it sent
				b.send(datagram(b.inner, a.inner, 1, 100)) // so that nothing of a's awaits an answer
				a.wants(datagram(b.inner, a.inner, 1, 100))
				time.Sleep(wire.KeepaliveTimeout + time.Second)
				p := a.peer(b)
				before := p.Tx.Load()
				initiations := count(net, wire.TypeInitiation)
				again := a.refusing(t)
				if path == "a flush" {
					p.stateMu.Lock()
					a.staged.Push(&p.Staged, datagram(a.inner, b.inner, 2, 100))
					p.Waiting.Store(true)
					p.stateMu.Unlock()
					a.flush(p)
				} else {
					a.send(datagram(a.inner, b.inner, 2, 100))
				}
				synctest.Wait()
				again()
				if n := a.drops[packet.DropSend].Load(); n != 1 {
					t.Fatalf("%d datagrams were refused, want 1", n)
				}
				if got := p.Tx.Load(); got != before {
					t.Errorf("%d bytes count as sent, none were", got-before)
				}
				time.Sleep(wire.KeepaliveTimeout + wire.RekeyTimeout + time.Second)
				if n := initiations(); n != 0 {
					t.Errorf("%d handshakes were begun because what was never sent wasn't answered", n)
				}
			})
		})
	}
}

// Handshake messages that the socket refused aren't in the counter of bytes either.
func TestRefusedHandshakesAreNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		againA, againB := a.refusing(t), b.refusing(t)
		a.send(datagram(a.inner, b.inner, 1, 100))
		synctest.Wait()
		if got := a.peer(b).Tx.Load(); got != 0 {
			t.Errorf("an initiation that was refused counts as %d bytes sent", got)
		}
		againA()
		time.Sleep(wire.RekeyTimeout + time.Second) // the initiation is repeated, and reaches b
		if got := b.peer(a).Rx.Load(); got != wire.InitiationSize {
			t.Fatalf("b received %d bytes, want an initiation", got)
		}
		if got := b.peer(a).Tx.Load(); got != 0 {
			t.Errorf("a response that was refused counts as %d bytes sent", got)
		}
		againB()
	})
}

// A batch that waits in its ring keeps no peer.
func TestABatchKeepsNoPeer(t *testing.T) {
	_, _, out, _ := newPath(t, fullTrain("10.0.0.1", "10.0.0.2")...)
	b := newOutBatch()
	if _, _, err := out.Take(b); err != nil {
		t.Fatal(err)
	}
	out.Work(b)
	out.Emit(b)
	if slices.ContainsFunc(b.owners[:cap(b.owners)], func(p *Peer) bool { return p != nil }) {
		t.Error("the owners are kept")
	}
	if slices.ContainsFunc(b.trains[:cap(b.trains)], func(t outTrain) bool { return t.peer != nil || t.keypair != nil }) {
		t.Error("the trains are kept")
	}
}
