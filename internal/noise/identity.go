package noise

import (
	"crypto/ecdh"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"

	"throughline/internal/wire"
	"throughline/wgtypes"
)

// An Identity is a static key pair. It is immutable and safe for concurrent use.
type Identity struct {
	private *ecdh.PrivateKey // kept: making it costs an X25519
	public  wgtypes.PublicKey
}

// NewIdentity returns the identity of a private key, which need not be clamped. The zero key, which stands for "no key"
// everywhere in WireGuard's configuration, is refused.
func NewIdentity(private *wgtypes.PrivateKey) (*Identity, error) {
	if private.IsZero() {
		return nil, errors.New("noise: the zero key is no private key")
	}
	p, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		return nil, fmt.Errorf("noise: private key: %w", err)
	}
	return &Identity{private: p, public: wgtypes.PublicKey(p.PublicKey().Bytes())}, nil
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
	z, err := dh(id.private, pub)
	if err != nil {
		return ss, err
	}
	copy(ss[:], z)
	clear(z)
	return ss, nil
}

// NewEphemeral makes an ephemeral key pair from 32 bytes of random. It costs one X25519.
func NewEphemeral(random io.Reader) (*ecdh.PrivateKey, error) {
	// Not ecdh.GenerateKey: since Go 1.26 that one ignores the reader it is given.
	var b [wire.KeySize]byte
	defer clear(b[:])
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return nil, fmt.Errorf("noise: ephemeral key: %w", err)
	}
	e, err := ecdh.X25519().NewPrivateKey(b[:])
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
