// Package proxy serves SOCKS5, HTTP proxies and forwarded ports between a tunnel and the machine it runs on, as the
// sections of a [Config] say.
//
// It knows no WireGuard, no user-space stack and no configuration files: both sides are a [Network], and a Config is made by
// a program, or by package wireproxy of a file. [Proxy.Run] serves it until its context ends, [Proxy.Health] reports its
// state. It sets up no tunnel, runs no hook and keeps no log of connections, but for debug messages.
//
// Concurrency: a connection has two goroutines, one for each direction; a client of an HTTP proxy has one of net/http's server,
// and while a request is under way a second that listens whether the client is gone; a connection to a target of plain requests
// has two of net/http's; a UDP session has one; a SOCKS5 UDP association has three. All of them end before Run returns. A
// Proxy may be asked for its health while it runs; Run is called once at a time.
//
// Limits: each section has at most MaxConnections connections (1024), and refuses further ones in their own protocol; or as many
// UDP sessions, of which one that was never answered gives way; besides, a proxy has at most 512 clients that haven't logged in and asked for something yet, each for 10 s, and when there
// are more the oldest give way (package places); the header of a request has at most 64 KiB, that of a response
// 256 KiB; a UDP session holds one buffer of 64 KiB once it is answered, and an association two, besides what waits for a target or a name; a
// connection holds two buffers of 2 KiB, or of 32 KiB while it moves much, of which there are 1,024 in all, those for HTTP responses
// among them, and none where the kernel moves the bytes (splice). An HTTP proxy keeps at most 64 connections to targets for further requests,
// 8 to each, for a minute, and closes those to which a target sends what it wasn't asked for; of that net/http may write a
// line to the standard logger of package log.
//
// As an HTTP proxy it adds no Via and no Forwarded header: its clients use it to appear at another place, which
// those headers would undo.
package proxy
