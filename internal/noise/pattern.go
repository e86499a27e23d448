package noise

import (
	"crypto/ecdh"

	"throughline/internal/secret"
	"throughline/internal/wire"
	"throughline/wgtypes"
)

// The pattern, token by token, on messages as Noise has them: without WireGuard's header and macs, and with a payload
// of any length.
//
//	IKpsk2:
//	  <- s
//	  ...
//	  -> e, es, s, ss
//	  <- e, ee, se, psk

// Layout of the first message. The payload is a timestamp in WireGuard. Whitepaper §5.4.2.
const (
	firstStatic   = wire.KeySize
	firstPayload  = firstStatic + wire.KeySize + wire.TagSize
	secondPayload = wire.KeySize // the second message: an ephemeral and a payload, empty in WireGuard. §5.4.3
)

// mixEphemeral mixes in an ephemeral public key: C := KDF1(C, e), H := HASH(H || e). Whitepaper §5.4.2, §5.4.3.
func (s *symmetric) mixEphemeral(e []byte) {
	s.mixKey(e, nil)
	s.mixHash(e)
}

// mixDH mixes in DH(private, public); key may be nil, as in mixKey.
func (s *symmetric) mixDH(private *ecdh.PrivateKey, public *ecdh.PublicKey, key *[wire.KeySize]byte) error {
	z, err := dh(private, public)
	if err != nil {
		return err
	}
	s.mixKey(z, key)
	secret.Clear(z)
	return nil
}

// mixStaticDH is mixDH with the identity's private key.
func (s *symmetric) mixStaticDH(id *Identity, public *ecdh.PublicKey, key *[wire.KeySize]byte) error {
	z, err := id.dh(public)
	if err != nil {
		return err
	}
	s.mixKey(z, key)
	secret.Clear(z)
	return nil
}

// mixStatic mixes in the static-static secret, which was computed elsewhere. A zero one comes of an ignored error of that
// computation; it is refused like the low-order point that caused it.
func (s *symmetric) mixStatic(ss, key *[wire.KeySize]byte) error {
	if isZero(ss) {
		return errPoint
	}
	s.mixKey(ss[:], key)
	return nil
}

// writeFirst writes the first message: -> e, es, s, ss. msg has the exact length. Whitepaper §5.4.2.
func (s *symmetric) writeFirst(msg []byte, id *Identity, remote wgtypes.PublicKey, ss *[wire.KeySize]byte, e *ecdh.PrivateKey, payload []byte) error {
	var k [wire.KeySize]byte
	defer secret.Clear(k[:])
	rs, err := publicKey(remote[:])
	if err != nil {
		return err
	}
	copy(msg, e.PublicKey().Bytes())
	s.mixEphemeral(msg[:firstStatic])          // e
	if err := s.mixDH(e, rs, &k); err != nil { // es
		return err
	}
	if err := s.seal(msg[firstStatic:firstPayload], &k, id.public[:]); err != nil { // s
		return err
	}
	if err := s.mixStatic(ss, &k); err != nil { // ss
		return err
	}
	return s.seal(msg[firstPayload:], &k, payload)
}

// readFirst reads the first message as far as the initiator's static key, which it decrypts into static, and returns
// the initiator's ephemeral key: -> e, es, s. Whitepaper §5.4.2.
func (s *symmetric) readFirst(msg []byte, id *Identity, static *wgtypes.PublicKey) (*ecdh.PublicKey, error) {
	var k [wire.KeySize]byte
	defer secret.Clear(k[:])
	re, err := publicKey(msg[:firstStatic])
	if err != nil {
		return nil, err
	}
	s.mixEphemeral(msg[:firstStatic])                 // e
	if err := s.mixStaticDH(id, re, &k); err != nil { // es
		return nil, err
	}
	if err := s.open(static[:], &k, msg[firstStatic:firstPayload]); err != nil { // s
		return nil, err
	}
	return re, nil
}

// readFirstPayload reads the rest of the first message: -> ss, and the payload. Whitepaper §5.4.2.
func (s *symmetric) readFirstPayload(payload, sealed []byte, ss *[wire.KeySize]byte) error {
	var k [wire.KeySize]byte
	defer secret.Clear(k[:])
	if err := s.mixStatic(ss, &k); err != nil { // ss
		return err
	}
	return s.open(payload, &k, sealed)
}

// writeSecond writes the second message, to the initiator's ephemeral key re and static key: <- e, ee, se, psk. msg has
// the exact length. Whitepaper §5.4.3.
func (s *symmetric) writeSecond(msg []byte, re *ecdh.PublicKey, static *wgtypes.PublicKey, psk *wgtypes.PresharedKey, e *ecdh.PrivateKey, payload []byte) error {
	var k [wire.KeySize]byte
	defer secret.Clear(k[:])
	rs, err := publicKey(static[:])
	if err != nil {
		return err
	}
	copy(msg, e.PublicKey().Bytes())
	s.mixEphemeral(msg[:secondPayload])         // e
	if err := s.mixDH(e, re, nil); err != nil { // ee
		return err
	}
	if err := s.mixDH(e, rs, nil); err != nil { // se
		return err
	}
	s.mixPSK(psk, &k) // psk
	return s.seal(msg[secondPayload:], &k, payload)
}

// readSecond reads the second message, as the initiator whose ephemeral key is e: <- e, ee, se, psk. Whitepaper §5.4.3.
func (s *symmetric) readSecond(payload, msg []byte, id *Identity, psk *wgtypes.PresharedKey, e *ecdh.PrivateKey) error {
	var k [wire.KeySize]byte
	defer secret.Clear(k[:])
	re, err := publicKey(msg[:secondPayload])
	if err != nil {
		return err
	}
	s.mixEphemeral(msg[:secondPayload])         // e
	if err := s.mixDH(e, re, nil); err != nil { // ee
		return err
	}
	if err := s.mixStaticDH(id, re, nil); err != nil { // se
		return err
	}
	s.mixPSK(psk, &k) // psk
	return s.open(payload, &k, msg[secondPayload:])
}
