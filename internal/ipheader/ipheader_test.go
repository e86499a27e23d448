package ipheader

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// ipv4 makes a packet of size bytes from 10.0.0.1 to 10.0.0.2.
func ipv4(size int) []byte {
	p := make([]byte, size)
	p[0] = 0x45
	binary.BigEndian.PutUint16(p[2:], uint16(size))
	copy(p[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	return p
}

// ipv6 makes a packet of size bytes from fd00::1 to fd00::2.
func ipv6(size int) []byte {
	p := make([]byte, size)
	p[0] = 0x60
	binary.BigEndian.PutUint16(p[4:], uint16(size-IPv6Size))
	p[8], p[23], p[24], p[39] = 0xfd, 1, 0xfd, 2
	return p
}

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		p        []byte
		from, to string
	}{
		{ipv4(20), "10.0.0.1", "10.0.0.2"},
		{ipv6(40), "fd00::1", "fd00::2"},
	} {
		from, n, ok := Source(c.p)
		if !ok || from != netip.MustParseAddr(c.from) || n != len(c.p) {
			t.Errorf("source %v, %d bytes, %v; want %s, %d bytes", from, n, ok, c.from, len(c.p))
		}
		if to, ok := Destination(c.p); !ok || to != netip.MustParseAddr(c.to) {
			t.Errorf("destination %v, %v; want %s", to, ok, c.to)
		}
		short := c.p[:len(c.p)-1]
		if _, _, ok := Source(short); ok {
			t.Errorf("a source in %d bytes of %v", len(short), c.p[0]>>4)
		}
		if _, ok := Destination(short); ok {
			t.Errorf("a destination in %d bytes of %v", len(short), c.p[0]>>4)
		}
	}
}

// FuzzSource checks what is said of packets that were opened: a length within the packet, or nothing.
func FuzzSource(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 20})
	f.Add([]byte{0x60, 0, 0, 0, 0xff, 0xff})
	f.Add(ipv6(60))
	f.Fuzz(func(t *testing.T, p []byte) {
		if from, n, ok := Source(p); ok {
			if n > len(p) || n < IPv4Size || !from.IsValid() {
				t.Fatalf("%d bytes from %v in a packet of %d", n, from, len(p))
			}
		}
		if to, ok := Destination(p); ok && !to.IsValid() {
			t.Fatal("an invalid destination")
		}
	})
}

// An IPv6 length near 65535 must not wrap: it is refused, for the packet is shorter.
func TestLengths(t *testing.T) {
	v6 := func(payload uint16, size int) []byte {
		p := ipv6(size)
		binary.BigEndian.PutUint16(p[4:], payload)
		return p
	}
	v4 := func(total uint16, size int) []byte {
		p := ipv4(size)
		binary.BigEndian.PutUint16(p[2:], total)
		return p
	}
	for _, c := range []struct {
		name string
		p    []byte
		n    int
		ok   bool
	}{
		{"v4 exact", v4(100, 100), 100, true},
		{"v4 padded", v4(100, 112), 100, true},
		{"v4 longer than it is", v4(101, 100), 0, false},
		{"v4 shorter than a header", v4(19, 100), 0, false},
		{"v4 zero", v4(0, 100), 0, false},
		{"v6 exact", v6(60, 100), 100, true},
		{"v6 padded", v6(50, 100), 90, true},
		{"v6 header only", v6(0, 48), 40, true},
		{"v6 longer than it is", v6(61, 100), 0, false},
		{"v6 65495", v6(65495, 100), 0, false},
		{"v6 65496 would wrap 16 bits", v6(65496, 100), 0, false},
		{"v6 65535 would wrap 16 bits", v6(65535, 100), 0, false},
		{"empty", nil, 0, false},
		{"version 5", []byte{0x55, 39: 0}, 0, false},
	} {
		if _, n, ok := Source(c.p); ok != c.ok || ok && n != c.n {
			t.Errorf("%s: %d, %v; want %d, %v", c.name, n, ok, c.n, c.ok)
		}
	}
}

func TestUDP(t *testing.T) {
	v4, v6 := ipv4(40), ipv6(60)
	v4[9], v6[6] = 17, 17
	v4[22], v4[23], v4[28] = 0xca, 0x6c, 7 // port 51820
	v6[42], v6[43], v6[48] = 0xca, 0x6c, 7
	options := append(append(append([]byte(nil), v4[:20]...), 0, 0, 0, 0), v4[20:]...)
	options[0] = 0x46
	first := append(append(append([]byte(nil), v6[:40]...), 17, 0, 0, 1, 0, 0, 0, 9), v6[40:]...) // more follow
	first[6] = 44
	for name, p := range map[string][]byte{"IPv4": v4, "options": options, "IPv6": v6, "a first fragment": first} {
		if port, payload, ok := UDP(p); !ok || port != 51820 || len(payload) != 12 || payload[0] != 7 {
			t.Errorf("%s: port %d, payload % x, %v", name, port, payload, ok)
		}
		for n := range len(p) {
			UDP(p[:n]) // must not panic
		}
	}
	change := func(p []byte, at int, to byte) []byte {
		q := append([]byte(nil), p...)
		q[at] = to
		return q
	}
	for name, p := range map[string][]byte{
		"TCP": change(v4, 9, 6), "TCP over IPv6": change(v6, 6, 6), "a later fragment": change(v4, 7, 1),
		"a later fragment over IPv6": change(first, 43, 8), "options beyond the end": change(v4, 0, 0x4f),
		"a header too short": change(v4, 0, 0x44), "no room for the header": v4[:27], "nothing": nil, "no IP": change(v4, 0, 0x55),
	} {
		if _, _, ok := UDP(p); ok {
			t.Errorf("%s is taken for UDP", name)
		}
	}
}
