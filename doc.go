// Package throughline is a WireGuard tunnel for Go programs: a [Device] joins a TUN to UDP sockets, and carries IP packets
// between its peers.
//
// # Usage
//
// Open a TUN, make a device of it with [New], give it a key and peers with [Device.Configure], and close it with
// [Device.Close]:
//
//	dev, err := throughline.New(throughline.Options{TUN: t})
//	...
//	err = dev.Configure(throughline.Config{PrivateKey: &key, Peers: []throughline.PeerConfig{{
//		PublicKey: theirs, Endpoint: &endpoint, AllowedIPs: prefixes,
//	}}})
//
// Keys are read with [ParsePrivateKey] and its like, or made with [NewPrivateKey]. Files that wg and wg-quick read become
// a Config in package [throughline/conf]; a peer whose endpoint has a name is followed by package [throughline/endpoint].
// [Device.Status] returns what a device is and did, [Device.Peer] the same for one peer; [Device.Subscribe] its events;
// [Device.WaitHandshake] waits until there is a session with a peer.
//
// # Which TUN
//
// The inner side is a [throughline/tun.Device]: the kernel's from [throughline/tun.Open] (Linux, CAP_NET_ADMIN), or from a
// descriptor that somebody else opened; a TCP/IP stack in this process, without any privileges, from package
// [throughline/netstack], which a program dials and listens on; one in memory for tests, from package
// [throughline/tun/tuntest]; or a type of your own with five methods. The outer side is a [throughline/udp.Network]: the
// host's sockets, or a transport of your own.
//
// A device is up while its TUN is. The kernel's TUN is up when an administrator has set the interface up; every other TUN
// here is up as soon as it is made. So [Device.Up] need not be called. Call it to have the sockets open when it returns, and
// to learn why they can't be; and for a device that [Device.Down] took down.
//
// # Ownership
//
// A device owns its TUN once New has succeeded, and the sockets that it opens; Close ends both. What is passed to
// Configure is copied; what Status and its like return is the caller's.
//
// # Concurrency
//
// All methods of a Device may be called from any goroutine at any time. A change of configuration is applied whole or not
// at all: no packet sees half of it. A device runs a few goroutines in all, none for a peer or a packet; Close returns when
// all have ended.
//
// # Limits
//
// 1,048,576 peers; 128 packets that wait for a session for each peer, of which the oldest is dropped for a newer one; a
// keepalive of at most [MaxKeepalive]. An idle device needs about 1 MiB, and each idle peer about 700 bytes. In a process
// that may use FIPS 140's ciphers only New returns an error.
//
// # Compatibility
//
// On the wire this is WireGuard, version 1, and stays so. Before version 1.0 of this module its API may change between
// minor versions, as CHANGELOG.md tells; names of drops, offloads and metrics, and the configuration protocol, are kept.
package throughline
