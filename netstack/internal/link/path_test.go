package link

import (
	"encoding/binary"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// tooBig returns an ICMPv6 message that a packet to a destination was too big for an MTU.
func tooBig(to byte, mtu uint32) []byte {
	b := make([]byte, header6+tooBigHeader+header6+8)
	b[0], b[nextHeader] = 0x60, 58
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-header6))
	b[8], b[24], b[39] = 0xfd, 0xfd, 1
	b[40] = 2
	binary.BigEndian.PutUint32(b[44:], mtu)
	q := b[header6+tooBigHeader:]
	q[0], q[8], q[23], q[24], q[39] = 0x60, 0xfd, 1, 0xfd, to
	sign(b)
	return b
}

func sign(b []byte) {
	b[42], b[43] = 0, 0
	ip, msg := header.IPv6(b), b[header6:]
	sum := header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), uint16(len(msg)))
	binary.BigEndian.PutUint16(b[42:], ^checksum.Checksum(msg, sum))
}

func destination(n byte) [16]byte { return [16]byte{0: 0xfd, 15: n} }

func TestPaths(t *testing.T) {
	now := time.Now()
	var p paths
	for _, bad := range [][]byte{
		nil, tooBig(1, 1279), tooBig(1, 0), tooBig(1, 1<<20), tooBig(1, 1400)[:header6+tooBigHeader+header6-1],
		func() []byte { b := tooBig(1, 1400); b[42]++; return b }(),                     // a wrong checksum
		func() []byte { b := tooBig(1, 1400); b[40] = 1; sign(b); return b }(),          // another message
		func() []byte { b := tooBig(1, 1400); b[48+8] = 0xfe; sign(b); return b }(),     // about another's packet
		func() []byte { b := tooBig(1, 1400); b[48] = 0x45; sign(b); return b }(),       // about an IPv4 packet
		func() []byte { b := tooBig(1, 1400); b[nextHeader] = 17; sign(b); return b }(), // a datagram
	} {
		if p.learn(bad, now); p.table.Load() != nil {
			t.Fatalf("% x is believed", bad)
		}
	}
	check := func(to byte, at time.Duration, want int) {
		t.Helper()
		if got := p.mtu(destination(to), now.Add(at)); got != want {
			t.Errorf("the path MTU to %d after %v is %d, want %d", to, at, got, want)
		}
	}
	p.learn(tooBig(1, 1400), now)
	check(1, 0, 1400)
	check(2, 0, 0)
	p.learn(tooBig(1, 1500), now)
	check(1, 0, 1400) // it doesn't become larger
	p.learn(tooBig(1, 1300), now.Add(time.Minute))
	check(1, time.Minute, 1300)
	check(1, 11*time.Minute-1, 1300)
	check(1, 11*time.Minute, 0)
	p.learn(tooBig(1, 1500), now.Add(12*time.Minute))
	check(1, 12*time.Minute, 1500)
}

// TestPathsAreBounded learns of more destinations than are kept: the oldest is forgotten.
func TestPathsAreBounded(t *testing.T) {
	now := time.Now()
	var p paths
	for i := range maxPaths + 10 {
		b := tooBig(0, 1300)
		binary.BigEndian.PutUint16(b[48+38:], uint16(i))
		sign(b)
		p.learn(b, now.Add(time.Duration(i)))
	}
	if n := len(*p.table.Load()); n != maxPaths {
		t.Errorf("%d are kept, want %d", n, maxPaths)
	}
	for _, i := range []byte{0, 9, 10, 255} {
		if got := p.mtu(destination(i), now) != 0; got != (i >= 10) {
			t.Errorf("destination %d is kept: %v", i, got)
		}
	}
}

// FuzzTooBig reads packets: what is learned is in bounds, and fragments are no larger than that.
func FuzzTooBig(f *testing.F) {
	f.Add(tooBig(1, 1400))
	f.Add(tooBig(1, 1279))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p paths
		if len(b) >= header6+tooBigHeader+header6 {
			sign(b)
		}
		p.learn(b, time.Now())
		if table := p.table.Load(); table != nil {
			for _, e := range *table {
				if e.mtu < minMTU6 || e.mtu > 1<<16 || fragmentPayload(e.mtu)%8 != 0 || fragmentPayload(e.mtu)+header6+fragment6 > e.mtu {
					t.Errorf("an MTU of %d is learned", e.mtu)
				}
			}
		}
	})
}
