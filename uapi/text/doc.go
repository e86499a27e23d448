// Package text is the syntax of the cross-platform configuration protocol (https://www.wireguard.com/xplatform/): lines
// of key=value, with an empty line at the end of each request and of each answer. It reads and writes requests and answers
// on any connection or file; package uapi puts them in order.
//
// Concurrency: functions share nothing, and may be called at the same time with different readers and writers.
//
// Ownership: what is read is the caller's, the keys in it included. In the reader's buffer each line is wiped once it has
// been read, as it may hold a key.
//
// Limits: lines of 4096 bytes, or the size of the reader's buffer if that is less; [wire.MaxPeers] peers and eight times
// as many allowed IPs in a request or an answer. Beyond them reading fails; memory doesn't grow.
package text

import (
	"throughline/internal/wire"
)

const (
	maxLine     = 4096              // bytes in a line with its end
	maxPeers    = wire.MaxPeers     // peer entries in a request or an answer
	maxPrefixes = 8 * wire.MaxPeers // allowed IPs in a request or an answer, 256 MiB of them
	maxZone     = 15                // bytes in the name of an interface: IFNAMSIZ less its final zero
)
