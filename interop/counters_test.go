package interop

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Sizes of messages. Whitepaper §5.4.
const (
	initiation = 148
	response   = 92
	keepalive  = 32
)

// datagram returns the size of the message that carries an IP packet: padded to a multiple of 16, but not beyond the MTU,
// with a header and a tag of 16 bytes each. Whitepaper §5.4.6.
func datagram(packet, mtu int) int { return min((packet+15)&^15, mtu) + 32 }

// TestCounters asks: do both sides count exactly the bytes that were sent and received?
func TestCounters(t *testing.T) {
	for _, p := range rolePairs {
		for _, p.mtu = range []int{1420, 1280} {
			t.Run(fmt.Sprintf("%s pings %s/mtu=%d", p.a, p.b, p.mtu), func(t *testing.T) {
				t.Parallel()
				b := newBed(t, p)
				b.configure()
				other := map[*side]*side{b.a: b.b, b.b: b.a}
				tx := map[*side]int{}
				check := func(when string) {
					t.Helper()
					for s, o := range other {
						want := []string{strconv.Itoa(tx[o]), strconv.Itoa(tx[s])}
						err := within(time.Second, func() error { // the last packet may still be in flight when ping has ended
							if got := s.peer("transfer"); !slices.Equal(got, want) {
								return fmt.Errorf("%s, %s (%s): received, sent = %v, want %v", when, s.ns, s.program, got, want)
							}
							return nil
						})
						if err != nil {
							t.Error(err)
						}
					}
				}
				known := map[*side]int{}
				excused := func() (n int) {
					for s, o := range other {
						k := s.needlessHandshakes() - known[s]
						known[s] += k
						tx[s] += k * (initiation + keepalive)
						tx[o] += k * response
						n += k
					}
					return n
				}
				check("before")

				if err := b.a.ping(b.b.inner[ipv4], 10); err != nil {
					t.Fatal(err)
				}
				tx[b.a] += initiation + 10*datagram(84, p.mtu)
				tx[b.b] += response + 10*datagram(84, p.mtu)
				check("after ten pings")

				for _, size := range []int{p.mtu, p.mtu - 1, p.mtu - 17, 49, 48, 47} { // of the whole IPv6 packet
					if size < 48 {
						continue
					}
					if err := b.b.ping(b.a.inner[ipv6], 1, "-M", "do", "-s", strconv.Itoa(size-48)); err != nil {
						t.Fatal(err)
					}
					tx[b.a] += datagram(size, p.mtu)
					tx[b.b] += datagram(size, p.mtu)
				}
				check("after pings of many sizes")

				// a has answered, so it sends no keepalive. b received last and has sent nothing since: it sends one keepalive
				// after KEEPALIVE_TIMEOUT, which a must not answer. Whitepaper §6.5.
				time.Sleep(10*time.Second + 1500*time.Millisecond)
				if excused() == 0 {
					tx[b.b] += keepalive
				} // else the response counts as traffic, too
				check("after the passive keepalive")
				time.Sleep(5 * time.Second)
				excused()
				check("five seconds later")
			})
		}
	}
}

// needlessHandshakes returns how often a wireguard-go began a handshake without a reason. It starts its timers after it has
// sent, and on a busy machine the answer, which would stop them, may have come before.
func (s *side) needlessHandshakes() int {
	log := s.daemon.log()
	return strings.Count(log, "Handshake did not complete") + strings.Count(log, "because we stopped hearing back")
}

// TestPersistentKeepalive asks: does a side with a persistent keepalive send keepalives without traffic, at once and then at
// the interval? Whitepaper §6.5 has only the passive keepalive; wg(8) documents the persistent one.
func TestPersistentKeepalive(t *testing.T) {
	for _, p := range rolePairs {
		t.Run(fmt.Sprintf("%s to %s", p.a, p.b), func(t *testing.T) {
			t.Parallel()
			b := newBed(t, p)
			b.configure()
			begun := time.Now()
			b.a.wg("peer", b.b.public, "persistent-keepalive", "2")
			set := time.Now()
			time.Sleep(4*time.Second + 900*time.Millisecond)
			least := 1 + int(time.Since(set)/(2*time.Second)) // after 0, 2 and 4 seconds
			b.a.wg("peer", b.b.public, "persistent-keepalive", "off")
			most := 1 + int(time.Since(begun)/(2*time.Second)) // more only if the machine took so long to switch it off
			k := b.a.needlessHandshakes()
			var want [][]string
			for n := least; n <= most; n++ {
				want = append(want, []string{strconv.Itoa((1 + k) * response), strconv.Itoa((1+k)*initiation + (n+k)*keepalive)})
			}
			got := b.a.peer("transfer")
			if !slices.ContainsFunc(want, func(w []string) bool { return slices.Equal(got, w) }) {
				t.Errorf("%s: received, sent = %v, want %v", p.a, got, want)
			}
			b.b.wantReach(b.a)
		})
	}
}
