package udp

import (
	"bytes"
	"encoding/binary"
	"math"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"throughline/internal/linux"
	"throughline/packet"
)

func cmsg(level, kind int, data ...byte) []byte {
	b, d := appendCmsg(make([]byte, 0, 256), level, kind, len(data))
	copy(d, data)
	return b
}

func native32(x uint32) []byte { return binary.NativeEndian.AppendUint32(nil, x) }

func TestParseControl(t *testing.T) {
	src4, src6 := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")
	info4 := append(append(native32(3), 192, 0, 2, 7), 192, 0, 2, 255)
	a6 := src6.As16()
	info6 := append(a6[:], native32(4)...)
	gro := cmsg(unix.SOL_UDP, unix.UDP_GRO, native32(1452)...)
	pkt4 := cmsg(unix.SOL_IP, unix.IP_PKTINFO, info4...)
	pkt6 := cmsg(unix.SOL_IPV6, unix.IPV6_PKTINFO, info6...)
	other := cmsg(unix.SOL_SOCKET, unix.SCM_TIMESTAMP, 1, 2, 3)
	multi := netip.MustParseAddr("ff02::1").As16()
	for _, c := range []struct {
		name string
		b    []byte
		want control
	}{
		{"nothing", nil, control{valid: true}},
		{"GRO", gro, control{size: 1452, valid: true}},
		{"source", pkt4, control{src: src4, ifi: 3, valid: true}},
		{"source, IPv6", pkt6, control{src: src6, ifi: 4, valid: true}},
		{"to a multicast group", cmsg(unix.SOL_IPV6, unix.IPV6_PKTINFO, append(multi[:], native32(4)...)...), control{ifi: 4, valid: true}},
		{"both", append(bytes.Clone(pkt4), gro...), control{src: src4, ifi: 3, size: 1452, valid: true}},
		{"both, the other way round", append(bytes.Clone(gro), pkt6...), control{src: src6, ifi: 4, size: 1452, valid: true}},
		{"an unknown one before", append(bytes.Clone(other), gro...), control{size: 1452, valid: true}},
		{"without the last padding", append(bytes.Clone(other), gro[:cmsgHeader+4]...), control{size: 1452, valid: true}},
		{"too little data", cmsg(unix.SOL_UDP, unix.UDP_GRO, 1, 2, 3), control{valid: true}},
		{"less than a header behind it", append(bytes.Clone(gro), 0, 0, 0), control{size: 1452, valid: true}},
		{"cut off", pkt6[:cmsgHeader+10], control{}},
		{"length 0", append(bytes.Clone(gro), make([]byte, cmsgHeader)...), control{size: 1452}},
	} {
		if got := parseControl(c.b); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// FuzzParseControl holds parseControl against the one of x/sys, which allocates.
func FuzzParseControl(f *testing.F) {
	f.Add(cmsg(unix.SOL_UDP, unix.UDP_GRO, native32(1452)...))
	f.Add(append(cmsg(unix.SOL_IP, unix.IP_PKTINFO, make([]byte, 12)...), cmsg(unix.SOL_UDP, unix.UDP_GRO, 0, 1, 0, 0)...))
	f.Add(cmsg(unix.SOL_IPV6, unix.IPV6_PKTINFO, make([]byte, 20)...))
	f.Add(bytes.Repeat([]byte{0xff}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := parseControl(b)
		ms, err := unix.ParseSocketControlMessage(b)
		if got.valid != (err == nil) {
			t.Fatalf("valid %t, x/sys: %v", got.valid, err)
		}
		if err != nil {
			return
		}
		want := control{valid: true}
		for _, m := range ms {
			switch {
			case m.Header.Level == unix.SOL_UDP && m.Header.Type == unix.UDP_GRO && len(m.Data) >= 4:
				want.size = int(int32(binary.NativeEndian.Uint32(m.Data)))
			case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 12:
				want.ifi = binary.NativeEndian.Uint32(m.Data)
				want.src, _ = netip.AddrFromSlice(m.Data[4:8])
			case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 20:
				want.ifi = binary.NativeEndian.Uint32(m.Data[16:])
				if a, _ := netip.AddrFromSlice(m.Data[:16]); !a.IsMulticast() {
					want.src = a
				}
			}
		}
		if got != want {
			t.Fatalf("%+v, want %+v", got, want)
		}
	})
}

// TestAppendControl has the parser of x/sys read what is written, over what an earlier send left behind.
func TestAppendControl(t *testing.T) {
	for _, c := range []struct {
		src netip.Addr
		ifi uint32 // written
	}{
		{netip.Addr{}, 0},
		{netip.MustParseAddr("192.0.2.7"), 0},
		{netip.MustParseAddr("2001:db8::7"), 0},
		{netip.MustParseAddr("fe80::7"), 5},
	} {
		for _, size := range []int{0, 1, 1452, 65507} {
			buf := [sendControl]byte(bytes.Repeat([]byte{0xff}, sendControl))
			b := buf[:0]
			if c.src.IsValid() {
				b = appendSource(b, c.src, 5)
			}
			if size > 0 {
				b = appendSegment(b, size)
			}
			ms, err := unix.ParseSocketControlMessage(b)
			if err != nil {
				t.Fatal(err)
			}
			want := 0
			if c.src.IsValid() {
				m := ms[0]
				if c.src.Is4() {
					if m.Header.Level != unix.SOL_IP || m.Header.Type != unix.IP_PKTINFO ||
						!bytes.Equal(m.Data, []byte{0, 0, 0, 0, 192, 0, 2, 7, 0, 0, 0, 0}) {
						t.Errorf("%+v", m)
					}
				} else if m.Header.Level != unix.SOL_IPV6 || m.Header.Type != unix.IPV6_PKTINFO ||
					!bytes.Equal(m.Data, append(c.src.AsSlice(), native32(c.ifi)...)) {
					t.Errorf("%+v", m)
				}
				want++
			}
			if size > 0 {
				m := ms[want]
				if m.Header.Level != unix.SOL_UDP || m.Header.Type != unix.UDP_SEGMENT || len(m.Data) != 2 ||
					binary.NativeEndian.Uint16(m.Data) != uint16(size) {
					t.Errorf("%+v", m)
				}
				if tail := b[len(b)-(cmsgAlign-2):]; !bytes.Equal(tail, make([]byte, cmsgAlign-2)) {
					t.Errorf("padding %x", tail)
				}
				want++
			}
			if len(ms) != want || len(b)%cmsgAlign != 0 {
				t.Errorf("%d messages in %d bytes, want %d", len(ms), len(b), want)
			}
		}
	}
}

// TestOptions opens sockets as on other kernels.
func TestOptions(t *testing.T) {
	for _, c := range []struct {
		host         Host
		release      linux.Version
		gso, unequal bool
		gro          bool
	}{
		{Host{}, linux.Version{5, 11, 22}, true, false, false},
		{Host{}, linux.Version{5, 12, 0}, true, false, true},
		{Host{}, linux.Version{7, 1, 0}, true, true, true},
		{Host{}, linux.Version{7, 2, 0}, true, false, true},
		{Host{Off: packet.GSO}, linux.Version{7, 1, 0}, false, false, true},
		{Host{Off: packet.GRO}, linux.Version{7, 2, 0}, true, false, false},
	} {
		pc, err := net.ListenUDP("udp4", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		rc, err := pc.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var s socket
		rc.Control(func(fd uintptr) {
			s.setOptions(int(fd), &c.host, c.release)
			if on, err := unix.GetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO); err != nil || (on != 0) != c.gro {
				t.Errorf("%+v on %v: UDP_GRO is %d, %v", c.host, c.release, on, err)
			}
		})
		if (s.gso.Load() == uint32(packet.OffloadOn)) != c.gso || s.unequal != c.unequal || s.gro != c.gro {
			t.Errorf("%+v on %v: GSO %d, unequal %t, GRO %t", c.host, c.release, s.gso.Load(), s.unequal, s.gro)
		}
	}
}

func TestDestinations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d destinations
		at := func(i int) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1)
		}
		want := func(i, size int) {
			t.Helper()
			if got := d.limit(at(i)); got != size {
				t.Fatalf("limit of %d: %d, want %d", i, got, size)
			}
		}
		want(0, math.MaxInt)
		d.refuse(at(0), 1452)
		d.refuse(at(1), 100)
		want(0, 1452)
		want(1, 100)
		want(2, math.MaxInt)
		d.refuse(at(0), 1400)
		d.refuse(at(0), 1452)
		want(0, 1400)
		time.Sleep(plainLife / 2)
		d.refuse(at(1), 100)
		time.Sleep(plainLife / 2)
		want(0, math.MaxInt) // tried anew
		want(1, 100)
		for i := range 10 * maxDestinations {
			d.refuse(at(i), 9)
			want(i, 9)
		}
		if len(d.m) != maxDestinations || int(d.n.Load()) != maxDestinations {
			t.Fatalf("%d destinations, counted %d", len(d.m), d.n.Load())
		}
		time.Sleep(plainLife)
		for i := range 10 * maxDestinations {
			want(i, math.MaxInt)
		}
		if len(d.m) != 0 || d.n.Load() != 0 {
			t.Fatalf("%d destinations left, counted %d", len(d.m), d.n.Load())
		}
	})
}
