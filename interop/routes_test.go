package interop

import (
	"testing"
	"time"
)

// TestRoutesChange asks: does a side whose route to the other changes soon send from an address that can be answered? It still
// has the address that it sent from before, so the kernel doesn't refuse it.
//
//	        10 ┌─ cable   192.168.77.0/24 ─┐
//	namespace a                            namespace b, 192.0.2.1
//	        20 └─ second  192.168.88.0/24 ─┘
func TestRoutesChange(t *testing.T) {
	for name, change := range map[string]func(b *bed){
		"own end down": func(b *bed) { b.a.ip("link set cable down") },
		"far end down, another route": func(b *bed) {
			b.b.ip("link set cable down")
			b.a.ip("route replace 192.0.2.1 via 192.168.88.2 metric 10")
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, plan{})
			b.addCable("second", 1500)
			b.a.ip(
				"addr add 192.168.88.1/24 dev second",
				"route add 192.0.2.1 via 192.168.77.2 metric 10",
				"route add 192.0.2.1 via 192.168.88.2 metric 20",
			)
			b.b.ip("addr add 192.168.88.2/24 dev second", "addr add 192.0.2.1/32 dev lo")
			b.a.setKey()
			b.a.addPeer(b.b, "192.0.2.1:51820")
			b.b.setKey()
			b.b.addPeer(b.a, "")
			b.a.wantReach(b.b)
			isAt := func(want string) {
				t.Helper()
				if got := b.b.peer("endpoints")[0]; got != want {
					t.Errorf("the other side has the endpoint %s, want %s", got, want)
				}
			}
			isAt("192.168.77.1:51820")

			change(b)
			begun := time.Now()
			// Until a ping is answered; timers alone would need 15 s or more.
			out, err := b.a.in("ping", "-n", "-q", "-i", "0.1", "-c", "1", "-w", "3", b.b.inner[ipv4]).CombinedOutput()
			if err != nil {
				t.Fatalf("no answer within 3 s: %s", out)
			}
			t.Logf("the tunnel works again after %v", time.Since(begun).Round(time.Millisecond))
			isAt("192.168.88.1:51820")
			b.a.wantReach(b.b)
			b.b.wantReach(b.a)
		})
	}
}
