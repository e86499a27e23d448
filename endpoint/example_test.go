package endpoint_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"throughline"
	"throughline/endpoint"
	"throughline/tun/tuntest"
)

// A device gets its peer's endpoint by a name. The example has a resolver of its own in place of DNS; without one the
// operating system's is used.
func Example() {
	dev, err := throughline.New(throughline.Options{TUN: tuntest.New(1420)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	key, peer := throughline.NewPrivateKey(), throughline.NewPrivateKey().Public()
	err = dev.Configure(throughline.Config{PrivateKey: &key, Peers: []throughline.PeerConfig{{
		PublicKey:  peer,
		AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")},
	}}})
	if err != nil {
		fmt.Println(err)
		return
	}

	names := endpoint.ResolverFunc(func(_ context.Context, host string) ([]netip.Addr, error) {
		fmt.Println("asked for", host)
		return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
	})
	f, err := endpoint.New(dev, []endpoint.Peer{{PublicKey: peer, Host: "vpn.example.net", Port: 51820}}, endpoint.Options{Resolver: names})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { f.Run(ctx) })

	<-f.Ready()
	fmt.Println("the peer is at", dev.Status().Peers[0].Endpoint)

	cancel()
	running.Wait()
	// Output:
	// asked for vpn.example.net
	// the peer is at 192.0.2.1:51820
}
