package noise

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"throughline/internal/wire"
	"throughline/wgtypes"
)

func TestHandshake(t *testing.T) {
	b := newBed(t, 1)
	i, msg := b.initiate(t)
	if !bytes.Equal(msg[:8], []byte{1, 0, 0, 0, 4, 3, 2, 1}) {
		t.Errorf("the initiation begins with % x", msg[:8])
	}
	if !bytes.Equal(msg[wire.InitiationMAC1:], make([]byte, 32)) {
		t.Error("the initiation's mac fields are not zero")
	}
	r, err := ConsumeInitiation(msg, b.r)
	if err != nil {
		t.Fatal(err)
	}
	if r.Static() != b.i.Public() || r.Sender() != b.iIndex {
		t.Fatalf("read static key %x and index %x", r.Static(), r.Sender())
	}
	ts, err := r.Verify(&b.ss)
	if err != nil || ts != b.ts {
		t.Fatalf("read timestamp %x, %v, want %x", ts, err, b.ts)
	}
	rkeys, resp := b.respond(t, r)
	if !bytes.Equal(resp[:12], []byte{2, 0, 0, 0, 0xa4, 0xa3, 0xa2, 0xa1, 4, 3, 2, 1}) {
		t.Errorf("the response begins with % x", resp[:12])
	}
	if !bytes.Equal(resp[wire.ResponseMAC1:], make([]byte, 32)) {
		t.Error("the response's mac fields are not zero")
	}
	ikeys, remote, err := i.ConsumeResponse(resp, b.i, &b.psk)
	if err != nil {
		t.Fatal(err)
	}
	if remote != b.rIndex {
		t.Errorf("the responder's index is %x, want %x", remote, b.rIndex)
	}
	if ikeys != rkeys.swapped() {
		t.Error("the two sides have different keys")
	}
	if ikeys.Send == ikeys.Receive || ikeys.Send == [32]byte{} || ikeys.Receive == [32]byte{} {
		t.Error("the keys of the two directions are equal or zero")
	}
}

// A borrowed message may be overwritten as soon as the call returns.
func TestMessageIsBorrowed(t *testing.T) {
	b := newBed(t, 1)
	i, msg := b.initiate(t)
	r, err := ConsumeInitiation(msg, b.r)
	if err != nil {
		t.Fatal(err)
	}
	clear(msg)
	if ts, err := r.Verify(&b.ss); err != nil || ts != b.ts {
		t.Fatalf("Verify = %x, %v", ts, err)
	}
	_, resp := b.respond(t, r)
	before := bytes.Clone(resp)
	if _, _, err := i.ConsumeResponse(resp, b.i, &b.psk); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(resp, before) {
		t.Error("ConsumeResponse changed the message")
	}
}

// Two handshakes with the same statics share no key.
func TestKeysAreFresh(t *testing.T) {
	b := newBed(t, 1)
	seen := map[[32]byte]bool{}
	for range 3 {
		_, msg := b.initiate(t)
		keys, _ := b.respond(t, b.consume(t, msg))
		if seen[keys.Send] || seen[keys.Receive] {
			t.Fatal("a key came twice")
		}
		seen[keys.Send], seen[keys.Receive] = true, true
	}
}

// dst may be longer than the message; what lies behind it is not touched.
func TestLongDestination(t *testing.T) {
	b := newBed(t, 1)
	msg := bytes.Repeat([]byte{0xee}, 200)
	if _, err := Initiate(msg, b.i, b.r.Public(), &b.ss, b.ephemeral(t), 1, b.ts); err != nil {
		t.Fatal(err)
	}
	r := b.consume(t, msg[:wire.InitiationSize])
	resp := bytes.Repeat([]byte{0xee}, 200)
	if _, err := r.Respond(resp, &b.psk, b.ephemeral(t), 2); err != nil {
		t.Fatal(err)
	}
	for _, rest := range [][]byte{msg[wire.InitiationSize:], resp[wire.ResponseSize:]} {
		if !bytes.Equal(rest, bytes.Repeat([]byte{0xee}, len(rest))) {
			t.Error("bytes behind the message were written")
		}
	}
}

// Every bit of an initiation is authenticated, but for the sender's index, which mac1 covers.
func TestInitiationBitFlips(t *testing.T) {
	t.Parallel()
	b := newBed(t, 2)
	_, msg := b.initiate(t)
	for bit := range wire.InitiationMAC1 * 8 {
		bad := bytes.Clone(msg)
		bad[bit/8] ^= 1 << (bit % 8)
		r, err := ConsumeInitiation(bad, b.r)
		if bit/8 >= wire.InitiationTimestamp && err != nil {
			t.Fatalf("bit %d of the timestamp makes ConsumeInitiation fail: %v", bit, err)
		}
		if err == nil {
			_, err = r.Verify(&b.ss)
		}
		if inIndex := bit/8 >= wire.InitiationSender && bit/8 < wire.InitiationEphemeral; inIndex {
			if err != nil || r.Sender() == b.iIndex {
				t.Fatalf("bit %d of the index: sender %x, %v", bit, r.Sender(), err)
			}
		} else if err == nil {
			t.Fatalf("accepted with bit %d flipped", bit)
		}
	}
}

// Every bit of a response is authenticated or checked, but for the sender's index; and no forgery disturbs the genuine
// response.
func TestResponseBitFlips(t *testing.T) {
	t.Parallel()
	b := newBed(t, 2)
	i, msg := b.initiate(t)
	rkeys, resp := b.respond(t, b.consume(t, msg))
	before := *i
	for bit := range wire.ResponseMAC1 * 8 {
		if bit/8 >= wire.ResponseSender && bit/8 < wire.ResponseReceiver {
			continue
		}
		bad := bytes.Clone(resp)
		bad[bit/8] ^= 1 << (bit % 8)
		keys, remote, err := i.ConsumeResponse(bad, b.i, &b.psk)
		if err == nil || keys != (Keys{}) || remote != 0 {
			t.Fatalf("accepted with bit %d flipped, or returned something with the error %v", bit, err)
		}
		if *i != before {
			t.Fatalf("bit %d: the forgery changed the Initiator", bit)
		}
	}
	keys, _, err := i.ConsumeResponse(resp, b.i, &b.psk)
	if err != nil || keys != rkeys.swapped() {
		t.Fatalf("the genuine response after the forgeries: %v", err)
	}
}

func TestSizesAndTypes(t *testing.T) {
	b := newBed(t, 1)
	i, msg := b.initiate(t)
	_, resp := b.respond(t, b.consume(t, msg))
	for n := range 300 {
		if n != wire.InitiationSize {
			if _, err := ConsumeInitiation(append(bytes.Clone(msg), make([]byte, 200)...)[:n], b.r); !errors.Is(err, errSize) {
				t.Errorf("an initiation of %d bytes: %v", n, err)
			}
		}
		if n != wire.ResponseSize {
			if _, _, err := i.ConsumeResponse(append(bytes.Clone(resp), make([]byte, 300)...)[:n], b.i, &b.psk); !errors.Is(err, errSize) {
				t.Errorf("a response of %d bytes: %v", n, err)
			}
		}
	}
	for at := range 4 {
		for _, v := range []byte{3, 4, 128, 255} {
			bad := bytes.Clone(msg)
			bad[at] = v
			if _, err := ConsumeInitiation(bad, b.r); !errors.Is(err, errType) {
				t.Errorf("byte %d of the initiation's type is %d: %v", at, v, err)
			}
			bad = bytes.Clone(resp)
			bad[at] = v
			if _, _, err := i.ConsumeResponse(bad, b.i, &b.psk); !errors.Is(err, errType) {
				t.Errorf("byte %d of the response's type is %d: %v", at, v, err)
			}
		}
	}
}

func TestWrongPartners(t *testing.T) {
	b, other := newBed(t, 3), newBed(t, 4)
	i, msg := b.initiate(t)
	if _, err := ConsumeInitiation(msg, other.r); !errors.Is(err, errAuth) {
		t.Errorf("an initiation to somebody else: %v", err)
	}
	r, err := ConsumeInitiation(msg, b.r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Verify(&other.ss); !errors.Is(err, errAuth) {
		t.Errorf("verified with the secret of another pair: %v", err)
	}
	if *r != (Responder{}) {
		t.Error("a failed Verify left something behind")
	}

	// Somebody who knows b.i's public key but not its private key says it is b.i.
	thief := &Identity{private: other.i.private, public: b.i.public}
	ss, err := thief.SharedSecret(b.r.Public())
	if err != nil {
		t.Fatal(err)
	}
	forged := make([]byte, wire.InitiationSize)
	if _, err := Initiate(forged, thief, b.r.Public(), &ss, b.ephemeral(t), 7, b.ts); err != nil {
		t.Fatal(err)
	}
	r, err = ConsumeInitiation(forged, b.r)
	if err != nil || r.Static() != b.i.Public() {
		t.Fatalf("the thief's initiation: %v", err)
	}
	if _, err := r.Verify(&b.ss); !errors.Is(err, errAuth) {
		t.Errorf("verified a thief: %v", err)
	}

	// A response under another preshared key, and one read under another identity.
	_, resp := b.respond(t, b.consume(t, msg))
	before := *i
	for name, psk := range map[string]wgtypes.PresharedKey{"zero": {}, "another": other.psk} {
		if _, _, err := i.ConsumeResponse(resp, b.i, &psk); !errors.Is(err, errAuth) {
			t.Errorf("with %s preshared key: %v", name, err)
		}
	}
	if _, _, err := i.ConsumeResponse(resp, other.i, &b.psk); !errors.Is(err, errAuth) {
		t.Errorf("with another identity: %v", err)
	}

	// The response to another initiation of the same peers, by chance with the same index.
	_, msg2 := b.initiate(t)
	_, resp2 := b.respond(t, b.consume(t, msg2))
	if _, _, err := i.ConsumeResponse(resp2, b.i, &b.psk); !errors.Is(err, errAuth) {
		t.Errorf("the response to another initiation: %v", err)
	}
	resp2[wire.ResponseReceiver]++
	if _, _, err := i.ConsumeResponse(resp2, b.i, &b.psk); !errors.Is(err, errIndex) {
		t.Errorf("the response to another index: %v", err)
	}
	if *i != before {
		t.Error("a refused response changed the Initiator")
	}
	if _, _, err := i.ConsumeResponse(resp, b.i, &b.psk); err != nil {
		t.Errorf("the genuine response after all those: %v", err)
	}
}

// A handshake is answered once.
func TestOver(t *testing.T) {
	b := newBed(t, 1)
	i, msg := b.initiate(t)
	r := b.consume(t, msg)
	_, resp := b.respond(t, r)
	if _, _, err := i.ConsumeResponse(resp, b.i, &b.psk); err != nil {
		t.Fatal(err)
	}
	if *i != (Initiator{}) {
		t.Error("the Initiator still holds something")
	}
	if *r != (Responder{}) {
		t.Error("the Responder is not zero")
	}
	if _, _, err := i.ConsumeResponse(resp, b.i, &b.psk); !errors.Is(err, errSpent) {
		t.Errorf("the response a second time: %v", err)
	}
	if _, _, err := new(Initiator).ConsumeResponse(resp, b.i, &b.psk); !errors.Is(err, errSpent) {
		t.Errorf("a zero Initiator: %v", err)
	}

	i, msg = b.initiate(t)
	i.Clear()
	if *i != (Initiator{}) {
		t.Error("a cleared Initiator still holds something")
	}
	r = b.consume(t, msg)
	r.Clear()
	if *r != (Responder{}) {
		t.Error("a cleared Responder is not zero")
	}
	keys := Keys{Send: [32]byte{1}, Receive: [32]byte{2}}
	if keys.Clear(); keys != (Keys{}) {
		t.Error("cleared Keys still hold something")
	}
}

func TestOrder(t *testing.T) {
	b := newBed(t, 1)
	_, msg := b.initiate(t)
	fresh := func() *Responder {
		r, err := ConsumeInitiation(msg, b.r)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	dst, e := make([]byte, wire.InitiationSize), b.ephemeral(t)
	for name, f := range map[string]func(){
		"Respond before Verify": func() { fresh().Respond(dst, &b.psk, e, 1) },
		"Verify twice":          func() { b.consume(t, msg).Verify(&b.ss) },
		"Respond twice": func() {
			r := b.consume(t, msg)
			b.respond(t, r)
			r.Respond(dst, &b.psk, e, 1)
		},
		"Verify after Clear":   func() { r := fresh(); r.Clear(); r.Verify(&b.ss) },
		"a short initiation":   func() { Initiate(dst[:147], b.i, b.r.Public(), &b.ss, e, 1, b.ts) },
		"a short response":     func() { b.consume(t, msg).Respond(dst[:91], &b.psk, e, 1) },
		"a long input of hmac": func() { var k [32]byte; hmac(&k, &k, make([]byte, 34)) },
	} {
		func() {
			defer func() {
				if s, ok := recover().(string); !ok || !strings.HasPrefix(s, "noise: BUG: ") {
					t.Errorf("%s: recovered %q", name, s)
				}
			}()
			f()
		}()
	}
}
