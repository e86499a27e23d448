package interop

import (
	"fmt"
	"strconv"
	"testing"
)

// pairs are the two beds that each test uses.
var pairs = []plan{{a: ours, b: ours}, {a: ours, b: theirs}}

// TestMatrix asks: do both programs work together, whichever begins the handshake, with and without a preshared key, with
// every pair of outer and inner family, with packets of every size that fits the MTU?
func TestMatrix(t *testing.T) {
	for _, p := range pairs {
		for _, first := range []string{"a", "b"} {
			for _, p.outer = range []family{ipv4, ipv6} {
				for _, p.psk = range []bool{false, true} {
					for _, p.mtu = range []int{1280, 1420, 9000} {
						name := fmt.Sprintf("%s+%s/first=%s/%v/psk=%v/mtu=%d", p.a, p.b, first, p.outer, p.psk, p.mtu)
						t.Run(name, func(t *testing.T) {
							b := newBed(t, p)
							b.configure()
							from, to := b.a, b.b
							if first == "b" {
								from, to = b.b, b.a
							}
							from.wantReach(to)
							for f, header := range map[family]int{ipv4: 20 + 8, ipv6: 40 + 8} {
								size := strconv.Itoa(p.mtu - header)
								if err := to.ping(from.inner[f], 3, "-M", "do", "-s", size); err != nil {
									t.Errorf("%v packets as large as the MTU: %v", f, err)
								}
							}
						})
					}
				}
			}
		}
	}
}

// TestFlows asks: do TCP and UDP flows arrive, in both directions, for every pair, every MTU and both families?
func TestFlows(t *testing.T) {
	for _, p := range pairs {
		for i, mtu := range []int{1280, 1420, 9000} {
			p.mtu, p.outer = mtu, family(i%2)
			inner := family((i + 1) % 2)
			t.Run(fmt.Sprintf("%s+%s/mtu=%d/%v in %v", p.a, p.b, mtu, inner, p.outer), func(t *testing.T) {
				b := newBed(t, p)
				b.configure()
				b.a.wantReach(b.b)
				defer b.b.serve()()
				for _, way := range [][]string{{}, {"-R"}} {
					tcp, err := b.a.iperf(b.b.inner[inner], append(way, "-t", "1")...)
					if err != nil {
						t.Error(err)
					}
					udp, err := b.a.slowUDP(b.b.inner[inner], way)
					if err != nil {
						t.Error(err)
					}
					t.Logf("%v TCP %.2f Gbit/s, UDP %.1f Mbit/s, %.2f %% lost", way, tcp.bits/1e9, udp.bits/1e6, udp.lost)
				}
			})
		}
	}
}

// TestLinkLocal asks: do both programs work together over link-local addresses?
func TestLinkLocal(t *testing.T) {
	for _, p := range pairs {
		t.Run(fmt.Sprintf("%s+%s", p.a, p.b), func(t *testing.T) {
			b := newBed(t, p)
			b.a.ip("addr add fe80::a/64 dev cable nodad")
			b.b.ip("addr add fe80::b/64 dev cable nodad")
			b.a.setKey()
			b.a.addPeer(b.b, "[fe80::b%cable]:51820")
			b.b.setKey()
			b.b.addPeer(b.a, "")
			b.a.wantReach(b.b)
			b.b.wantReach(b.a)
			for s, want := range map[*side]string{b.a: "[fe80::b%cable]:51820", b.b: "[fe80::a%cable]:51820"} {
				got := s.peer("endpoints")[0]
				if s.program == theirs { // any of a's addresses on the link would do
					continue
				}
				if got != want {
					t.Errorf("%s has the endpoint %s of the other, want %s", s.ns, got, want)
				}
			}
		})
	}
}
