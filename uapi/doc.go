// Package uapi is the server and the client of the cross-platform configuration protocol
// (https://www.wireguard.com/xplatform/), by which wg(8) and other programs read and change a running tunnel over a
// Unix socket: the server is [Serve] on what [Listen] or [FromFile] returns, the client [Dial]. The syntax of requests
// and answers is in package text below. Named pipes on Windows are not supported yet.
//
// A set request is read to its end and then applied by one call of [Device.Configure], or not at all.
//
// Concurrency: a [Client] is for one goroutine at a time; a [Listener] may be closed from anywhere. Serve starts one
// goroutine a connection and waits for all of them; a Listener has one, which Close waits for.
//
// Ownership: Serve owns its listener, and wipes the keys of a status that it got, and those of a request after Configure.
//
// Limits: 64 connections at a time, 30 seconds for each read and write, and those of package text.
package uapi

import "errors"

// Dir is where wg(8) looks for sockets.
const Dir = "/var/run/wireguard"

// ErrUnsupported is what [Listen], [FromFile] and [Dial] return on Windows, where wg.exe expects a named pipe.
var ErrUnsupported = errors.New("uapi: named pipes are not supported yet")
