package wgtypes

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"

	"throughline/internal/secret"
	"throughline/internal/wire"
)

// A PrivateKey is a Curve25519 scalar. It never prints itself: String, formatting with any verb, JSON and slog all show
// "(hidden)". Use [PrivateKey.Base64] where the key itself is wanted.
type PrivateKey [wire.KeySize]byte

// A PublicKey is a Curve25519 point, and a peer's name.
type PublicKey [wire.KeySize]byte

// A PresharedKey is a symmetric key mixed into the handshake. The zero key stands for none. Like a [PrivateKey] it
// never prints itself.
type PresharedKey [wire.KeySize]byte

const hidden = "(hidden)"

var errKeyForm = errors.New("throughline: a key is 32 bytes in base64, 44 characters that end in '='")

// NewPrivateKey makes a private key from the system's randomness.
func NewPrivateKey() PrivateKey {
	var k PrivateKey
	rand.Read(k[:]) // never fails
	k.clamp()
	return k
}

// NewPresharedKey makes a preshared key from the system's randomness.
func NewPresharedKey() PresharedKey {
	var k PresharedKey
	rand.Read(k[:]) // never fails
	return k
}

// ParsePrivateKey reads a private key in base64, 44 characters, and clamps it: RFC 7748 §5. The error doesn't show s.
func ParsePrivateKey(s string) (PrivateKey, error) {
	b, err := parseKey(s)
	k := PrivateKey(b)
	if err == nil {
		k.clamp()
	}
	return k, err
}

// ParsePublicKey reads a public key in base64, 44 characters. The error doesn't show s, which may be a private key.
func ParsePublicKey(s string) (PublicKey, error) {
	b, err := parseKey(s)
	return PublicKey(b), err
}

// ParsePresharedKey reads a preshared key in base64, 44 characters. The error doesn't show s.
func ParsePresharedKey(s string) (PresharedKey, error) {
	b, err := parseKey(s)
	return PresharedKey(b), err
}

func parseKey(s string) (k [wire.KeySize]byte, err error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != len(k) {
		return k, errKeyForm // s may be a secret: it is not repeated
	}
	copy(k[:], b)
	secret.Clear(b)
	return k, nil
}

// clamp makes any 32 bytes a scalar. RFC 7748 §5. The zero key stands for "no key" and stays zero.
func (k *PrivateKey) clamp() {
	if k.IsZero() {
		return
	}
	k[0] &= 248
	k[31] = k[31]&127 | 64
}

// Clamped returns k as the protocol uses it, with the bits set and cleared that RFC 7748 §5 names. The zero key, which
// stands for "no key", stays zero.
func (k PrivateKey) Clamped() PrivateKey { k.clamp(); return k }

// Public returns the public key of k. The zero key has the zero public key.
func (k PrivateKey) Public() PublicKey {
	if k.IsZero() {
		return PublicKey{}
	}
	priv, err := ecdh.X25519().NewPrivateKey(k[:])
	if err != nil {
		panic("throughline: BUG: 32 bytes are not a private key: " + err.Error())
	}
	defer secret.ClearX25519(priv)
	return PublicKey(priv.PublicKey().Bytes())
}

// Wipe overwrites the key with zeros. A nil pointer has none.
func (k *PrivateKey) Wipe() {
	if k != nil {
		secret.Clear(k[:])
	}
}

// Wipe overwrites the key with zeros. A nil pointer has none.
func (k *PresharedKey) Wipe() {
	if k != nil {
		secret.Clear(k[:])
	}
}

// Base64 returns the key itself, as configuration files hold it.
func (k PrivateKey) Base64() string { return base64.StdEncoding.EncodeToString(k[:]) }

// Base64 returns the key itself, as configuration files hold it.
func (k PresharedKey) Base64() string { return base64.StdEncoding.EncodeToString(k[:]) }

// IsZero reports, in constant time, whether k is the zero key.
func (k PrivateKey) IsZero() bool { return isZero(k) }

// IsZero reports, in constant time, whether k is the zero key.
func (k PresharedKey) IsZero() bool { return isZero(k) }

// IsZero reports whether k is the zero key.
func (k PublicKey) IsZero() bool { return k == PublicKey{} }

func isZero(k [wire.KeySize]byte) bool {
	var zero [wire.KeySize]byte
	return subtle.ConstantTimeCompare(k[:], zero[:]) == 1
}

// String returns the key in base64.
func (k PublicKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// Hex returns the key in lower-case hexadecimal, as the configuration protocol spells it.
func (k PublicKey) Hex() string { return hex.EncodeToString(k[:]) }

// MarshalText returns the key in base64.
func (k PublicKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads the key from base64.
func (k *PublicKey) UnmarshalText(text []byte) (err error) {
	*k, err = ParsePublicKey(string(text))
	return err
}

// String returns "(hidden)".
func (k PrivateKey) String() string { return hidden }

// String returns "(hidden)".
func (k PresharedKey) String() string { return hidden }

// Format writes "(hidden)" whatever the verb.
func (k PrivateKey) Format(f fmt.State, verb rune) { fmt.Fprint(f, hidden) }

// Format writes "(hidden)" whatever the verb.
func (k PresharedKey) Format(f fmt.State, verb rune) { fmt.Fprint(f, hidden) }

// MarshalText returns "(hidden)", so that a key never reaches JSON by accident.
func (k PrivateKey) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// MarshalText returns "(hidden)", so that a key never reaches JSON by accident.
func (k PresharedKey) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// LogValue returns "(hidden)".
func (k PrivateKey) LogValue() slog.Value { return slog.StringValue(hidden) }

// LogValue returns "(hidden)".
func (k PresharedKey) LogValue() slog.Value { return slog.StringValue(hidden) }
