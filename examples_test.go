package throughline_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"time"

	"throughline"
	"throughline/conf"
	"throughline/packet"
	"throughline/tun"
	"throughline/tun/tuntest"
	"throughline/uapi"
	"throughline/udp"
)

// A device is made of a file that wg-quick reads.
func Example_file() {
	const text = `
[Interface]
PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=
ListenPort = 0

[Peer]
PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
AllowedIPs = 10.192.122.3/32, 10.192.124.0/24
PersistentKeepalive = 25
`
	file, err := conf.Parse("wg0.conf", strings.NewReader(text))
	if err != nil {
		fmt.Println(err) // says each mistake with its line and column
		return
	}
	change, err := file.Config(nil) // no endpoint in it has a name that would have to be resolved
	if err != nil {
		fmt.Println(err)
		return
	}
	dev, err := throughline.New(throughline.Options{TUN: tuntest.New(1420)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	if err := dev.Configure(change); err != nil {
		fmt.Println(err)
		return
	}
	for p := range dev.Peers() {
		fmt.Println(p.PublicKey, p.AllowedIPs, p.PersistentKeepalive)
	}
	// Output:
	// xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg= [10.192.122.3/32 10.192.124.0/24] 25s
}

// The kernel's TUN needs CAP_NET_ADMIN. The kernel completes a name with %d in it.
func Example_kernelTUN() {
	t, err := tun.Open("throughline%d", tun.Options{MTU: 1380})
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
		fmt.Fprintln(os.Stderr, "this part needs Linux and CAP_NET_ADMIN:", err)
		fmt.Println("over")
		return
	} else if err != nil {
		fmt.Println(err)
		return
	}
	dev, err := throughline.New(throughline.Options{TUN: t})
	if err != nil {
		t.Close()
		fmt.Println(err)
		return
	}
	// Now `ip address add` and `ip link set up` make it useful. Deleting the interface ends the device: see Done.
	name, err := t.Name()
	if err != nil || !strings.HasPrefix(name, "throughline") {
		fmt.Println(name, err)
	}
	dev.Close() // the interface goes with it
	fmt.Println("over")
	// Output: over
}

// A program waits until a peer can be spoken to, and hears what happens to it.
func ExampleDevice_WaitHandshake() {
	a, b := connected()
	defer a.Close()
	defer b.Close()
	events := a.Subscribe(16)
	defer events.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := a.WaitHandshake(ctx, b.Status().PublicKey); err != nil {
		fmt.Println(err)
		return
	}
	e := <-events.Events()
	fmt.Println(e.Kind, e.Endpoint.Addr())
	// Output: handshake complete 127.0.0.1
}

// The devices of other programs (wireguard-go's, boringtun's, this project's daemon) are asked and changed by their
// sockets. Here the other program is this one.
func Example_anotherDaemon() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	socket, err := uapi.ListenDir(dir, "wg7") // uapi.Listen is for /var/run/wireguard
	if errors.Is(err, errors.ErrUnsupported) {
		fmt.Println("10.9.0.0/24")
		return
	} else if err != nil {
		fmt.Println(err)
		return
	}
	dev, err := throughline.New(throughline.Options{TUN: tuntest.New(1420)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- uapi.Serve(ctx, socket, dev, nil) }()
	defer func() { cancel(); <-served }()

	client, err := uapi.DialDir(dir, "wg7") // uapi.Dial
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	err = client.Set(throughline.Config{Peers: []throughline.PeerConfig{{
		PublicKey: throughline.NewPrivateKey().Public(), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")},
	}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	status, err := client.Get()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, p := range status.Peers {
		fmt.Println(p.AllowedIPs[0])
	}
	// Output: 10.9.0.0/24
}

// A masked network turns every bit of the datagrams over, both ways. It stands for any transport of one's own: what
// wraps the host's sockets keeps their offloads.
type masked struct{ udp.Host }

type maskedConn struct{ udp.Conn }

type maskedReceiver struct{ udp.Receiver }

func (m *masked) Listen(port uint16) (udp.Conn, error) {
	conn, err := m.Host.Listen(port)
	return maskedConn{conn}, err
}

func (c maskedConn) Receivers() (rs []udp.Receiver) {
	for _, r := range c.Conn.Receivers() {
		rs = append(rs, maskedReceiver{r})
	}
	return rs
}

func (c maskedConn) Send(b *packet.Batch) error {
	mask(b, 0)
	return c.Conn.Send(b)
}

func (r maskedReceiver) Receive(b *packet.Batch) (more bool, err error) {
	had := len(b.Packets)
	more, err = r.Receiver.Receive(b)
	mask(b, had)
	return more, err
}

func mask(b *packet.Batch, first int) {
	for i := first; i < len(b.Packets); i++ {
		for j, bytes := 0, b.Bytes(i); j < len(bytes); j++ {
			bytes[j] ^= 0xff
		}
	}
}

// A device sends over a transport of one's own: a type with the methods of udp.Network, here one that masks datagrams.
func Example_transport() {
	a, b := connected(func(o *throughline.Options) { o.Network = &masked{} })
	defer a.Close()
	defer b.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	fmt.Println(a.WaitHandshake(ctx, b.Status().PublicKey))
	// Output: <nil>
}

// connected returns two devices, of which a knows where b is. The examples above begin with it.
func connected(change ...func(*throughline.Options)) (a, b *throughline.Device) {
	var devs [2]*throughline.Device
	for i := range devs {
		o := throughline.Options{TUN: tuntest.New(1420)}
		for _, f := range change {
			f(&o)
		}
		dev, err := throughline.New(o)
		if err != nil {
			panic(err)
		}
		key := throughline.NewPrivateKey()
		if err := dev.Configure(throughline.Config{PrivateKey: &key}); err != nil {
			panic(err)
		}
		if err := dev.Up(); err != nil {
			panic(err)
		}
		devs[i] = dev
	}
	a, b = devs[0], devs[1]
	endpoint := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), b.Status().ListenPort)
	for dev, peer := range map[*throughline.Device]throughline.PeerConfig{
		a: {PublicKey: b.Status().PublicKey, Endpoint: &endpoint},
		b: {PublicKey: a.Status().PublicKey},
	} {
		if err := dev.Configure(throughline.Config{Peers: []throughline.PeerConfig{peer}}); err != nil {
			panic(err)
		}
	}
	return a, b
}
