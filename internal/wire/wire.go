// Package wire is the constants of the WireGuard protocol: every size, offset, type, limit and duration.
//
// Sections are those of the WireGuard whitepaper (https://www.wireguard.com/papers/wireguard.pdf). Where the paper is
// silent, the Linux kernel module is followed, and the line says so.
package wire

import "time"

// Message types, a little-endian uint32 at the start of every message whose upper three bytes are reserved and zero.
// Whitepaper §5.4.
const (
	TypeInitiation  = 1 // §5.4.2
	TypeResponse    = 2 // §5.4.3
	TypeCookieReply = 3 // §5.4.7
	TypeTransport   = 4 // §5.4.6
)

// Sizes of keys, tags and hashes in bytes. Whitepaper §5.4.
const (
	KeySize       = 32 // a Curve25519 point or scalar, a ChaCha20-Poly1305 key
	HashSize      = 32 // BLAKE2s-256
	TagSize       = 16 // Poly1305
	MACSize       = 16 // keyed BLAKE2s-128, mac1 and mac2
	CookieSize    = 16 // §5.4.7
	XNonceSize    = 24 // the nonce of XChaCha20-Poly1305 in a cookie reply
	TimestampSize = 12 // TAI64N
)

// Layout of the handshake initiation. Whitepaper §5.4.2.
const (
	InitiationSender    = 4
	InitiationEphemeral = 8
	InitiationStatic    = InitiationEphemeral + KeySize
	InitiationTimestamp = InitiationStatic + KeySize + TagSize
	InitiationMAC1      = InitiationTimestamp + TimestampSize + TagSize
	InitiationMAC2      = InitiationMAC1 + MACSize
	InitiationSize      = InitiationMAC2 + MACSize
)

// Layout of the handshake response. Whitepaper §5.4.3.
const (
	ResponseSender    = 4
	ResponseReceiver  = 8
	ResponseEphemeral = 12
	ResponseEmpty     = ResponseEphemeral + KeySize
	ResponseMAC1      = ResponseEmpty + TagSize
	ResponseMAC2      = ResponseMAC1 + MACSize
	ResponseSize      = ResponseMAC2 + MACSize
)

// Layout of the cookie reply. Whitepaper §5.4.7.
const (
	CookieReplyReceiver = 4
	CookieReplyNonce    = 8
	CookieReplyCookie   = CookieReplyNonce + XNonceSize
	CookieReplySize     = CookieReplyCookie + CookieSize + TagSize
)

// Layout of transport data. Whitepaper §5.4.6.
const (
	TransportReceiver   = 4
	TransportCounter    = 8
	TransportHeaderSize = 16
	TransportOverhead   = TransportHeaderSize + TagSize
	KeepaliveSize       = TransportOverhead // a transport message whose packet has length zero
	PaddingMultiple     = 16                // §5.4.6: padded with zeros to a multiple of 16
)

const (
	_ = uint(InitiationSize - 148)
	_ = uint(148 - InitiationSize)
	_ = uint(ResponseSize - 92)
	_ = uint(92 - ResponseSize)
	_ = uint(CookieReplySize - 64)
	_ = uint(64 - CookieReplySize)
)

// The seven constants of whitepaper §6.1.
const (
	RekeyAfterMessages  = 1 << 60
	RejectAfterMessages = 1<<64 - 1<<13 - 1
	RekeyAfterTime      = 120 * time.Second
	RejectAfterTime     = 180 * time.Second
	RekeyAttemptTime    = 90 * time.Second
	RekeyTimeout        = 5 * time.Second
	KeepaliveTimeout    = 10 * time.Second
)

// Limits and durations that follow from the paper or from the kernel module.
const (
	// RekeyTimeoutJitterMax bounds the random delay added to a handshake retry. §6.1; the kernel uses a third of a second.
	RekeyTimeoutJitterMax = 333 * time.Millisecond

	// MaxHandshakeAttempts is how often an initiation is repeated before the handshake is given up. §6.4.
	MaxHandshakeAttempts = int(RekeyAttemptTime / RekeyTimeout)

	// RekeyOnReceiveAfter: the initiator of a session that receives with a key this old begins a new handshake. §6.2.
	RekeyOnReceiveAfter = RejectAfterTime - KeepaliveTimeout - RekeyTimeout

	// EraseKeysAfter: key material this old is cleared when no new session has come. §6.3.
	EraseKeysAfter = 3 * RejectAfterTime

	// InitiationInterval is the least time between two initiations accepted from one peer. Kernel: INITIATIONS_PER_SECOND.
	InitiationInterval = time.Second / 50

	// CookieRefreshTime is how long a cookie and the secret it is made from live. §5.4.7.
	CookieRefreshTime = 120 * time.Second

	// CookieLatency is how much earlier the sender stops using a cookie, so that it arrives valid. Kernel: COOKIE_SECRET_LATENCY.
	CookieLatency = 5 * time.Second

	// ReplayWindow is how many counters the replay window remembers. §5.4.6 cites RFC 6479; the kernel's size.
	ReplayWindow = 8192

	// MaxStaged bounds the packets of a peer that wait for a session; of more the oldest is dropped. Kernel:
	// MAX_STAGED_PACKETS.
	MaxStaged = 128

	// MaxPeers bounds the peers of a device. Kernel: MAX_PEERS_PER_DEVICE.
	MaxPeers = 1 << 20

	// MaxDatagram is the largest UDP payload that a socket can carry over IPv4.
	MaxDatagram = 65507

	// MaxPacket is the largest IP packet that fits into a transport message.
	MaxPacket = MaxDatagram - TransportOverhead
)

// Noise strings. Whitepaper §5.4, §5.4.4, §5.4.7.
const (
	Construction = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
	Identifier   = "WireGuard v1 zx2c4 Jason@zx2c4.com"
	LabelMAC1    = "mac1----"
	LabelCookie  = "cookie--"
)

// Padded returns the length in bytes of a packet of n bytes once padded: up to a multiple of 16, never beyond the MTU.
// Whitepaper §5.4.6. A packet larger than the MTU (it was read before the MTU shrank) is padded in its last MTU-sized
// unit, as the kernel does. mtu is in bytes; 0: no bound.
func Padded(n, mtu int) int {
	last := n
	if mtu > 0 && last > mtu {
		last %= mtu
	}
	padded := (last + PaddingMultiple - 1) &^ (PaddingMultiple - 1)
	if mtu > 0 && padded > mtu {
		padded = mtu
	}
	return n - last + padded
}

// HandshakeSize returns the size in bytes of a handshake message of a type, which is exact; false if the type has none.
// Whitepaper §5.4.
func HandshakeSize(kind uint32) (size int, ok bool) {
	switch kind {
	case TypeInitiation:
		return InitiationSize, true
	case TypeResponse:
		return ResponseSize, true
	case TypeCookieReply:
		return CookieReplySize, true
	}
	return 0, false
}
