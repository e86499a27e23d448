// Package endpoint gives a device the endpoints of peers that are known by a name, and updates them when the name's
// addresses change.
//
// A throughline.Device accepts addresses only. A [Follower] looks the names up: at the start, and again until they resolve;
// and once more when no handshake has succeeded for 3 minutes though something is being sent, as happens after a dynamic
// address has changed. If a name has several addresses, it tries one after another, 16 s each. The endpoint of a peer
// whose session works is left alone, wherever it has roamed to (whitepaper §2.1).
//
// Make one with [New] when the device is configured, and call [Follower.Run] on a goroutine of its own:
//
//	f, err := endpoint.New(dev, []endpoint.Peer{{PublicKey: key, Host: "vpn.example.net", Port: 51820}}, endpoint.Options{})
//	...
//	go f.Run(ctx)
//	<-f.Ready() // every name has been looked up once
//
// Run starts no goroutine, and returns when its context ends. The Device and the Resolver are called from its goroutine
// alone, one call at a time.
//
// Limits: names are looked up one after another, at most 5 s each, so many names that don't resolve delay the others.
// The TTLs of DNS records are ignored: an address that works is kept. Handshakes are checked every 30 s, so that much may
// pass beyond the times above. The name of a peer that the device doesn't have is not looked up, and no peer is added.
package endpoint
