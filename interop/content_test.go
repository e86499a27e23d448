package interop

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestContents asks: does every byte arrive as it was sent, after packets were read from the TUN as a super-packet, split,
// sealed, sent and received as one, opened, merged and written? ping and iperf3 don't check that, and a kernel doesn't
// verify a checksum that it is told is right.
func TestContents(t *testing.T) {
	for _, p := range pairs {
		for i, mtu := range []int{1280, 1420, 9000} {
			p.mtu, p.outer = mtu, family((i+1)%2)
			for _, inner := range []family{ipv4, ipv6} {
				t.Run(fmt.Sprintf("%s+%s/mtu=%d/%v in %v", p.a, p.b, mtu, inner, p.outer), func(t *testing.T) {
					b := newBed(t, p)
					b.configure()
					b.a.wantReach(b.b)
					streams(t, b.a, b.b, inner)
					datagrams(t, b.a, b.b, inner)
					datagrams(t, b.b, b.a, inner)
				})
			}
		}
	}
}

// streams sends the same random bytes through one TCP connection in both directions at once, in writes of all sizes.
func streams(t *testing.T, a, b *side, f family) {
	t.Helper()
	var near, far net.Conn
	var l net.Listener
	address := net.JoinHostPort(b.inner[f], "7000")
	b.enter(func() (err error) { l, err = net.Listen("tcp", address); return err })
	defer l.Close()
	a.enter(func() (err error) { near, err = net.DialTimeout("tcp", address, waitLimit); return err })
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	const size = 16 << 20
	seed := rand.Uint64()
	type result struct {
		way string
		sum [sha256.Size]byte
		err error
	}
	results := make(chan result, 4)
	for way, c := range map[string]net.Conn{"there": near, "back": far} {
		defer c.Close()
		c.SetDeadline(time.Now().Add(6 * waitLimit))
		go func() {
			noise, sizes, sum := rand.NewChaCha8([32]byte{byte(seed)}), rand.New(rand.NewPCG(seed, 1)), sha256.New()
			buf := make([]byte, 128<<10)
			var err error
			for sent := 0; sent < size && err == nil; {
				n := min(1<<sizes.IntN(17)+sizes.IntN(1000), size-sent)
				noise.Read(buf[:n])
				sum.Write(buf[:n])
				_, err = c.Write(buf[:n])
				sent += n
			}
			results <- result{way + ", sent", [sha256.Size]byte(sum.Sum(nil)), err}
		}()
		go func() {
			sum := sha256.New()
			_, err := io.CopyN(sum, c, size)
			results <- result{way + ", received", [sha256.Size]byte(sum.Sum(nil)), err}
		}()
	}
	var first result
	for i := range cap(results) {
		r := <-results
		if r.err != nil {
			t.Errorf("TCP %s (seed %d): %v", r.way, seed, r.err)
		}
		if i == 0 {
			first = r
		}
		if r.sum != first.sum {
			t.Errorf("TCP: what was %s and %s differs (seed %d)", r.way, first.way, seed)
		}
	}
}

// datagrams sends UDP datagrams of all sizes, some too large for the MTU, and some as super-packets (UDP_SEGMENT).
func datagrams(t *testing.T, from, to *side, f family) {
	t.Helper()
	var out, in *net.UDPConn
	at := &net.UDPAddr{IP: net.ParseIP(to.inner[f]), Port: 7001}
	to.enter(func() (err error) { in, err = net.ListenUDP("udp", at); return err })
	defer in.Close()
	from.enter(func() (err error) { out, err = net.DialUDP("udp", nil, at); return err })
	defer out.Close()

	// A datagram is its number, a checksum of the following bytes, and random bytes.
	seed := rand.Uint64()
	noise := rand.NewChaCha8([32]byte{byte(seed)})
	make1 := func(i, n int) []byte {
		p := make([]byte, 8+sha256.Size+n)
		noise.Read(p[8+sha256.Size:])
		binary.BigEndian.PutUint64(p, uint64(i))
		sum := sha256.Sum256(p[8+sha256.Size:])
		copy(p[8:], sum[:])
		return p
	}
	const rounds, burst = 60, 7
	sizes := rand.New(rand.NewPCG(seed, 2))
	go func() {
		raw, err := out.SyscallConn()
		if err != nil {
			return
		}
		segment := func(size int) { // 0: none
			raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) })
		}
		for r := range rounds {
			out.Write(make1(2*burst*r, sizes.IntN(2*from.mtu))) // a single datagram, perhaps in fragments
			size := sizes.IntN(from.mtu - 8 - sha256.Size - 60)
			var train []byte
			for k := range burst {
				if k == burst-1 {
					size /= 2
				}
				train = append(train, make1(2*burst*r+1+k, size)...)
				if k == 0 {
					segment(len(train))
				}
			}
			out.Write(train)
			segment(0)
			time.Sleep(time.Millisecond)
		}
	}()

	seen := make(map[uint64]bool)
	buf := make([]byte, 65536)
	const want = rounds * (burst + 1)
	in.SetReadDeadline(time.Now().Add(waitLimit))
	for len(seen) < want {
		n, err := in.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p := buf[:n]
		if n < 8+sha256.Size || sha256.Sum256(p[8+sha256.Size:]) != [sha256.Size]byte(p[8:]) {
			t.Fatalf("UDP: a datagram of %d bytes is not as it was sent (seed %d)", n, seed)
		}
		i := binary.BigEndian.Uint64(p)
		if seen[i] {
			t.Fatalf("UDP: datagram %d came twice (seed %d)", i, seed)
		}
		seen[i] = true
		if len(seen) >= want*9/10 { // the others come soon or were lost, as UDP allows
			in.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		}
	}
	if len(seen) < want*9/10 {
		t.Errorf("UDP: %d of %d datagrams arrived (seed %d)", len(seen), want, seed)
	}
}
