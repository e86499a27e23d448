package peer

import (
	"crypto/ecdh"
	"encoding/binary"
	"errors"
	"io"

	"throughline/internal/aead"
	"throughline/internal/cookie"
	"throughline/internal/mono"
	"throughline/internal/noise"
	"throughline/internal/secret"
	"throughline/internal/session"
	"throughline/internal/wire"
	"throughline/wgtypes"
)

// Why a handshake message was refused. They are counted as drops, not logged as errors.
var (
	ErrStale   = errors.New("peer: the initiation's timestamp is not newer than the last")
	ErrFlood   = errors.New("peer: an initiation came too soon after the last")
	ErrPending = errors.New("peer: no handshake of ours awaits this response")
)

// A Handshake is the state of one peer's handshakes. The zero Handshake has none; what a handshake needs is allocated
// when it begins and freed when it ends. It is not safe for concurrent use: the owner's lock guards it.
type Handshake struct {
	Preshared *wgtypes.PresharedKey // nil: none
	Jar       cookie.Jar

	identity *noise.Identity     // whose static-static secret this is
	secret   *[wire.KeySize]byte // computed at the first handshake, not when the peer is configured
	pending  *noise.Initiator    // an initiation of ours that awaits its response
	index    uint32              // its receiver index
	sent     noise.Timestamp     // of the last initiation sent
	stamp    noise.Timestamp     // of the last initiation accepted. Whitepaper §5.1
	accepted mono.Time           // when that was
}

// SetPreshared sets the preshared key of the handshakes to come; nil and the zero key stand for none. It is copied.
func (h *Handshake) SetPreshared(key *wgtypes.PresharedKey) {
	if h.Preshared != nil {
		secret.Clear(h.Preshared[:])
		h.Preshared = nil
	}
	if key != nil && !key.IsZero() {
		fresh := *key
		h.Preshared = &fresh
	}
}

var noPreshared wgtypes.PresharedKey // §5.4.3: a preshared key of zeros stands for none

func (h *Handshake) preshared() *wgtypes.PresharedKey {
	if h.Preshared == nil {
		return &noPreshared
	}
	return h.Preshared
}

// staticStatic returns the secret of both static keys, computed once for each identity.
func (h *Handshake) staticStatic(id *noise.Identity, public wgtypes.PublicKey) (*[wire.KeySize]byte, error) {
	if h.secret == nil || h.identity != id {
		h.forgetSecret()
		fresh := new([wire.KeySize]byte)
		var err error
		secret.Do(func() { *fresh, err = id.SharedSecret(public) })
		if err != nil {
			return nil, err
		}
		h.secret, h.identity = fresh, id
	}
	return h.secret, nil
}

func (h *Handshake) forgetSecret() {
	if h.secret != nil {
		secret.Clear(h.secret[:])
	}
	h.secret, h.identity = nil, nil
}

// Pending returns the receiver index of the initiation that awaits its response, and whether there is one.
func (h *Handshake) Pending() (index uint32, ok bool) { return h.index, h.pending != nil }

// Initiate writes an initiation to dst, [wire.InitiationSize] bytes, and awaits its response under the receiver index
// sender. An earlier initiation is given up. Its timestamp is stamp, or later: the peer accepts none that isn't newer
// than the last, so a wall clock that was set back would have all refused until it has caught up. Whitepaper §5.1,
// §5.4.2.
func (h *Handshake) Initiate(now mono.Time, dst []byte, id *noise.Identity, public wgtypes.PublicKey, e *ecdh.PrivateKey, sender uint32, stamp noise.Timestamp) error {
	ss, err := h.staticStatic(id, public)
	if err != nil {
		secret.ClearX25519(e)
		return err
	}
	if !stamp.After(h.sent) {
		stamp = h.sent.Next()
	}
	pending, err := noise.Initiate(dst, id, public, ss, e, sender, stamp)
	if err != nil {
		return err
	}
	h.GiveUp()
	h.pending, h.index, h.sent = pending, sender, stamp
	h.addMACs(now, dst, public)
	return nil
}

// ConsumeResponse consumes the response to the pending initiation and returns the keypair it makes. A response that
// doesn't decrypt changes nothing. Whitepaper §5.4.3.
func (h *Handshake) ConsumeResponse(now mono.Time, msg []byte, id *noise.Identity, impl *aead.Implementation) (*session.Keypair, error) {
	if h.pending == nil || binary.LittleEndian.Uint32(msg[wire.ResponseReceiver:]) != h.index {
		return nil, ErrPending
	}
	var kp *session.Keypair
	var err error
	secret.Do(func() {
		var keys noise.Keys
		var remote uint32
		if keys, remote, err = h.pending.ConsumeResponse(msg, id, h.preshared()); err == nil {
			kp = session.New(impl, &keys.Send, &keys.Receive, h.index, remote, true, now)
			keys.Clear()
		}
	})
	if err != nil {
		return nil, err
	}
	h.GiveUp()
	return kp, nil
}

// Accept checks an initiation whose static key named this peer: that it authenticates, that its timestamp is the newest
// yet (§5.1), and that it doesn't come within [wire.InitiationInterval] of the last. It writes the response to dst,
// [wire.ResponseSize] bytes, and returns the keypair made, whose receiver index is sender. The ephemeral key is drawn
// from random after these checks: a forged or replayed initiation costs one X25519. Whitepaper §5.4.2, §5.4.3.
func (h *Handshake) Accept(now mono.Time, dst []byte, r *noise.Responder, id *noise.Identity, random io.Reader, sender uint32, impl *aead.Implementation) (*session.Keypair, error) {
	public, remote := r.Static(), r.Sender() // zero once it has responded
	ss, err := h.staticStatic(id, public)
	if err != nil {
		return nil, err
	}
	stamp, err := r.Verify(ss)
	if err != nil {
		return nil, err
	}
	if !stamp.After(h.stamp) {
		return nil, ErrStale
	}
	if h.accepted != 0 && now.Sub(h.accepted) < wire.InitiationInterval {
		return nil, ErrFlood
	}
	e, err := noise.NewEphemeral(random)
	if err != nil {
		return nil, err
	}
	var kp *session.Keypair
	secret.Do(func() {
		var keys noise.Keys
		if keys, err = r.Respond(dst, h.preshared(), e, sender); err == nil {
			kp = session.New(impl, &keys.Send, &keys.Receive, sender, remote, false, now)
			keys.Clear()
		}
	})
	if err != nil {
		return nil, err
	}
	h.stamp, h.accepted = stamp, now
	h.addMACs(now, dst, public)
	return kp, nil
}

// ConsumeCookie consumes a cookie reply; it reports whether it was one to our last message. Whitepaper §5.4.7.
func (h *Handshake) ConsumeCookie(now mono.Time, msg []byte, public wgtypes.PublicKey) bool {
	keys := cookie.KeysFor(public)
	return h.Jar.ConsumeReply(now, &keys, msg)
}

// addMACs writes mac1 and mac2. Their keys are two hashes of the public key, computed each time to save the memory in
// every idle peer.
func (h *Handshake) addMACs(now mono.Time, msg []byte, public wgtypes.PublicKey) {
	keys := cookie.KeysFor(public)
	h.Jar.AddMACs(now, &keys, msg)
}

// GiveUp clears the pending initiation and its secrets.
func (h *Handshake) GiveUp() {
	if h.pending != nil {
		h.pending.Clear()
	}
	h.pending, h.index = nil, 0
}

// Forget clears the pending initiation and the static-static secret: the identity changes, or the peer is removed. The
// timestamps that guard against replay stay.
func (h *Handshake) Forget() {
	h.GiveUp()
	h.forgetSecret()
}
