package cookie

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"throughline/internal/wire"
)

func TestWithoutCookie(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			c, keys, msg := NewChecker(public), KeysFor(public), kind()
			if c.CheckMAC1(msg) {
				t.Error("accepted rubbish for mac1")
			}
			var j Jar
			before := kind()
			j.AddMACs(start, &keys, msg)
			if n := len(msg) - 32; !bytes.Equal(msg[:n], before[:n]) {
				t.Error("AddMACs changed the message before its macs")
			}
			if !c.CheckMAC1(msg) {
				t.Error("refused the right mac1")
			}
			if !bytes.Equal(mac2Of(msg), make([]byte, 16)) {
				t.Error("mac2 isn't zero without a cookie")
			}
			if c.CheckMAC2(start, msg, v4) {
				t.Error("accepted a zero mac2")
			}
			if other := NewChecker([32]byte{9}); other.CheckMAC1(msg) {
				t.Error("somebody else accepted mac1")
			}
		})
	}
}

func TestWithCookie(t *testing.T) {
	for name, kind := range kinds {
		for _, src := range []netip.AddrPort{v4, v6} {
			t.Run(fmt.Sprint(name, " from ", src), func(t *testing.T) {
				c, keys := NewChecker(public), KeysFor(public)
				var j Jar
				msg, reply := kind(), bytes.Repeat([]byte{0xee}, 80)
				j.AddMACs(start, &keys, msg)
				if err := c.Reply(start, reply, msg, src, random()); err != nil {
					t.Fatal(err)
				}
				if want := append([]byte{3, 0, 0, 0}, msg[4:8]...); !bytes.Equal(reply[:8], want) {
					t.Errorf("the reply begins with % x, want % x", reply[:8], want)
				}
				if !bytes.Equal(reply[64:], bytes.Repeat([]byte{0xee}, 16)) {
					t.Error("bytes behind the reply were written")
				}
				if !j.ConsumeReply(start, &keys, reply[:64]) {
					t.Fatal("the reply was refused")
				}
				for _, next := range kinds { // a cookie is good for either message
					msg := next()
					j.AddMACs(start, &keys, msg)
					if !c.CheckMAC1(msg) || !c.CheckMAC2(start, msg, src) {
						t.Errorf("a message of %d bytes with a cookie was refused", len(msg))
					}
				}
			})
		}
	}
}

// The sender uses a cookie for two minutes less the latency it allows for.
func TestCookieAge(t *testing.T) {
	for _, tt := range []struct {
		age  time.Duration
		used bool
	}{
		{0, true},
		{wire.CookieRefreshTime - wire.CookieLatency - 1, true},
		{wire.CookieRefreshTime - wire.CookieLatency, false},
		{wire.CookieRefreshTime, false},
		{24 * time.Hour, false},
	} {
		_, j, keys := withCookie(t, start, v4)
		msg := initiation()
		j.AddMACs(start.Add(tt.age), keys, msg)
		if used := !bytes.Equal(mac2Of(msg), make([]byte, 16)); used != tt.used {
			t.Errorf("a cookie %v old: used is %t", tt.age, used)
		}
		if !tt.used && j.cookie != [16]byte{} {
			t.Errorf("a cookie %v old is still kept", tt.age)
		}
	}
}

// A reply is accepted only to the mac1 sent last, once, and only unchanged.
func TestReplyRefused(t *testing.T) {
	c, keys := NewChecker(public), KeysFor(public)
	rnd := random()
	var j Jar
	msg, reply := initiation(), make([]byte, wire.CookieReplySize)
	sender := new(Jar)
	sender.AddMACs(start, &keys, msg)
	if err := c.Reply(start, reply, msg, v4, rnd); err != nil {
		t.Fatal(err)
	}
	refuse := func(what string, keys *Keys, reply []byte) {
		t.Helper()
		before, was := j, bytes.Clone(reply)
		if j.ConsumeReply(start, keys, reply) {
			t.Errorf("accepted %s", what)
		}
		if j != before {
			t.Errorf("%s changed the Jar", what)
		}
		if !bytes.Equal(reply, was) {
			t.Errorf("%s was itself changed", what)
		}
	}

	refuse("a reply when nothing was sent", &keys, reply)
	other := initiation()
	other[50]++
	j.AddMACs(start, &keys, other)
	refuse("a reply to another message", &keys, reply)
	j.AddMACs(start, &keys, msg)
	for bit := wire.CookieReplyNonce * 8; bit < len(reply)*8; bit++ {
		bad := bytes.Clone(reply)
		bad[bit/8] ^= 1 << (bit % 8)
		refuse(fmt.Sprintf("a reply with bit %d flipped", bit), &keys, bad)
	}
	for at := range 4 {
		bad := bytes.Clone(reply)
		bad[at] ^= 0x80
		refuse(fmt.Sprintf("a reply with byte %d of its type changed", at), &keys, bad)
	}
	for n := range 100 {
		if n != len(reply) {
			refuse(fmt.Sprintf("a reply of %d bytes", n), &keys, append(bytes.Clone(reply), make([]byte, 64)...)[:n])
		}
	}
	wrong := KeysFor([32]byte{1})
	refuse("a reply under another key", &wrong, reply)
	if !j.ConsumeReply(start, &keys, reply) {
		t.Error("refused the genuine reply after all those")
	}
	refuse("the same reply again", &keys, reply)

	// One who has a cookie isn't robbed of it by a forgery.
	next := initiation()
	j.AddMACs(start, &keys, next)
	refuse("a reply to a message before", &keys, make([]byte, wire.CookieReplySize))
	if !c.CheckMAC2(start, next, v4) {
		t.Error("the cookie is gone")
	}
}
