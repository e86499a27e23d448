package throughline

import "throughline/wgtypes"

// What a device is configured with and what it returns. The types are [throughline/wgtypes]'s, a package that can be used
// without compiling a device.
type (
	Config       = wgtypes.Config       // a change to a device
	PeerConfig   = wgtypes.PeerConfig   // a change to one peer of a device
	Status       = wgtypes.Status       // what a device is and does at one moment
	PeerStatus   = wgtypes.PeerStatus   // what a peer is and did at one moment
	PrivateKey   = wgtypes.PrivateKey   // a Curve25519 scalar, which never prints itself
	PublicKey    = wgtypes.PublicKey    // a Curve25519 point, and a peer's name
	PresharedKey = wgtypes.PresharedKey // a symmetric key mixed into the handshake, which never prints itself
)

// MaxKeepalive is the longest interval of a persistent keepalive.
const MaxKeepalive = wgtypes.MaxKeepalive

// NewPrivateKey makes a private key from the system's randomness.
func NewPrivateKey() PrivateKey { return wgtypes.NewPrivateKey() }

// NewPresharedKey makes a preshared key from the system's randomness.
func NewPresharedKey() PresharedKey { return wgtypes.NewPresharedKey() }

// ParsePrivateKey reads a private key in base64 and clamps it. RFC 7748 §5.
func ParsePrivateKey(s string) (PrivateKey, error) { return wgtypes.ParsePrivateKey(s) }

// ParsePublicKey reads a public key in base64.
func ParsePublicKey(s string) (PublicKey, error) { return wgtypes.ParsePublicKey(s) }

// ParsePresharedKey reads a preshared key in base64.
func ParsePresharedKey(s string) (PresharedKey, error) { return wgtypes.ParsePresharedKey(s) }
