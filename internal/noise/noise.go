// Package noise is the handshake of WireGuard, Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s, written out for that one pattern.
// Whitepaper §5.4.1 to §5.4.5.
//
// The initiator calls [Initiate], sends the message, and gives the response to [Initiator.ConsumeResponse]. The responder
// calls [ConsumeInitiation], learns from [Responder.Static] the sender's public key, calls [Responder.Verify] with the
// static-static secret it keeps for that peer, judges the timestamp, and calls [Responder.Respond]. Both end with [Keys].
//
// The package reads no clock and no randomness but what [NewEphemeral] is given. It doesn't know which peers exist,
// doesn't judge timestamps, and leaves mac1 and mac2 zero: those are the caller's and package cookie's. The index of a
// message's sender is no part of the Noise transcript; mac1 alone covers it.
//
// Concurrency: an [Identity] may be shared freely. An [Initiator] and a [Responder] belong to one caller at a time.
//
// Ownership: messages and keys passed in are borrowed until the call returns.
//
// Limits: secrets are overwritten with zeros as soon as they aren't needed: ours, the scalar inside an [ecdh.PrivateKey],
// the key inside an AEAD of x/crypto, and the stack that deriving them used. For what may escape that see package secret.
package noise

import (
	"encoding/binary"
	"errors"
	"fmt"

	"throughline/internal/secret"
	"throughline/internal/wire"
)

// The reasons for which a message is refused. They are made once, so that a flood makes us allocate nothing.
var (
	errSize  = errors.New("noise: the message doesn't have the length of its type")
	errType  = errors.New("noise: the message is of another type, or its reserved bytes aren't zero")
	errPoint = errors.New("noise: a public key is a point of low order")
	errAuth  = errors.New("noise: the message doesn't authenticate")
	errIndex = errors.New("noise: the response is addressed to another index")
	errSpent = errors.New("noise: the handshake has ended")
	errWiped = errors.New("noise: the identity was wiped")
)

const hidden = "(hidden)"

// Keys are the transport keys of one session as this side uses them. Whitepaper §5.4.5. They never print themselves.
type Keys struct {
	Send, Receive [wire.KeySize]byte
}

// Clear overwrites both keys with zeros.
func (k *Keys) Clear() {
	secret.Clear(k.Send[:])
	secret.Clear(k.Receive[:])
}

// Format writes "(hidden)" whatever the verb.
func (k Keys) Format(f fmt.State, verb rune) { fmt.Fprint(f, hidden) }

// MarshalText returns "(hidden)", so that keys never reach JSON by accident.
func (k Keys) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// checkHeader checks a message's exact length, its type and the three reserved zero bytes behind it. Whitepaper §5.4.2,
// §5.4.3.
func checkHeader(msg []byte, size int, typ uint32) error {
	if len(msg) != size {
		return errSize
	}
	if binary.LittleEndian.Uint32(msg) != typ {
		return errType
	}
	return nil
}
