package engine

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"throughline/internal/wire"
	"throughline/udp/udptest"
)

// A keypair that has fewer counters left than a train needs is at its end: what is staged for want of them is sent with
// the next session, though a handshake was begun a moment ago, by the peer, and isn't completed.
func TestATrainBeyondTheLastCountersLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
		p := a.peer(b)
		kp := p.Sending.Load()
		used, _ := kp.Reserve(math.MaxInt)
		used += math.MaxInt
		if _, ok := kp.Reserve(int(wire.RejectAfterMessages - 3 - used)); !ok || !kp.CanSend(a.clock()) {
			t.Fatal("the counters can't be used up to the last three")
		}
		// The peer's handshake, as if: we have responded, and nothing comes.
		p.stateMu.Lock()
		p.Timers.HandshakeSent(a.clock())
		p.lastHandshakeSent.Store(int64(a.clock()))
		p.stateMu.Unlock()

		out := &outbound{e: a.Engine, queue: &scripted{packets: [][]byte{
			datagram(a.inner, b.inner, 2, 100), datagram(a.inner, b.inner, 3, 100), datagram(a.inner, b.inner, 4, 100),
			datagram(a.inner, b.inner, 5, 100),
		}}}
		batch := newOutBatch()
		if _, _, err := out.Take(batch); err != nil {
			t.Fatal(err)
		}
		p.stateMu.Lock()
		n := p.Staged.Len()
		p.stateMu.Unlock()
		if n != 4 {
			t.Fatalf("%d packets are staged, want 4", n)
		}
		time.Sleep(wire.RekeyTimeout + time.Second)
		synctest.Wait()
		for seq := uint32(2); seq <= 5; seq++ {
			b.wants(datagram(a.inner, b.inner, seq, 100))
		}
		if p.Sending.Load() == kp {
			t.Error("the old session is used")
		}
	})
}
