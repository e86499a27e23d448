// Package uapi speaks the cross-platform configuration protocol (https://www.wireguard.com/xplatform/), by which wg(8)
// and other programs read and change a running tunnel: lines of key=value over a Unix socket, an empty line at the end
// of each request and of each answer.
//
// It has the two texts, each read and written ([ReadConfig], [WriteConfig], [ReadStatus], [WriteStatus]), the daemon's
// side of the conversation ([Serve] on what [Listen] or [FromFile] returns) and the asking side ([Dial]). It knows
// nothing of files for wg(8) or wg-quick(8), and resolves no names. Named pipes on Windows are not there yet.
//
// A set request is read to its end and then applied by one call of [Device.Configure], or not at all.
//
// Concurrency: functions share nothing; a [Client] is for one goroutine at a time; a [Listener] may be closed from
// anywhere. Serve starts one goroutine a connection and waits for all of them; a Listener has one, which Close waits for.
//
// Ownership: what ReadConfig and ReadStatus return is the caller's. Serve wipes the keys of a request after Configure.
//
// Limits: lines of 4096 bytes, [wire.MaxPeers] peers and eight times as many allowed IPs in a request or an answer, 64
// connections at a time, 30 seconds for the other side to go on. Beyond them requests fail; memory doesn't grow.
package uapi

import (
	"errors"

	"throughline/internal/wire"
)

// Dir is where wg(8) looks for sockets.
const Dir = "/var/run/wireguard"

// ErrUnsupported is what [Listen], [FromFile] and [Dial] return on Windows, where wg.exe expects a named pipe.
var ErrUnsupported = errors.New("uapi: named pipes are not supported yet")

const (
	maxLine     = 4096              // bytes in a line with its end
	maxPeers    = wire.MaxPeers     // peer entries in a request or an answer
	maxPrefixes = 8 * wire.MaxPeers // allowed IPs in a request or an answer, 256 MiB of them
	maxZone     = 15                // bytes in the name of an interface: IFNAMSIZ less its final zero
)
