package datagram

import (
	"net"
	"net/netip"
	"testing"
)

type other string

func (other) Network() string  { return "other" }
func (o other) String() string { return string(o) }

func TestAddrPort(t *testing.T) {
	for _, tt := range []struct {
		in   net.Addr
		want string
	}{
		{&net.UDPAddr{IP: net.IPv4(1, 2, 3, 4), Port: 5}, "1.2.3.4:5"},
		{&net.TCPAddr{IP: net.IPv6loopback, Port: 5}, "[::1]:5"},
		{other("[::ffff:1.2.3.4]:5"), "1.2.3.4:5"},
		{other("pipe"), "invalid AddrPort"},
		{nil, "invalid AddrPort"},
	} {
		if got := AddrPort(tt.in); got.String() != tt.want {
			t.Errorf("%v: %v", tt.in, got)
		}
	}
}

// plain is a socket that has only what every socket has.
type plain struct{ net.PacketConn }

func TestSockets(t *testing.T) {
	open := func() net.PacketConn {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pc.Close() })
		return pc
	}
	a, b := open(), open()
	to, data, buf := AddrPort(b.LocalAddr()), []byte("hello"), make([]byte, 100)
	from := AddrPort(a.LocalAddr())
	trip := func(a, b net.PacketConn) {
		if err := Send(a, data, to); err != nil {
			t.Fatal(err)
		}
		n, src, err := Receive(b, buf)
		if err != nil || string(buf[:n]) != "hello" || src != from {
			t.Fatalf("%q from %v, %v", buf[:n], src, err)
		}
	}
	trip(plain{a}, plain{b})
	if n := testing.AllocsPerRun(100, func() { trip(a, b) }); n > 0 {
		t.Errorf("%v allocations for a datagram", n)
	}
	if to == (netip.AddrPort{}) {
		t.Error("no address")
	}
}
