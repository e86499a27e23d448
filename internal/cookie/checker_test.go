package cookie

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"throughline/internal/mono"
	"throughline/internal/wire"
)

// A cookie is bound to the address and to the port it was handed to.
func TestWrongSource(t *testing.T) {
	for _, src := range []netip.AddrPort{v4, v6} {
		c, j, keys := withCookie(t, start, src)
		msg := initiation()
		j.AddMACs(start, keys, msg)
		if !c.CheckMAC2(start, msg, src) {
			t.Fatalf("refused from %v", src)
		}
		for _, other := range []netip.AddrPort{
			netip.AddrPortFrom(src.Addr(), src.Port()+1),
			netip.AddrPortFrom(src.Addr(), src.Port()<<8|src.Port()>>8),
			netip.AddrPortFrom(src.Addr(), 0),
			netip.AddrPortFrom(src.Addr().Next(), src.Port()),
			netip.AddrPortFrom(netip.MustParseAddr("::c000:201"), src.Port()),
			netip.AddrPortFrom(netip.IPv6Unspecified(), src.Port()),
			{},
		} {
			if c.CheckMAC2(start, msg, other) {
				t.Errorf("a cookie for %v was accepted from %v", src, other)
			}
		}
	}
	if a, b := netip.MustParseAddrPort("[::ffff:192.0.2.1]:51820"), v4; a != b {
		c, j, keys := withCookie(t, start, a)
		msg := initiation()
		if j.AddMACs(start, keys, msg); !c.CheckMAC2(start, msg, b) {
			t.Error("an IPv4-mapped address and its IPv4 address have different cookies")
		}
	}
}

// Every bit of a message is covered by mac1, and every bit of it and of mac1 by mac2.
func TestBitFlips(t *testing.T) {
	for name, kind := range kinds {
		c, j, keys := withCookie(t, start, v4)
		msg := kind()
		j.AddMACs(start, keys, msg)
		for bit := range len(msg) * 8 {
			bad := bytes.Clone(msg)
			bad[bit/8] ^= 1 << (bit % 8)
			if inMAC2 := bit/8 >= len(msg)-16; c.CheckMAC1(bad) != inMAC2 {
				t.Fatalf("%s: mac1 with bit %d flipped: %t", name, bit, !inMAC2)
			}
			if c.CheckMAC2(start, bad, v4) {
				t.Fatalf("%s: mac2 accepted with bit %d flipped", name, bit)
			}
		}
	}
}

func TestNotAHandshakeMessage(t *testing.T) {
	c, j, keys := withCookie(t, start, v4)
	reply := make([]byte, wire.CookieReplySize)
	for name, kind := range kinds {
		msg := kind()
		j.AddMACs(start, keys, msg)
		for n := range 200 {
			if n == len(msg) {
				continue
			}
			bad := append(bytes.Clone(msg), make([]byte, 200)...)[:n]
			if c.CheckMAC1(bad) || c.CheckMAC2(start, bad, v4) {
				t.Errorf("%s of %d bytes was accepted", name, n)
			}
			if err := c.Reply(start, reply, bad, v4, random()); !errors.Is(err, errMessage) {
				t.Errorf("%s of %d bytes was answered: %v", name, n, err)
			}
		}
	}
	// Right macs over a type whose reserved bytes aren't zero.
	for name, kind := range kinds {
		for at := range 4 {
			bad := kind()
			bad[at] |= 0x80
			mac1, mac2 := len(bad)-32, len(bad)-16
			mac((*[16]byte)(bad[mac1:]), keys.mac1[:], bad[:mac1])
			mac((*[16]byte)(bad[mac2:]), j.cookie[:], bad[:mac2])
			if c.CheckMAC1(bad) || c.CheckMAC2(start, bad, v4) {
				t.Errorf("%s with byte %d of its type changed was accepted", name, at)
			}
		}
	}
	transport := initiation() // the length of one, and another type
	transport[0] = wire.TypeTransport
	if c.CheckMAC1(transport) || c.CheckMAC2(start, transport, v4) {
		t.Error("a transport message was accepted")
	}
	for name, f := range map[string]func(){
		"AddMACs to a transport message": func() { j.AddMACs(start, keys, transport) },
		"a short reply":                  func() { c.Reply(start, reply[:63], initiation(), v4, random()) },
	} {
		func() {
			defer func() {
				if s, ok := recover().(string); !ok || !strings.HasPrefix(s, "cookie: BUG: ") {
					t.Errorf("%s: recovered %q", name, s)
				}
			}()
			f()
		}()
	}
}

// The responder's secret lives two minutes, counted from when it was drawn, and the cookies made of it die with it.
func TestSecretAge(t *testing.T) {
	rnd := random()
	c, keys := NewChecker(public), KeysFor(public)
	var early, late Jar
	bake(t, start, c, &early, &keys, v4, rnd)
	first := c.secret.Load()
	if first == nil || first.key == [32]byte{} {
		t.Fatal("no secret was drawn")
	}
	msg := initiation()
	early.AddMACs(start, &keys, msg)
	end := start.Add(wire.CookieRefreshTime)
	if !c.CheckMAC2(end-1, msg, v4) {
		t.Error("refused while the secret lives")
	}
	if c.CheckMAC2(end, msg, v4) || c.CheckMAC2(end.Add(time.Hour), msg, v4) {
		t.Error("accepted after the secret's time")
	}

	bake(t, end-1, c, &late, &keys, v4, rnd)
	if c.secret.Load() != first {
		t.Error("the secret changed before its time")
	}
	if late.cookie != early.cookie {
		t.Error("the same source has two cookies under one secret")
	}
	msg = initiation()
	late.AddMACs(end-1, &keys, msg)
	bake(t, end, c, &early, &keys, v4, rnd)
	if c.secret.Load() == first {
		t.Error("the secret didn't change in time")
	}
	if c.CheckMAC2(end, msg, v4) {
		t.Error("a cookie of the old secret was accepted under the new one")
	}
	msg = initiation()
	if early.AddMACs(end, &keys, msg); !c.CheckMAC2(end, msg, v4) {
		t.Error("a cookie of the new secret was refused")
	}
}

func TestNoSecretYet(t *testing.T) {
	// The cookie that a Checker without a secret would make, in the first seconds of the clock too.
	for _, now := range []mono.Time{1, mono.Time(time.Second), start} {
		c, keys := NewChecker(public), KeysFor(public)
		j := Jar{cookie: new(secret).cookie(v4), born: now}
		msg := initiation()
		if j.AddMACs(now, &keys, msg); c.CheckMAC2(now, msg, v4) {
			t.Errorf("accepted a cookie made of the zero secret at %d", now)
		}
	}
}

// A failing reader makes an error, and neither a known secret nor a half-made one.
func TestRandomFails(t *testing.T) {
	msg, reply, keys := initiation(), make([]byte, wire.CookieReplySize), KeysFor(public)
	new(Jar).AddMACs(start, &keys, msg)
	for _, n := range []int{0, 31, 32, 55} {
		c := NewChecker(public)
		if err := c.Reply(start, reply, msg, v4, io.LimitReader(random(), int64(n))); err == nil {
			t.Errorf("a reply of %d random bytes", n)
		}
		if drawn := c.secret.Load() != nil; drawn != (n >= 32) {
			t.Errorf("after %d random bytes: secret drawn is %t", n, drawn)
		}
	}
	if err := NewChecker(public).Reply(start, reply, msg, v4, io.LimitReader(random(), 56)); err != nil {
		t.Errorf("56 random bytes aren't enough: %v", err)
	}
}

// Each reply has a nonce of its own.
func TestNonces(t *testing.T) {
	c, keys, rnd, seen := NewChecker(public), KeysFor(public), random(), map[string]bool{}
	msg, reply := initiation(), make([]byte, wire.CookieReplySize)
	new(Jar).AddMACs(start, &keys, msg)
	for range 10 {
		if err := c.Reply(start, reply, msg, v4, rnd); err != nil {
			t.Fatal(err)
		}
		nonce := string(reply[wire.CookieReplyNonce:wire.CookieReplyCookie])
		if seen[nonce] {
			t.Fatal("a nonce came twice")
		}
		seen[nonce] = true
	}
}

// All methods beside each other, while secrets come and go; for the race detector.
func TestConcurrent(t *testing.T) {
	c, j, keys := withCookie(t, start, v4)
	msg := initiation()
	j.AddMACs(start, keys, msg)
	bad := bytes.Clone(msg)
	bad[20]++
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				if !c.CheckMAC1(msg) || c.CheckMAC1(bad) {
					t.Error("CheckMAC1 is wrong beside itself")
					return
				}
				c.CheckMAC2(start, msg, v4)
				if c.CheckMAC2(start, bad, v4) {
					t.Error("CheckMAC2 accepted a forgery beside Reply")
					return
				}
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			rnd, reply := random(), make([]byte, wire.CookieReplySize)
			for n := range 100 {
				if err := c.Reply(start.Add(time.Duration(n)*time.Minute), reply, msg, v4, rnd); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// Of several that find the secret expired at once one draws the next, and all cookies are of that.
func TestOneSecretOfSeveral(t *testing.T) {
	for round := range 50 {
		c, keys := NewChecker(public), KeysFor(public)
		var jars [4]Jar
		var wg sync.WaitGroup
		for i := range jars {
			wg.Go(func() { bake(t, start, c, &jars[i], &keys, v4, rand.NewChaCha8([32]byte{byte(i), byte(round)})) })
		}
		wg.Wait()
		for i := range jars {
			msg := initiation()
			if jars[i].AddMACs(start, &keys, msg); !c.CheckMAC2(start, msg, v4) {
				t.Fatalf("round %d: cookie %d is of a secret that isn't there", round, i)
			}
		}
	}
}

func TestSecretsDontPrint(t *testing.T) {
	c, j, _ := withCookie(t, start, v4)
	for _, v := range []any{c, j} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			if got := fmt.Sprintf(verb, v); got != hidden {
				t.Errorf("%T prints as %q", v, got)
			}
		}
		if got, err := json.Marshal(v); err != nil || string(got) != "{}" {
			t.Errorf("%T in JSON is %s, %v", v, got, err)
		}
	}
}
