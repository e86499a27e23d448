package netstack_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/netip"

	"throughline"
	"throughline/netstack"
)

// An http.Client whose connections go through a tunnel. The host's interfaces and routes stay as they are.
func Example_client() {
	key := throughline.NewPrivateKey()
	server, endpoint, stop := startServer(key.Public()) // elsewhere: its public key, and its address on the internet
	defer stop()

	stack, err := netstack.New(netstack.Options{
		Addresses: []netip.Addr{netip.MustParseAddr("10.8.0.2")},
		DNS:       []netip.Addr{netip.MustParseAddr("10.8.0.1")}, // only asked for names, and only through the tunnel
	})
	if err != nil {
		log.Fatal(err)
	}
	dev, err := throughline.New(throughline.Options{TUN: stack})
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close() // and with it the stack
	if err := dev.Configure(throughline.Config{
		PrivateKey: &key,
		Peers: []throughline.PeerConfig{{
			PublicKey:  server,
			Endpoint:   &endpoint,
			AllowedIPs: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, // everything goes to this peer
		}},
	}); err != nil {
		log.Fatal(err)
	}
	if err := dev.Up(); err != nil {
		log.Fatal(err)
	}

	client := http.Client{Transport: &http.Transport{DialContext: stack.DialContext}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://10.8.0.1/")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %s", resp.Status, body)
	// Output: 200 OK: hello, 10.8.0.2
}

// An http.Server that only peers of the tunnel can reach: it listens inside, and outside only the tunnel's own port is
// open.
func Example_server() {
	clientKey, key := throughline.NewPrivateKey(), throughline.NewPrivateKey()

	stack, err := netstack.New(netstack.Options{Addresses: []netip.Addr{netip.MustParseAddr("10.8.0.1")}})
	if err != nil {
		log.Fatal(err)
	}
	dev, err := throughline.New(throughline.Options{TUN: stack})
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close() // and with it the stack and its listeners
	if err := dev.Configure(throughline.Config{
		PrivateKey: &key,
		Peers: []throughline.PeerConfig{{
			PublicKey:  clientKey.Public(), // its endpoint will be known from its first packet
			AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.8.0.2/32")},
		}},
	}); err != nil {
		log.Fatal(err)
	}
	if err := dev.Up(); err != nil {
		log.Fatal(err)
	}

	l, err := stack.Listen("tcp", ":80")
	if err != nil {
		log.Fatal(err)
	}
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer := netip.MustParseAddrPort(r.RemoteAddr).Addr() // authentic: the tunnel drops what isn't from a peer's allowed IPs
		fmt.Fprintln(w, "hello,", peer)
	})}
	defer server.Close()
	go server.Serve(l)

	endpoint := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), dev.Status().ListenPort)
	fmt.Print(fetch(clientKey, key.Public(), endpoint, "http://10.8.0.1/"))
	// Output: hello, 10.8.0.2
}

// join returns one end of a tunnel: the stack, and the device to be closed.
func join(address string, key throughline.PrivateKey, peer throughline.PeerConfig) (*netstack.Stack, *throughline.Device) {
	stack, err := netstack.New(netstack.Options{Addresses: []netip.Addr{netip.MustParseAddr(address)}})
	if err != nil {
		log.Fatal(err)
	}
	dev, err := throughline.New(throughline.Options{TUN: stack})
	if err != nil {
		log.Fatal(err)
	}
	if err := dev.Configure(throughline.Config{PrivateKey: &key, Peers: []throughline.PeerConfig{peer}}); err != nil {
		log.Fatal(err)
	}
	if err := dev.Up(); err != nil {
		log.Fatal(err)
	}
	return stack, dev
}

// startServer is the far end of Example_client: a web server at 10.8.0.1, for one client.
func startServer(client throughline.PublicKey) (key throughline.PublicKey, endpoint netip.AddrPort, stop func() error) {
	private := throughline.NewPrivateKey()
	stack, dev := join("10.8.0.1", private, throughline.PeerConfig{
		PublicKey: client, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.8.0.2/32")},
	})
	l, err := stack.Listen("tcp", ":80")
	if err != nil {
		log.Fatal(err)
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "hello,", netip.MustParseAddrPort(r.RemoteAddr).Addr())
	}))
	endpoint = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), dev.Status().ListenPort)
	return private.Public(), endpoint, dev.Close
}

// fetch is the far end of Example_server: a client at 10.8.0.2.
func fetch(key throughline.PrivateKey, server throughline.PublicKey, endpoint netip.AddrPort, url string) string {
	stack, dev := join("10.8.0.2", key, throughline.PeerConfig{
		PublicKey: server, Endpoint: &endpoint, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.8.0.1/32")},
	})
	defer dev.Close()
	client := http.Client{Transport: &http.Transport{DialContext: stack.DialContext}}
	resp, err := client.Get(url)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	return string(body)
}
