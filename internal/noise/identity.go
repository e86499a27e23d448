package noise

import (
	"crypto/ecdh"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"

	"throughline/internal/secret"
	"throughline/internal/wire"
	"throughline/wgtypes"
)

// An Identity is a static key pair. It is safe for concurrent use, and immutable until it is wiped.
type Identity struct {
	private *ecdh.PrivateKey // kept: making it costs an X25519
	public  wgtypes.PublicKey
	users   secret.Users // the computations with private under way
}

// NewIdentity returns the identity of a private key, which need not be clamped. The zero key, which stands for "no key"
// everywhere in WireGuard's configuration, is refused.
func NewIdentity(private *wgtypes.PrivateKey) (*Identity, error) {
	if private.IsZero() {
		return nil, errors.New("noise: the zero key is no private key")
	}
	var p *ecdh.PrivateKey
	var err error
	secret.Do(func() { p, err = ecdh.X25519().NewPrivateKey(private[:]) })
	if err != nil {
		return nil, fmt.Errorf("noise: private key: %w", err)
	}
	return &Identity{private: p, public: wgtypes.PublicKey(p.PublicKey().Bytes())}, nil
}

// Wipe erases the private key: the identity was replaced. Computations under way are finished, later ones fail, and the
// last clears the key. Any goroutine may call it, more than once. A nil Identity has nothing to erase.
func (id *Identity) Wipe() {
	if id != nil && id.users.Retire() {
		secret.ClearX25519(id.private)
	}
}

// dh is DH of whitepaper §5.4 with the identity's private key.
func (id *Identity) dh(public *ecdh.PublicKey) ([]byte, error) {
	if !id.users.Begin() {
		return nil, errWiped
	}
	defer id.end()
	return dh(id.private, public)
}

// end ends a use of the private key.
func (id *Identity) end() {
	if id.users.End() {
		secret.ClearX25519(id.private)
	}
}

// Private returns a copy of the private key, as it was given; the zero key once the identity was wiped.
func (id *Identity) Private() (private wgtypes.PrivateKey) {
	if id.users.Begin() {
		defer id.end()
		secret.X25519(private[:], id.private)
	}
	return private
}

// Public returns the public key.
func (id *Identity) Public() wgtypes.PublicKey { return id.public }

// Format writes "(hidden)" whatever the verb: for an unsuitable verb fmt would follow the pointer to the private key.
func (id *Identity) Format(f fmt.State, verb rune) { fmt.Fprint(f, hidden) }

// SharedSecret returns the static-static secret with the peer whose public key is remote. It costs one X25519 and is the
// same for every handshake, so the caller keeps it. A remote of low order is refused. Whitepaper §5.4: DH.
func (id *Identity) SharedSecret(remote wgtypes.PublicKey) (ss [wire.KeySize]byte, err error) {
	pub, err := publicKey(remote[:])
	if err != nil {
		return ss, err
	}
	secret.Do(func() {
		var z []byte
		if z, err = id.dh(pub); err == nil {
			copy(ss[:], z)
			secret.Clear(z)
		}
	})
	return ss, err
}

// NewEphemeral makes an ephemeral key pair from 32 bytes of random. It costs one X25519.
func NewEphemeral(random io.Reader) (*ecdh.PrivateKey, error) {
	// Not ecdh.GenerateKey: since Go 1.26 that one ignores the reader it is given.
	var b [wire.KeySize]byte
	defer secret.Clear(b[:])
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return nil, fmt.Errorf("noise: ephemeral key: %w", err)
	}
	var e *ecdh.PrivateKey
	var err error
	secret.Do(func() { e, err = ecdh.X25519().NewPrivateKey(b[:]) })
	if err != nil {
		return nil, fmt.Errorf("noise: ephemeral key: %w", err)
	}
	return e, nil
}

// publicKey returns the public key of 32 bytes, which it copies.
func publicKey(b []byte) (*ecdh.PublicKey, error) {
	pub, err := ecdh.X25519().NewPublicKey(b)
	if err != nil {
		return nil, fmt.Errorf("noise: public key: %w", err)
	}
	return pub, nil
}

// dh is DH of whitepaper §5.4. The result is the caller's to clear. A point of low order, whose result is zero whatever
// the private key, is refused: crypto/ecdh checks the result.
func dh(private *ecdh.PrivateKey, public *ecdh.PublicKey) ([]byte, error) {
	z, err := private.ECDH(public)
	if err != nil {
		return nil, errPoint
	}
	return z, nil
}

// isZero reports, in constant time, whether all of b is zero.
func isZero(b *[wire.KeySize]byte) bool {
	var zero [wire.KeySize]byte
	return subtle.ConstantTimeCompare(b[:], zero[:]) == 1
}
