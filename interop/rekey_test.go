package interop

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// TestRekey asks: is a session renewed without a lost packet? That happens after two minutes, so this takes longer.
func TestRekey(t *testing.T) {
	if os.Getenv(envLong) != "1" {
		t.Skipf("takes 130 s: set %s=1", envLong)
	}
	const length = 130 * time.Second
	for _, p := range rolePairs {
		t.Run(fmt.Sprintf("%s begins with %s", p.a, p.b), func(t *testing.T) {
			t.Parallel()
			b := newBed(t, p)
			b.configure()
			b.a.wantReach(b.b)
			handshake := func() int {
				n, err := strconv.Atoi(b.a.peer("latest-handshakes")[0])
				if err != nil || n == 0 {
					t.Fatalf("latest handshake: %d, %v", n, err)
				}
				return n
			}
			before := handshake()
			defer b.b.serve()()

			var wg sync.WaitGroup
			wg.Go(func() {
				for begun := time.Now(); time.Since(begun) < length; time.Sleep(50 * time.Millisecond) {
					if err := b.a.ping(b.b.inner[ipv4], 1); err != nil {
						t.Errorf("after %v: %v", time.Since(begun), err)
					}
				}
			})
			wg.Go(func() {
				seconds := strconv.Itoa(int(length / time.Second))
				f, err := b.a.iperf(b.b.inner[ipv6], "-t", seconds, "-b", "20M")
				if err != nil || f.bits < 15e6 {
					t.Errorf("TCP at 20 Mbit/s: %.1f Mbit/s, %v", f.bits/1e6, err)
				}
			})
			wg.Wait()

			if d := handshake() - before; d < 115 || d > 130 {
				t.Errorf("the latest handshake is %d s after the first, want about 120", d)
			}
		})
	}
}
