// Package uapi is the server and the client of the cross-platform configuration protocol
// (https://www.wireguard.com/xplatform/), by which wg(8) and other programs read and change a running tunnel over a
// Unix socket: the server is [Serve] on what [Listen] or [FromFile] returns, the client [Dial]. The syntax of requests
// and answers is in package text below. Named pipes on Windows are not supported yet.
//
// A set request is read to its end and then applied by one call of [Device.Configure], or not at all.
//
// Concurrency: a [Client] is for one goroutine at a time; a [Listener] may be used by several at once. Serve starts one
// goroutine for each connection and waits for all of them; a Listener has one, which Close waits for.
//
// Ownership: Serve owns its listener, and wipes the keys of a status that it got, and those of a request after Configure.
//
// Limits: 64 connections at a time, of which the one without progress for longest gives way; 30 seconds without progress;
// for a whole request or answer a minute, and a second more for each 64 KiB, up to ten minutes; 768 MiB for a request; one
// request of more than 1 MiB and four answers at a time, further ones wait; and those of package text.
package uapi

import (
	"errors"
	"fmt"
	"runtime"
)

// Dir is the directory in which wg(8) looks for sockets.
const Dir = "/var/run/wireguard"

// ErrUnsupported is what [Listen], [ListenDir], [FromFile], [FromFileDir], [Dial] and [DialDir] return on systems without
// Unix sockets in wg(8)'s place: on Windows wg.exe expects a named pipe, which isn't supported yet. It wraps
// [errors.ErrUnsupported]. [Serve] and [NewClient] work there too, on connections of the caller's own.
var ErrUnsupported = unsupported(runtime.GOOS)

// unsupported returns the error of a system whose wg(8) finds no Unix socket.
func unsupported(system string) error {
	missing := "wg(8)'s sockets are Unix sockets, which this package doesn't make on " + system
	if system == "windows" {
		missing = "wg.exe connects to a named pipe, which this package doesn't make yet"
	}
	return fmt.Errorf("uapi: %s: %w", missing, errors.ErrUnsupported)
}
