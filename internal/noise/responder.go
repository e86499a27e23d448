package noise

import (
	"crypto/ecdh"
	"encoding/binary"
	"fmt"

	"throughline/internal/secret"
	"throughline/internal/wire"
	"throughline/wgtypes"
)

// A Responder is what the responder of a handshake keeps from consuming an initiation to answering it. The order of calls
// is [ConsumeInitiation], [Responder.Verify], [Responder.Respond]; a failure ends the handshake, and then only Clear,
// Static and Sender may be called.
type Responder struct {
	s         symmetric
	e         *ecdh.PublicKey // the initiator's ephemeral key; nil: the handshake has ended
	static    wgtypes.PublicKey
	sender    uint32
	verified  bool
	timestamp [wire.TimestampSize + wire.TagSize]byte // sealed
}

// ConsumeInitiation consumes an initiation to id as far as its sender's static key. It costs one X25519. That the sender
// holds that key is not proven yet; see [Responder.Verify]. Whitepaper §5.4.2.
func ConsumeInitiation(msg []byte, id *Identity) (*Responder, error) {
	if err := checkHeader(msg, wire.InitiationSize, wire.TypeInitiation); err != nil {
		return nil, err
	}
	r := &Responder{sender: binary.LittleEndian.Uint32(msg[wire.InitiationSender:])}
	var e *ecdh.PublicKey
	var err error
	secret.Do(func() {
		r.s.start([]byte(wire.Identifier), &id.public)
		e, err = r.s.readFirst(msg[wire.InitiationEphemeral:wire.InitiationTimestamp], id, &r.static)
	})
	if err != nil {
		r.Clear()
		return nil, err
	}
	r.e = e
	copy(r.timestamp[:], msg[wire.InitiationTimestamp:])
	return r, nil
}

// Static returns the public key that the initiation claims for its sender; zero once the handshake has ended.
func (r *Responder) Static() wgtypes.PublicKey { return r.static }

// Sender returns the initiator's receiver index. Only mac1 protects it.
func (r *Responder) Sender() uint32 { return r.sender }

// Verify decrypts the timestamp with ss, the static-static secret of the two peers. Success proves that the sender holds
// the key of [Responder.Static], or that the message is a copy of one such: the caller compares the timestamp with the
// greatest it has seen from that peer. It costs no X25519. Whitepaper §5.4.2, §5.1.
func (r *Responder) Verify(ss *[wire.KeySize]byte) (Timestamp, error) {
	if r.e == nil || r.verified {
		panic("noise: BUG: Verify out of order")
	}
	var ts Timestamp
	var err error
	secret.Do(func() { err = r.s.readFirstPayload(ts[:], r.timestamp[:], ss) })
	if err != nil {
		r.Clear()
		return Timestamp{}, err
	}
	r.verified = true
	return ts, nil
}

// Respond writes the response to dst, which is at least wire.ResponseSize long, with the fresh ephemeral key e and the
// index sender, and returns the transport keys, which the caller clears. The mac fields are left zero. e is wiped. The
// handshake ends, also with an error, after which dst is not to be sent. It costs two X25519. Whitepaper §5.4.3, §5.4.5.
func (r *Responder) Respond(dst []byte, psk *wgtypes.PresharedKey, e *ecdh.PrivateKey, sender uint32) (keys Keys, err error) {
	if r.e == nil || !r.verified {
		panic("noise: BUG: Respond out of order")
	}
	if len(dst) < wire.ResponseSize {
		panic("noise: BUG: no room for a response")
	}
	defer r.Clear()
	defer secret.ClearX25519(e)
	dst = dst[:wire.ResponseSize]
	binary.LittleEndian.PutUint32(dst, wire.TypeResponse)
	binary.LittleEndian.PutUint32(dst[wire.ResponseSender:], sender)
	binary.LittleEndian.PutUint32(dst[wire.ResponseReceiver:], r.sender)
	clear(dst[wire.ResponseMAC1:])
	secret.Do(func() {
		err = r.s.writeSecond(dst[wire.ResponseEphemeral:wire.ResponseMAC1], r.e, &r.static, psk, e, nil)
		if err == nil {
			r.s.split(&keys.Receive, &keys.Send)
		}
	})
	if err != nil {
		return Keys{}, err
	}
	return keys, nil
}

// Clear ends the handshake and overwrites its secrets with zeros. It may be called at any time, more than once.
func (r *Responder) Clear() {
	r.s.clear()
	*r = Responder{}
}

// Format writes "(hidden)" whatever the verb.
func (r *Responder) Format(f fmt.State, verb rune) { fmt.Fprint(f, hidden) }
