package throughline_test

import (
	"fmt"
	"net/netip"

	"throughline"
	"throughline/tun/tuntest"
)

// Two devices in one process talk to each other over UDP on the loopback interface. Their TUNs are in memory: what one
// program would send through its interface comes out of the other's.
func Example() {
	here, there := tuntest.New(1420), tuntest.New(1420)
	a, err := throughline.New(throughline.Options{TUN: here})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Close()
	b, err := throughline.New(throughline.Options{TUN: there})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close()

	// Each has a key of its own, and takes any free port.
	keyA, keyB := throughline.NewPrivateKey(), throughline.NewPrivateKey()
	for dev, key := range map[*throughline.Device]*throughline.PrivateKey{a: &keyA, b: &keyB} {
		if err := dev.Configure(throughline.Config{PrivateKey: key}); err != nil {
			fmt.Println(err)
			return
		}
		if err := dev.Up(); err != nil {
			fmt.Println(err)
			return
		}
	}

	// a knows where b is, and which addresses are behind it. b learns where a is when a speaks.
	endpoint := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), b.Status().ListenPort)
	if err := a.Configure(throughline.Config{Peers: []throughline.PeerConfig{{
		PublicKey:  keyB.Public(),
		Endpoint:   &endpoint,
		AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.9.0.2/32")},
	}}}); err != nil {
		fmt.Println(err)
		return
	}
	if err := b.Configure(throughline.Config{Peers: []throughline.PeerConfig{{
		PublicKey:  keyA.Public(),
		AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/32")},
	}}}); err != nil {
		fmt.Println(err)
		return
	}

	here.Outbound(ipv4("10.9.0.1", "10.9.0.2", "hello"))
	fmt.Printf("b received %q\n", payload(<-there.Inbound()))
	there.Outbound(ipv4("10.9.0.2", "10.9.0.1", "hello yourself"))
	fmt.Printf("a received %q\n", payload(<-here.Inbound()))

	fmt.Println("handshake done:", !a.Status().Peers[0].LastHandshake.IsZero())
	// Output:
	// b received "hello"
	// a received "hello yourself"
	// handshake done: true
}

// ipv4 makes an IPv4 packet of the experimental protocol 253.
func ipv4(from, to, text string) []byte {
	p := make([]byte, 20+len(text))
	p[0], p[3], p[8], p[9] = 0x45, byte(len(p)), 64, 253
	copy(p[12:], netip.MustParseAddr(from).AsSlice())
	copy(p[16:], netip.MustParseAddr(to).AsSlice())
	copy(p[20:], text)
	return p
}

func payload(p []byte) string { return string(p[20:]) }
