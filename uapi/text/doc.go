// Package text is what is said in the cross-platform configuration protocol (https://www.wireguard.com/xplatform/): lines
// of key=value, an empty line at the end of each request and of each answer. It reads and writes each of the texts, on
// any connection or file; who says what when is in package uapi.
//
// Concurrency: functions share nothing.
//
// Ownership: what is read is the caller's, the keys in it included. The reader's buffer is wiped behind a line that was
// read, for it may have been a key.
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
