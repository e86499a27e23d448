package cookie

import (
	"encoding/binary"
	"fmt"

	"throughline/internal/mono"
	"throughline/internal/wire"
)

// A Jar is the sender's side for one peer: the cookie that peer handed out, and the mac1 last sent to it. The zero Jar
// is empty and ready. It belongs to one caller at a time.
type Jar struct {
	cookie [wire.CookieSize]byte
	born   mono.Time // when the cookie came; zero: there is none
	mac1   [wire.MACSize]byte
	sent   bool // mac1 was sent and no cookie reply to it accepted
}

// AddMACs writes mac1 to msg, an initiation or a response of the exact size that is complete but for its macs, and mac2:
// made with the cookie while that is valid, zero otherwise. keys are those of the peer that msg goes to. The Jar
// remembers mac1: a cookie reply must refer to it. Whitepaper §5.4.4.
func (j *Jar) AddMACs(now mono.Time, keys *Keys, msg []byte) {
	mac1, mac2, ok := macs(msg)
	if !ok {
		panic("cookie: BUG: macs for neither an initiation nor a response")
	}
	mac(&j.mac1, keys.mac1[:], msg[:mac1])
	copy(msg[mac1:mac2], j.mac1[:])
	j.sent = true

	// The sender stops using a cookie a little early, so that the message arrives while the cookie is valid. Kernel:
	// cookie.c, wg_cookie_add_mac_to_packet.
	if j.born != 0 && now.Sub(j.born) >= wire.CookieRefreshTime-wire.CookieLatency {
		j.born = 0
		clear(j.cookie[:])
	}
	if j.born == 0 {
		clear(msg[mac2:])
		return
	}
	mac((*[wire.MACSize]byte)(msg[mac2:]), j.cookie[:], msg[:mac2])
}

// ConsumeReply keeps the cookie in reply and returns true, if reply is a cookie reply of the exact size from the peer
// whose keys these are, to the message that AddMACs saw last, and the first such; else it changes nothing and returns
// false. The cookie is for the next message: a reply causes no message itself. Whitepaper §5.4.7, §6.6.
func (j *Jar) ConsumeReply(now mono.Time, keys *Keys, reply []byte) bool {
	if !j.sent || len(reply) != wire.CookieReplySize || binary.LittleEndian.Uint32(reply) != wire.TypeCookieReply {
		return false
	}
	aead, err := xaead(&keys.reply)
	if err != nil {
		return false
	}
	var cookie [wire.CookieSize]byte
	nonce, sealed := reply[wire.CookieReplyNonce:wire.CookieReplyCookie], reply[wire.CookieReplyCookie:]
	if _, err := aead.Open(cookie[:0], nonce, sealed, j.mac1[:]); err != nil {
		return false
	}
	j.cookie, j.born = cookie, now
	j.sent = false // kernel: cookie.c, wg_cookie_message_consume
	clear(cookie[:])
	return true
}

// Format writes "(hidden)" whatever the verb.
func (j *Jar) Format(f fmt.State, verb rune) { fmt.Fprint(f, hidden) }
