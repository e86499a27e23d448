package cookie

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/blake2s"

	"throughline/internal/mono"
	"throughline/internal/wire"
	"throughline/wgtypes"
)

var errMessage = errors.New("cookie: neither an initiation nor a response")

// A Checker is the responder's side: it checks the macs of received messages, and makes cookie replies. Its methods are
// safe for concurrent use, and wait for nothing.
type Checker struct {
	keys   Keys
	hashes sync.Pool              // of *keyed, so that CheckMAC1 allocates nothing
	secret atomic.Pointer[secret] // the present one; nil: none was drawn yet
}

// A secret is what cookies are made from. Whitepaper §5.4.7: R. It never changes: another takes its place.
type secret struct {
	key  [wire.HashSize]byte
	born mono.Time // when it was drawn
}

// A keyed is a hash with the key of mac1, and room for its sum, which would be allocated for each call.
type keyed struct {
	hash.Hash
	sum [wire.MACSize]byte
}

// NewChecker returns the Checker of the responder whose public key is public.
func NewChecker(public wgtypes.PublicKey) *Checker {
	c := &Checker{keys: KeysFor(public)}
	c.hashes.New = func() any {
		h, err := blake2s.New128(c.keys.mac1[:])
		if err != nil {
			panic("cookie: BUG: " + err.Error())
		}
		return &keyed{Hash: h}
	}
	return c
}

// CheckMAC1 reports whether msg is an initiation or a response of the exact size whose mac1 is right. It
// allocates nothing. Whitepaper §5.4.4.
func (c *Checker) CheckMAC1(msg []byte) bool {
	mac1, mac2, ok := macs(msg)
	if !ok {
		return false
	}
	h := c.hashes.Get().(*keyed)
	h.Reset()
	h.Write(msg[:mac1])
	h.Sum(h.sum[:0])
	ok = subtle.ConstantTimeCompare(h.sum[:], msg[mac1:mac2]) == 1
	c.hashes.Put(h)
	return ok
}

// CheckMAC2 reports whether the mac2 of msg, which came from src, is made with a cookie that was sent to src and is still
// valid. It changes nothing. Whitepaper §5.4.4, §5.4.7.
func (c *Checker) CheckMAC2(now mono.Time, msg []byte, src netip.AddrPort) bool {
	_, mac2, ok := macs(msg)
	present := c.secret.Load()
	if !ok || present.expired(now) {
		return false
	}
	var none [wire.MACSize]byte
	if subtle.ConstantTimeCompare(msg[mac2:], none[:]) == 1 {
		return false // the sender holds no cookie: most of a flood, refused at no cost
	}
	cookie := present.cookie(src)
	var want [wire.MACSize]byte
	mac(&want, cookie[:], msg[:mac2])
	return subtle.ConstantTimeCompare(msg[mac2:], want[:]) == 1
}

// Reply writes a cookie reply to dst, which is at least wire.CookieReplySize long and doesn't overlap msg: the answer to
// msg, an initiation or a response from src whose mac1 is right. Every wire.CookieRefreshTime a new secret is drawn from
// random, and all cookies made before are invalid. random must be safe for concurrent use as far as Reply is called
// concurrently. After an error dst is not to be sent. Whitepaper §5.4.7.
func (c *Checker) Reply(now mono.Time, dst []byte, msg []byte, src netip.AddrPort, random io.Reader) error {
	if len(dst) < wire.CookieReplySize {
		panic("cookie: BUG: no room for a cookie reply")
	}
	dst = dst[:wire.CookieReplySize]
	mac1, mac2, ok := macs(msg)
	if !ok {
		return errMessage
	}
	present := c.secret.Load()
	if present.expired(now) {
		var err error
		if present, err = c.renew(present, now, random); err != nil {
			return err
		}
	}
	nonce := dst[wire.CookieReplyNonce:wire.CookieReplyCookie]
	if _, err := io.ReadFull(random, nonce); err != nil {
		return fmt.Errorf("cookie: nonce: %w", err)
	}
	aead, err := xaead(&c.keys.reply)
	if err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(dst, wire.TypeCookieReply)
	// The sender's index lies at the same place in both messages.
	copy(dst[wire.CookieReplyReceiver:wire.CookieReplyNonce], msg[wire.InitiationSender:])
	cookie := present.cookie(src)
	aead.Seal(dst[:wire.CookieReplyCookie], nonce, cookie[:], msg[mac1:mac2])
	return nil
}

const (
	_ = uint(wire.InitiationSender - wire.ResponseSender)
	_ = uint(wire.ResponseSender - wire.InitiationSender)
)

// expired reports whether there is no secret, or it is too old. Whitepaper §5.4.7; kernel: cookie.c, make_cookie.
func (s *secret) expired(now mono.Time) bool {
	return s == nil || now.Sub(s.born) >= wire.CookieRefreshTime
}

// renew draws a new secret in old's place, and returns the present one: another goroutine's if that was faster. When
// random fails, the old one stays, and stays expired.
func (c *Checker) renew(old *secret, now mono.Time, random io.Reader) (*secret, error) {
	fresh := &secret{born: now}
	if _, err := io.ReadFull(random, fresh.key[:]); err != nil {
		return nil, fmt.Errorf("cookie: secret: %w", err)
	}
	if !c.secret.CompareAndSwap(old, fresh) {
		return c.secret.Load(), nil
	}
	return fresh, nil
}

// cookie is MAC(secret, address || port): without the port, a sender that shares an address with a peer, behind a NAT say,
// could use its cookie. Whitepaper §5.4.7. An IPv4-mapped address counts as IPv4; a zone doesn't count.
func (s *secret) cookie(src netip.AddrPort) (cookie [wire.CookieSize]byte) {
	var b [18]byte
	from := b[:0]
	if ip := src.Addr().Unmap(); ip.Is4() {
		a := ip.As4()
		from = append(from, a[:]...)
	} else {
		a := ip.As16()
		from = append(from, a[:]...)
	}
	mac(&cookie, s.key[:], binary.BigEndian.AppendUint16(from, src.Port()))
	return cookie
}

// Format writes "(hidden)" whatever the verb.
func (c *Checker) Format(f fmt.State, verb rune) { fmt.Fprint(f, hidden) }
