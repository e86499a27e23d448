package wire

import "testing"

func TestPadded(t *testing.T) {
	for _, c := range []struct{ n, mtu, want int }{
		{0, 1420, 0}, // a keepalive stays empty
		{1, 1420, 16},
		{16, 1420, 16},
		{17, 1420, 32},
		{1408, 1420, 1408},
		{1409, 1420, 1420}, // never beyond the MTU
		{1420, 1420, 1420},
		{1421, 1420, 1436}, // read before the MTU shrank: the last unit, of 1 byte, is padded to 16
		{2840, 1420, 2840},
		{1500, 0, 1504},
		{3, 2, 4}, // a silly MTU bounds the last unit still
	} {
		if got := Padded(c.n, c.mtu); got != c.want {
			t.Errorf("Padded(%d, %d) = %d, want %d", c.n, c.mtu, got, c.want)
		}
	}
	for mtu := range 100 {
		for n := range 300 {
			p := Padded(n, mtu)
			if p < n || p > n+PaddingMultiple-1 {
				t.Fatalf("Padded(%d, %d) = %d", n, mtu, p)
			}
			if mtu > 0 && n <= mtu && p > mtu {
				t.Fatalf("Padded(%d, %d) = %d, beyond the MTU", n, mtu, p)
			}
		}
	}
}

// The sizes that the whitepaper draws, §5.4.2 to §5.4.7.
func TestSizes(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want int
	}{
		{"initiation", InitiationSize, 148},
		{"response", ResponseSize, 92},
		{"cookie reply", CookieReplySize, 64},
		{"transport header", TransportHeaderSize, 16},
		{"keepalive", KeepaliveSize, 32},
		{"handshake attempts", MaxHandshakeAttempts, 18},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d, want %d", c.name, c.got, c.want)
		}
	}
}

// Every type but that of a transport message has a size of its own.
func TestHandshakeSize(t *testing.T) {
	for kind, want := range map[uint32]int{0: 0, TypeInitiation: 148, TypeResponse: 92, TypeCookieReply: 64, TypeTransport: 0, 5: 0, 1 << 8: 0} {
		if size, ok := HandshakeSize(kind); size != want || ok != (want != 0) {
			t.Errorf("type %d: %d bytes, %v; want %d", kind, size, ok, want)
		}
	}
}
