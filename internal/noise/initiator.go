package noise

import (
	"crypto/ecdh"
	"encoding/binary"
	"fmt"

	"throughline/internal/secret"
	"throughline/internal/wire"
	"throughline/wgtypes"
)

// An Initiator is what the initiator of a handshake keeps between sending its initiation and consuming the response. The
// zero Initiator, and one whose handshake has ended, refuse every response.
type Initiator struct {
	s      symmetric
	e      *ecdh.PrivateKey // nil: the handshake has ended
	sender uint32
}

// Initiate writes an initiation to dst, which is at least wire.InitiationSize long: from id, to remote, with the
// static-static secret ss of the two, the fresh ephemeral key e, the index sender and the timestamp ts. The mac fields
// are left zero. e belongs to the Initiator from then on, which wipes it. After an error dst is not to be sent. Whitepaper
// §5.4.2.
func Initiate(dst []byte, id *Identity, remote wgtypes.PublicKey, ss *[wire.KeySize]byte, e *ecdh.PrivateKey, sender uint32, ts Timestamp) (*Initiator, error) {
	if len(dst) < wire.InitiationSize {
		panic("noise: BUG: no room for an initiation")
	}
	dst = dst[:wire.InitiationSize]
	binary.LittleEndian.PutUint32(dst, wire.TypeInitiation)
	binary.LittleEndian.PutUint32(dst[wire.InitiationSender:], sender)
	clear(dst[wire.InitiationMAC1:])

	i := &Initiator{e: e, sender: sender}
	var err error
	secret.Do(func() {
		i.s.start([]byte(wire.Identifier), &remote)
		err = i.s.writeFirst(dst[wire.InitiationEphemeral:wire.InitiationMAC1], id, remote, ss, e, ts[:])
	})
	if err != nil {
		i.Clear()
		return nil, err
	}
	return i, nil
}

// ConsumeResponse consumes the response to the initiation. id is the one the initiation was made with. On success it
// returns the transport keys, which the caller clears, and the responder's index, and the Initiator's handshake has ended.
// On failure nothing changes: a forged response doesn't disturb the genuine one. Whitepaper §5.4.3, §5.4.5.
func (i *Initiator) ConsumeResponse(msg []byte, id *Identity, psk *wgtypes.PresharedKey) (keys Keys, remoteIndex uint32, err error) {
	if i.e == nil {
		return Keys{}, 0, errSpent
	}
	if err := checkHeader(msg, wire.ResponseSize, wire.TypeResponse); err != nil {
		return Keys{}, 0, err
	}
	if binary.LittleEndian.Uint32(msg[wire.ResponseReceiver:]) != i.sender {
		return Keys{}, 0, errIndex
	}
	s := i.s // a copy, discarded on failure
	defer s.clear()
	secret.Do(func() {
		err = s.readSecond(nil, msg[wire.ResponseEphemeral:wire.ResponseMAC1], id, psk, i.e)
		if err == nil {
			s.split(&keys.Send, &keys.Receive)
		}
	})
	if err != nil {
		return Keys{}, 0, err
	}
	i.Clear()
	return keys, binary.LittleEndian.Uint32(msg[wire.ResponseSender:]), nil
}

// Clear ends the handshake and overwrites its secrets with zeros, the ephemeral key among them. It may be called at any
// time, more than once.
func (i *Initiator) Clear() {
	secret.ClearX25519(i.e)
	i.s.clear()
	*i = Initiator{}
}

// Format writes "(hidden)" whatever the verb.
func (i *Initiator) Format(f fmt.State, verb rune) { fmt.Fprint(f, hidden) }
