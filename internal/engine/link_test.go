package engine

import (
	"testing"
	"testing/synctest"
	"time"

	"throughline/internal/wire"
	"throughline/packet"
	"throughline/udp/udptest"
	"throughline/wgtypes"
)

// A packet that is read before the event is handled that the TUN is up leaves with the first handshake.
func TestWhatComesBeforeTheEventIsNotLost(t *testing.T) {
	for _, c := range []struct {
		what  string
		after time.Duration // of the packet, comes the event
		want  bool
	}{
		{"at once", 0, true},
		{"in time", upWithin - 10*time.Millisecond, true},
		{"too late", upWithin + 100*time.Millisecond, false}, // it was left over from before the TUN was set down
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := udptest.New(1, udptest.Options{})
				a, b := pair(t, net)
				a.send(datagram(a.inner, b.inner, 1, 100))
				b.wants(datagram(a.inner, b.inner, 1, 100))
				a.LinkDown()
				time.Sleep(time.Second)
				sent := count(net, wire.TypeInitiation)
				a.send(datagram(a.inner, b.inner, 2, 100))
				time.Sleep(c.after)
				synctest.Wait()
				if n := sent(); n != 0 {
					t.Errorf("%d initiations were sent while down", n)
				}
				if err := a.Up(); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if c.want {
					b.wants(datagram(a.inner, b.inner, 2, 100))
				} else {
					b.wantsNothing(wire.RekeyTimeout + time.Second)
				}
				if n := a.drops[packet.DropDown].Load(); (n == 0) != c.want {
					t.Errorf("%d packets were dropped as down", n)
				}
				a.send(datagram(a.inner, b.inner, 3, 100))
				b.wants(datagram(a.inner, b.inner, 3, 100))
			})
		})
	}
}

// The TUN goes down and up so fast that its packets come before either event is handled.
func TestWhatComesBetweenDownAndUpIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		net.Cut(a.host, b.host)
		a.send(datagram(a.inner, b.inner, 1, 100)) // staged, and Down is handled only now
		synctest.Wait()
		a.LinkDown()
		net.Heal(a.host, b.host)
		if err := a.Up(); err != nil {
			t.Fatal(err)
		}
		b.wants(datagram(a.inner, b.inner, 1, 100))
	})
}

// What a program holds down stays down: packets are dropped at once, and neither they nor those staged before leave later.
func TestHeldDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := udptest.New(1, udptest.Options{})
		a, b := pair(t, net)
		a.LinkDown()
		a.send(datagram(a.inner, b.inner, 1, 100))
		synctest.Wait()
		if n := a.drops[packet.DropDown].Load(); n != 0 {
			t.Fatal("it was dropped before the program called Down")
		}
		a.Down()
		a.send(datagram(a.inner, b.inner, 2, 100))
		synctest.Wait()
		if n := a.drops[packet.DropDown].Load(); n != 2 {
			t.Errorf("%d packets were dropped as down, want 2", n)
		}
		time.Sleep(time.Minute)
		if a.sockets.Load() != nil {
			t.Error("it came up by itself")
		}
		if err := a.Up(); err != nil {
			t.Fatal(err)
		}
		b.wantsNothing(wire.RekeyTimeout + time.Second)
	})
}

// What waits for the event that the TUN is up waits within the budget of all that is staged, and leaves it when the time is
// over, or when the key goes without which no session can come of it.
func TestWhatWaitsForTheLinkLeavesTheBudget(t *testing.T) {
	for _, c := range []struct {
		what string
		end  func(a *node)
	}{
		{"no event", func(*node) { time.Sleep(upWithin + 100*time.Millisecond) }},
		{"no key", func(a *node) { a.configure(&wgtypes.Config{PrivateKey: &wgtypes.PrivateKey{}}) }},
		{"held", func(a *node) { a.Down() }},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := udptest.New(1, udptest.Options{})
				a, b := pair(t, net)
				a.LinkDown()
				a.send(datagram(a.inner, b.inner, 1, 100))
				synctest.Wait()
				p := a.peer(b)
				if n := p.Staged.Len(); n != 1 {
					t.Fatalf("%d packets are staged, want 1", n)
				}
				c.end(a)
				synctest.Wait()
				if n := p.Staged.Len(); n != 0 || p.Waiting.Load() || a.drops[packet.DropDown].Load() != 1 {
					t.Errorf("%d packets are staged, waiting: %v; drops: %v", n, p.Waiting.Load(), a.reasons())
				}
			})
		})
	}
}
