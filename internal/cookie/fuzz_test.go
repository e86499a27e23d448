package cookie

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"throughline/internal/mono"
	"throughline/internal/wire"
)

// Whatever comes, nothing is accepted but the genuine reply, and what is refused changes nothing.
func FuzzConsumeReply(f *testing.F) {
	c, keys := NewChecker(public), KeysFor(public)
	var j Jar
	msg, genuine := initiation(), make([]byte, wire.CookieReplySize)
	j.AddMACs(start, &keys, msg)
	if err := c.Reply(start, genuine, msg, v4, random()); err != nil {
		f.Fatal(err)
	}
	f.Add(genuine, true)
	f.Add(genuine, false)
	f.Add(genuine[:63], true)
	f.Add([]byte{3, 0, 0, 0}, true)
	f.Fuzz(func(t *testing.T, reply []byte, sent bool) {
		k := j
		k.sent = sent
		before, was := k, bytes.Clone(reply)
		ok := k.ConsumeReply(start, &keys, reply)
		if !bytes.Equal(reply, was) {
			t.Fatal("the reply was changed")
		}
		if !ok {
			if k != before {
				t.Fatal("a refused reply changed the Jar")
			}
			return
		}
		// The index of the receiver is the caller's to judge.
		if !sent || !bytes.Equal(reply[:4], genuine[:4]) || !bytes.Equal(reply[8:], genuine[8:]) {
			t.Fatalf("accepted a forgery: %x", reply)
		}
		if k.cookie != c.secret.Load().cookie(v4) {
			t.Fatal("kept another cookie")
		}
	})
}

// Whatever comes from wherever, a mac2 is accepted only where it was made for.
func FuzzCheckMAC2(f *testing.F) {
	c, j, keys := withCookie(f, start, v4)
	for _, kind := range kinds {
		msg := kind()
		j.AddMACs(start, keys, msg)
		f.Add(msg, v4.Addr().AsSlice(), v4.Port(), int64(0))
		f.Add(msg, v6.Addr().AsSlice(), v6.Port(), int64(wire.CookieRefreshTime))
		f.Add(msg[:40], []byte{}, uint16(0), int64(-1))
	}
	f.Fuzz(func(t *testing.T, msg, addr []byte, port uint16, age int64) {
		ip, _ := netip.AddrFromSlice(addr) // an invalid address too
		src := netip.AddrPortFrom(ip, port)
		was := bytes.Clone(msg)
		c.CheckMAC1(msg)
		ok := c.CheckMAC2(start+mono.Time(age), msg, src)
		if !bytes.Equal(msg, was) {
			t.Fatal("the message was changed")
		}
		if !ok {
			return
		}
		if src.Addr().Unmap() != v4.Addr() || port != v4.Port() || age >= int64(wire.CookieRefreshTime) {
			t.Fatalf("accepted from %v at the age of %v", src, time.Duration(age))
		}
		again := bytes.Clone(msg)
		(&Jar{cookie: j.cookie, born: start}).AddMACs(start, keys, again)
		if !bytes.Equal(again[:len(again)-32], msg[:len(msg)-32]) {
			t.Fatal("AddMACs changed the message before its macs")
		}
		var want [16]byte
		mac(&want, j.cookie[:], msg[:len(msg)-16])
		if !bytes.Equal(want[:], mac2Of(msg)) {
			t.Fatalf("accepted a forgery: %x", msg)
		}
	})
}
