package engine

import (
	"bytes"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"throughline/internal/mono"
	"throughline/internal/wire"
	"throughline/packet"
	"throughline/udp/udptest"
	"throughline/wgtypes"
)

// When both sides begin at once, no packet is lost, and the next time one of them begins first.
func TestBothBeginAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{Latency: 100 * time.Millisecond})
		a, b := pair(t, net)
		initiations := count(net, wire.TypeInitiation)
		const each, n = 50 * time.Millisecond, uint32(5 * time.Minute / (50 * time.Millisecond))
		var atA, atB int
		for i := range n {
			a.send(datagram(a.inner, b.inner, i, 300))
			b.send(datagram(b.inner, a.inner, i, 300))
			time.Sleep(each)
			atA, atB = atA+len(a.received()), atB+len(b.received())
		}
		time.Sleep(time.Second)
		atA, atB = atA+len(a.received()), atB+len(b.received())
		if atA != int(n) || atB != int(n) {
			t.Errorf("of %d packets %d came to a and %d to b; %v, %v", n, atA, atB, a.reasons(), b.reasons())
		}
		if got := initiations(); got != 2+1+1 { // both, and then one side every two minutes
			t.Errorf("%d initiations in five minutes, want 4", got)
		}
	})
}

// Nor is one lost when they do it twice in a row, because the one that is to begin first had nothing to send then.
func TestBothBeginAtOnceTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{Latency: 100 * time.Millisecond})
		a, b := pair(t, net)
		var sent, atA, atB int
		for range 3 {
			for end := time.Now().Add(2 * time.Second); time.Now().Before(end); sent++ {
				a.send(datagram(a.inner, b.inner, uint32(sent), 300))
				b.send(datagram(b.inner, a.inner, uint32(sent), 300))
				time.Sleep(25 * time.Millisecond)
				atA, atB = atA+len(a.received()), atB+len(b.received())
			}
			time.Sleep(140 * time.Second)
			atA, atB = atA+len(a.received()), atB+len(b.received())
			if atA != sent || atB != sent {
				t.Errorf("of %d packets %d came to a and %d to b; %v, %v", sent, atA, atB, a.reasons(), b.reasons())
			}
		}
	})
}

// A peer that has answered an initiation waits for the session to be confirmed, and begins none beside it; but not for
// ever.
func TestResponderWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{Latency: 100 * time.Millisecond})
		a, b := pair(t, net)
		initiations := count(net, wire.TypeInitiation)
		a.send(datagram(a.inner, b.inner, 1, 100))
		time.Sleep(150 * time.Millisecond)
		b.send(datagram(b.inner, a.inner, 2, 100))
		a.wants(datagram(b.inner, a.inner, 2, 100))
		if n := initiations(); n != 1 {
			t.Errorf("%d initiations, want 1", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{Latency: 100 * time.Millisecond})
		a, b := pair(t, net)
		a.send(datagram(a.inner, b.inner, 1, 100))
		time.Sleep(150 * time.Millisecond)
		a.Close() // before the response is there
		b.send(datagram(b.inner, a.inner, 2, 100))
		initiations := count(net, wire.TypeInitiation)
		time.Sleep(wire.RekeyTimeout + time.Second)
		if n := initiations(); n != 1 {
			t.Errorf("a peer that answered and received no more sent %d initiations, want 1", n)
		}
		if !b.peer(a).Endpoint().Src.IsValid() {
			t.Error("it forgot its source before anything it sent from there went unanswered")
		}
	})
}

// A peer with which no handshake can begin is logged once in a while, not for every packet.
func TestLowOrderPublicKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		var said bytes.Buffer
		a := newNodeWith(t, net, 1, simulatedClock(), &said)
		to := netip.MustParseAddrPort("198.51.100.1:1")
		a.configure(&wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: wgtypes.PublicKey{}, Endpoint: &to, AllowedIPs: prefixes("10.0.0.0/8")}}})
		for i := range uint32(100) {
			a.send(datagram(a.inner, netip.MustParseAddr("10.1.1.1"), i, 100))
			time.Sleep(100 * time.Millisecond)
		}
		a.Close()
		if n := bytes.Count(said.Bytes(), []byte("\n")); n < 1 || n > 3 {
			t.Errorf("%d lines in 10 s, want one in 5 s:\n%s", n, &said)
		}
	})
}

// No handshake goes out with an identity that was replaced, whatever the moment at which it was.
func TestIdentityChangesMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{Latency: time.Millisecond})
		b := newNode(t, net, 2)
		var stall atomic.Bool
		stalled, goOn := make(chan struct{}), make(chan struct{})
		clock := simulatedClock()
		a := newNodeWith(t, net, 1, func() mono.Time {
			if stall.CompareAndSwap(true, false) {
				close(stalled)
				<-goOn
			}
			return clock()
		}, io.Discard)
		a.knows(b)
		initiations := count(net, wire.TypeInitiation)
		p := a.peer(b)
		synctest.Wait() // nobody else asks for the time
		stall.Store(true)
		go a.initiate(p)
		<-stalled
		a.key[5] ^= 1
		a.configure(&wgtypes.Config{PrivateKey: &a.key})
		b.knows(a)
		close(goOn)
		time.Sleep(10 * time.Millisecond)
		if n := initiations(); n != 0 {
			t.Errorf("%d initiations by the identity that was replaced", n)
		}
		began := time.Now()
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
		if took := time.Since(began); took > time.Second {
			t.Errorf("the first packet of the new identity took %v", took)
		}
	})
}

// Keys that change under traffic leave no receiver index in use.
func TestIdentityChangesUnderTraffic(t *testing.T) {
	net := udptest.New(1, udptest.Options{})
	a, b := pair(t, net)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := uint32(0); ; i++ {
				select {
				case <-stop:
					return
				default:
					a.tun.Outbound(datagram(a.inner, b.inner, i, 100))
				}
			}
		})
	}
	other := a.key
	other[3] ^= 1
	for range 50 {
		a.configure(&wgtypes.Config{PrivateKey: &other})
		a.configure(&wgtypes.Config{PrivateKey: &a.key})
		time.Sleep(time.Millisecond)
	}
	close(stop)
	wg.Wait()
	a.Close()
	if n := a.indices.Len(); n != 0 {
		t.Errorf("%d receiver indices are left of a closed engine", n)
	}
}

// Packets that come faster than flush sends don't keep it running for ever, while the oldest give way.
func TestFlushEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{Queue: 1 << 20})
		a, b := pair(t, net)
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
		synctest.Wait()
		p := a.peer(b)
		train := newOutBatch()
		rounds := 0
		more := func() { // what a lane does that is faster
			rounds++
			train.Reset()
			for i := range uint32(wire.MaxStaged) {
				train.Append(datagram(a.inner, b.inner, i, 300))
			}
			train.now, train.trains = a.clock(), train.trains[:0]
			a.reserveTrain(train, p, 0, len(train.Packets))
		}
		p.Waiting.Store(true)
		more()
		if p.Staged.Len() != wire.MaxStaged {
			t.Fatalf("%d are staged", p.Staged.Len())
		}
		net.Hook(func(d *udptest.Datagram) bool {
			if d.From == a.outer() && rounds < 1000 {
				more()
			}
			return true
		})
		a.flush(p)
		if lost := a.drops[packet.DropStagedFull].Load(); rounds > 700 || p.Waiting.Load() || p.Flushing {
			t.Errorf("flush went on for %d rounds, %d packets were lost; waiting %v", rounds, lost, p.Waiting.Load())
		}
	})
}

// The machine sleeps, and its timers with it: the first packet afterwards wakes them.
func TestTimersWakeWithTheMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{Latency: time.Millisecond})
		b := newNode(t, net, 2)
		var slept atomic.Int64
		clock := simulatedClock()
		a := newNodeWith(t, net, 1, func() mono.Time { return clock().Add(time.Duration(slept.Load())) }, io.Discard)
		a.knows(b)
		b.knows(a)
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
		time.Sleep(time.Minute) // idle, but that keys are to be erased
		slept.Add(int64(time.Hour))
		net.Cut(a.host, b.host) // the network takes longer to wake
		a.send(datagram(a.inner, b.inner, 2, 100))
		time.Sleep(time.Second)
		net.Heal(a.host, b.host)
		woke := time.Now()
		b.wants(datagram(a.inner, b.inner, 2, 100))
		if took := time.Since(woke); took > 2*wire.RekeyTimeout {
			t.Errorf("the packet came after %v, want the first repeat of the handshake", took)
		}
	})
}

// An IPv6 packet with IPv4-mapped addresses isn't what IPv4 prefixes allow.
func TestMappedAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := newNode(t, net, 1), newNode(t, net, 2)
		a.knows(b, func(pc *wgtypes.PeerConfig) { pc.AllowedIPs = prefixes("0.0.0.0/0", "::/0") })
		b.knows(a, func(pc *wgtypes.PeerConfig) { pc.AllowedIPs = prefixes("0.0.0.0/0") })
		mapped := func(x netip.Addr) netip.Addr { return netip.AddrFrom16(x.As16()) }
		a.send(datagram6(mapped(a.inner), mapped(b.inner), 100))
		b.wantsNothing(time.Second)
		if b.drops[packet.DropNotAllowed].Load() != 1 {
			t.Errorf("drops: %v", b.reasons())
		}
	})
}

// A new mark may choose another route, and so another source.
func TestMarkForgetsTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{Latency: time.Millisecond})
		a, b := pair(t, net)
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
		synctest.Wait()
		if !a.peer(b).Endpoint().Src.IsValid() {
			t.Fatal("no source was learned")
		}
		a.configure(&wgtypes.Config{Mark: new(uint32(7))})
		if src := a.peer(b).Endpoint().Src; src.IsValid() {
			t.Errorf("the source is still %v", src)
		}
	})
}

// An endpoint that changed since a train was reserved isn't taken for the one whose source the socket refused.
func TestSourceHeardMeanwhile(t *testing.T) {
	e, s, out, _ := newPath(t, fullTrain("10.0.0.1", "10.0.0.2")...)
	p := e.order[0]
	b := newOutBatch()
	if _, _, err := out.Take(b); err != nil {
		t.Fatal(err)
	}
	heard := packet.Endpoint{Addr: s.from.Addr, Src: netip.MustParseAddr("192.0.2.1"), SrcIf: 7}
	p.SetEndpoint(&heard)
	out.Work(b)
	out.Emit(b)
	if *p.Endpoint() != heard {
		t.Errorf("forgotten: %+v", p.Endpoint())
	}
}

// A source that the socket refuses is forgotten at once, not tried for every train.
func TestRefusedSourceIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{Latency: time.Second})
		a, b := pair(t, net)
		a.send(datagram(a.inner, b.inner, 1, 100))
		b.wants(datagram(a.inner, b.inner, 1, 100))
		if !a.peer(b).Endpoint().Src.IsValid() {
			t.Fatal("no source was learned")
		}
		a.host.SetAddrs(netip.MustParseAddr("192.0.2.77"))
		a.send(datagram(a.inner, b.inner, 2, 100))
		synctest.Wait()
		if src := a.peer(b).Endpoint().Src; src.IsValid() {
			t.Errorf("the source is still %v", src)
		}
		b.wants(datagram(a.inner, b.inner, 2, 100))
	})
}
