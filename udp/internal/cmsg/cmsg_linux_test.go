package cmsg

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func message(level, kind int, data ...byte) []byte {
	b, d := appendMessage(make([]byte, 0, 256), level, kind, len(data))
	copy(d, data)
	return b
}

func native32(x uint32) []byte { return binary.NativeEndian.AppendUint32(nil, x) }

func TestParse(t *testing.T) {
	src4, src6 := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")
	info4 := append(append(native32(3), 192, 0, 2, 7), 192, 0, 2, 255)
	a6 := src6.As16()
	info6 := append(a6[:], native32(4)...)
	gro := message(unix.SOL_UDP, unix.UDP_GRO, native32(1452)...)
	pkt4 := message(unix.SOL_IP, unix.IP_PKTINFO, info4...)
	pkt6 := message(unix.SOL_IPV6, unix.IPV6_PKTINFO, info6...)
	other := message(unix.SOL_SOCKET, unix.SCM_TIMESTAMP, 1, 2, 3)
	multi := netip.MustParseAddr("ff02::1").As16()
	for _, c := range []struct {
		name string
		b    []byte
		want Control
	}{
		{"nothing", nil, Control{Valid: true}},
		{"GRO", gro, Control{Size: 1452, Valid: true}},
		{"source", pkt4, Control{Src: src4, SrcIf: 3, Valid: true}},
		{"source, IPv6", pkt6, Control{Src: src6, SrcIf: 4, Valid: true}},
		{"to a multicast group", message(unix.SOL_IPV6, unix.IPV6_PKTINFO, append(multi[:], native32(4)...)...), Control{SrcIf: 4, Valid: true}},
		{"both", append(bytes.Clone(pkt4), gro...), Control{Src: src4, SrcIf: 3, Size: 1452, Valid: true}},
		{"both, the other way round", append(bytes.Clone(gro), pkt6...), Control{Src: src6, SrcIf: 4, Size: 1452, Valid: true}},
		{"an unknown one before", append(bytes.Clone(other), gro...), Control{Size: 1452, Valid: true}},
		{"without the last padding", append(bytes.Clone(other), gro[:header+4]...), Control{Size: 1452, Valid: true}},
		{"too little data", message(unix.SOL_UDP, unix.UDP_GRO, 1, 2, 3), Control{Valid: true}},
		{"less than a header behind it", append(bytes.Clone(gro), 0, 0, 0), Control{Size: 1452, Valid: true}},
		{"cut off", pkt6[:header+10], Control{}},
		{"length 0", append(bytes.Clone(gro), make([]byte, header)...), Control{Size: 1452}},
	} {
		if got := Parse(c.b); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// FuzzParse holds Parse against the one of x/sys, which allocates.
func FuzzParse(f *testing.F) {
	f.Add(message(unix.SOL_UDP, unix.UDP_GRO, native32(1452)...))
	f.Add(append(message(unix.SOL_IP, unix.IP_PKTINFO, make([]byte, 12)...), message(unix.SOL_UDP, unix.UDP_GRO, 0, 1, 0, 0)...))
	f.Add(message(unix.SOL_IPV6, unix.IPV6_PKTINFO, make([]byte, 20)...))
	f.Add(bytes.Repeat([]byte{0xff}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := Parse(b)
		ms, err := unix.ParseSocketControlMessage(b)
		if got.Valid != (err == nil) {
			t.Fatalf("valid %t, x/sys: %v", got.Valid, err)
		}
		if err != nil {
			return
		}
		want := Control{Valid: true}
		for _, m := range ms {
			switch {
			case m.Header.Level == unix.SOL_UDP && m.Header.Type == unix.UDP_GRO && len(m.Data) >= 4:
				want.Size = int(int32(binary.NativeEndian.Uint32(m.Data)))
			case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 12:
				want.SrcIf = binary.NativeEndian.Uint32(m.Data)
				want.Src, _ = netip.AddrFromSlice(m.Data[4:8])
			case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 20:
				want.SrcIf = binary.NativeEndian.Uint32(m.Data[16:])
				if a, _ := netip.AddrFromSlice(m.Data[:16]); !a.IsMulticast() {
					want.Src = a
				}
			}
		}
		if got != want {
			t.Fatalf("%+v, want %+v", got, want)
		}
	})
}

// TestAppend has the parser of x/sys read what is written, over what an earlier send left behind.
func TestAppend(t *testing.T) {
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
			buf := [SendSize]byte(bytes.Repeat([]byte{0xff}, SendSize))
			b := buf[:0]
			if c.src.IsValid() {
				b = AppendSource(b, c.src, 5)
			}
			if size > 0 {
				b = AppendSegment(b, size)
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
				if tail := b[len(b)-(align-2):]; !bytes.Equal(tail, make([]byte, align-2)) {
					t.Errorf("padding %x", tail)
				}
				want++
			}
			if len(ms) != want || len(b)%align != 0 {
				t.Errorf("%d messages in %d bytes, want %d", len(ms), len(b), want)
			}
		}
	}
}
