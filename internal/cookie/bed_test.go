package cookie

import (
	"bytes"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"throughline/internal/mono"
	"throughline/internal/wire"
)

var (
	public = [32]byte(sequence(0, 32))
	v4     = netip.MustParseAddrPort("192.0.2.1:51820")
	v6     = netip.MustParseAddrPort("[2001:db8::1]:51820")
	start  = mono.Time(time.Hour)
)

func sequence(from byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = from + byte(i)
	}
	return b
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func random() io.Reader { return rand.NewChaCha8([32]byte{1}) }

// initiation and response return messages that are complete but for their macs, which hold rubbish.
func initiation() []byte {
	return append(append([]byte{1, 0, 0, 0}, sequence(4, 112)...), bytes.Repeat([]byte{0xee}, 32)...)
}

func response() []byte {
	return append(append([]byte{2, 0, 0, 0}, sequence(4, 56)...), bytes.Repeat([]byte{0xee}, 32)...)
}

var kinds = map[string]func() []byte{"initiation": initiation, "response": response}

// withCookie returns a Checker and a Jar that holds a cookie of it, given to src at now.
func withCookie(tb testing.TB, now mono.Time, src netip.AddrPort) (*Checker, *Jar, *Keys) {
	tb.Helper()
	c, j, keys := NewChecker(public), new(Jar), KeysFor(public)
	bake(tb, now, c, j, &keys, src, random())
	return c, j, &keys
}

// bake has c give j a cookie.
func bake(tb testing.TB, now mono.Time, c *Checker, j *Jar, keys *Keys, src netip.AddrPort, random io.Reader) {
	tb.Helper()
	msg, reply := initiation(), make([]byte, wire.CookieReplySize)
	j.AddMACs(now, keys, msg)
	if err := c.Reply(now, reply, msg, src, random); err != nil {
		tb.Fatal(err)
	}
	if !j.ConsumeReply(now, keys, reply) {
		tb.Fatal("the cookie reply was refused")
	}
}

func mac2Of(msg []byte) []byte { return msg[len(msg)-wire.MACSize:] }
