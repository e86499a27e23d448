package interop

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	theirtun "golang.zx2c4.com/wireguard/tun/tuntest"

	"throughline"
	"throughline/tun/tuntest"
)

// A library is one implementation's device in this process, with a TUN in memory: it needs no privileges.
type library struct {
	configure func(peer string, psk string, port uint16, at netip.Addr, allowed string)
	port      uint16
	out       func(p []byte)
	in        <-chan []byte
}

// newLibrary makes a device with a private key. It is closed when the test ends.
func newLibrary(t *testing.T, p program, private string) *library {
	t.Helper()
	fail := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if p == ours {
		tun := tuntest.New(1420)
		dev, err := throughline.New(throughline.Options{TUN: tun})
		fail(err)
		t.Cleanup(func() {
			if err := dev.Close(); err != nil {
				t.Error(err)
			}
		})
		key, err := throughline.ParsePrivateKey(private)
		fail(err)
		fail(dev.Configure(throughline.Config{PrivateKey: &key}))
		fail(dev.Up())
		return &library{
			port: dev.Status().ListenPort, in: tun.Inbound(),
			out: func(p []byte) { tun.Outbound(p) },
			configure: func(peer, psk string, port uint16, at netip.Addr, allowed string) {
				t.Helper()
				public, err := throughline.ParsePublicKey(peer)
				fail(err)
				endpoint := netip.AddrPortFrom(at, port)
				pc := throughline.PeerConfig{
					PublicKey: public, Endpoint: &endpoint, AllowedIPs: []netip.Prefix{netip.MustParsePrefix(allowed)},
				}
				if psk != "" {
					shared, err := throughline.ParsePresharedKey(psk)
					fail(err)
					pc.PresharedKey = &shared
				}
				fail(dev.Configure(throughline.Config{Peers: []throughline.PeerConfig{pc}}))
			},
		}
	}
	tun := theirtun.NewChannelTUN()
	dev := device.NewDevice(tun.TUN(), conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
	t.Cleanup(dev.Close)
	fail(dev.IpcSet("private_key=" + hexKey(private) + "\nlisten_port=0\n"))
	fail(dev.Up())
	l := &library{in: tun.Inbound, out: func(p []byte) { tun.Outbound <- p }}
	state, err := dev.IpcGet()
	fail(err)
	for line := range strings.Lines(state) {
		fmt.Sscanf(line, "listen_port=%d", &l.port)
	}
	l.configure = func(peer, psk string, port uint16, at netip.Addr, allowed string) {
		t.Helper()
		set := fmt.Sprintf("public_key=%s\nendpoint=%v\nallowed_ip=%s\n", hexKey(peer), netip.AddrPortFrom(at, port), allowed)
		if psk != "" {
			set += "preshared_key=" + hexKey(psk) + "\n"
		}
		fail(dev.IpcSet(set))
	}
	return l
}

func hexKey(key string) string {
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		panic(err)
	}
	return hex.EncodeToString(raw)
}

// udpPacket returns an IPv4 packet of n bytes with a UDP datagram without a checksum that holds i.
func udpPacket(src, dst netip.Addr, n, i int) []byte {
	p := make([]byte, n)
	p[0], p[8], p[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(p[2:], uint16(n))
	copy(p[12:], src.AsSlice())
	copy(p[16:], dst.AsSlice())
	for j := range p[20:] {
		p[20+j] = byte(i + j)
	}
	var sum uint32
	for j := 0; j < 20; j += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[j:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum+sum>>16))
	return p
}

// TestLibrary asks: does our library work with wireguard-go's in one process, whichever begins the handshake, with every
// packet unchanged and in order?
func TestLibrary(t *testing.T) {
	inner := [2]netip.Addr{netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr("10.7.0.2")}
	for _, p := range []plan{{a: ours, b: theirs}, {a: theirs, b: ours}, {a: ours, b: ours}} {
		for _, p.psk = range []bool{false, true} {
			for _, at := range []string{"127.0.0.1", "::1"} {
				t.Run(fmt.Sprintf("%s begins with %s/psk=%v/%s", p.a, p.b, p.psk, at), func(t *testing.T) {
					at := netip.MustParseAddr(at)
					psk := ""
					if p.psk {
						psk = newPSK()
					}
					privateA, publicA := newKey()
					privateB, publicB := newKey()
					a, b := newLibrary(t, p.a, privateA), newLibrary(t, p.b, privateB)
					a.configure(publicB, psk, b.port, at, "10.7.0.2/32")
					b.configure(publicA, psk, a.port, at, "10.7.0.1/32")

					// wireguard-go can reorder packets that waited for the session: two goroutines read its queue.
					exchange := func(from, to *library, src, dst netip.Addr, ordered bool) {
						t.Helper()
						const packets = 100 // fewer than either keeps while there is no session
						size := func(i int) int { return 20 + (i*271)%1401 }
						go func() {
							for i := range packets {
								from.out(udpPacket(src, dst, size(i), i))
							}
						}()
						want := make(map[string]int, packets)
						for i := range packets {
							want[string(udpPacket(src, dst, size(i), i))] = i
						}
						timeout := time.After(waitLimit)
						for n := range packets {
							select {
							case got := <-to.in:
								i, ok := want[string(got)]
								if !ok || (ordered && i != n) {
									t.Fatalf("packet %d of %d to arrive is number %d (expected: %v)\n%x", n, packets, i, ok, got)
								}
								delete(want, string(got))
							case <-timeout:
								t.Fatalf("%d of %d packets didn't arrive: %v", len(want), packets, slices.Sorted(maps.Values(want)))
							}
						}
					}
					for i := range 3 {
						exchange(a, b, inner[0], inner[1], p.a == ours || i > 0)
						exchange(b, a, inner[1], inner[0], true)
					}
				})
			}
		}
	}
}
