package noise

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"throughline/internal/wire"
	"throughline/wgtypes"
)

// lowOrder are the u coordinates of low order below 2^256: 0, 1, the two of order 8, p-1, p, p+1, and those again with
// the top bit that X25519 ignores. RFC 7748 §7; https://cr.yp.to/ecdh.html#validate.
func lowOrder(tb testing.TB) (points []wgtypes.PublicKey) {
	for _, s := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		p := wgtypes.PublicKey(unhex(tb, s))
		q := p
		q[31] |= 0x80
		points = append(points, p, q)
	}
	return points
}

func TestLowOrderPoints(t *testing.T) {
	b := newBed(t, 5)
	i, msg := b.initiate(t)
	_, resp := b.respond(t, b.consume(t, msg))
	for _, p := range lowOrder(t) {
		if ss, err := b.i.SharedSecret(p); !errors.Is(err, errPoint) || ss != [32]byte{} {
			t.Errorf("ss with %x: %x, %v", p, ss, err)
		}
		bad := bytes.Clone(msg)
		copy(bad[wire.InitiationEphemeral:], p[:])
		if _, err := ConsumeInitiation(bad, b.r); !errors.Is(err, errPoint) {
			t.Errorf("es with %x: %v", p, err)
		}
		bad = bytes.Clone(resp)
		copy(bad[wire.ResponseEphemeral:], p[:])
		if _, _, err := i.ConsumeResponse(bad, b.i, &b.psk); !errors.Is(err, errPoint) {
			t.Errorf("ee with %x: %v", p, err)
		}
		if i, err := Initiate(make([]byte, wire.InitiationSize), b.i, p, &b.ss, b.ephemeral(t), 1, b.ts); !errors.Is(err, errPoint) || i != nil {
			t.Errorf("an initiation to %x: %v", p, err)
		}
		// se: only one who sends such a static key and finds the responder's ss ignored comes this far.
		r := b.consume(t, msg)
		r.static = p
		if keys, err := r.Respond(make([]byte, wire.ResponseSize), &b.psk, b.ephemeral(t), 1); !errors.Is(err, errPoint) || keys != (Keys{}) {
			t.Errorf("se with %x: %v", p, err)
		}
		if *r != (Responder{}) {
			t.Error("a failed Respond left something behind")
		}
	}
	// A static-static secret whose error somebody ignored.
	var zero [32]byte
	if _, err := Initiate(make([]byte, wire.InitiationSize), b.i, b.r.Public(), &zero, b.ephemeral(t), 1, b.ts); !errors.Is(err, errPoint) {
		t.Errorf("an initiation with a zero ss: %v", err)
	}
	r, err := ConsumeInitiation(msg, b.r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Verify(&zero); !errors.Is(err, errPoint) {
		t.Errorf("verified with a zero ss: %v", err)
	}
}

func TestIdentity(t *testing.T) {
	if _, err := NewIdentity(new(wgtypes.PrivateKey)); err == nil {
		t.Error("the zero key became an identity")
	}
	b := newBed(t, 6)
	unclamped, clamped := [32]byte{0xff, 31: 0xff}, [32]byte{0xf8, 31: 0x7f}
	if identity(t, unclamped).Public() != identity(t, clamped).Public() {
		t.Error("a key and its clamped form differ")
	}
	ss, err := b.r.SharedSecret(b.i.Public())
	if err != nil || ss != b.ss {
		t.Errorf("the two sides' static-static secrets differ, %v", err)
	}
	var wg sync.WaitGroup
	for range 4 { // for the race detector
		wg.Go(func() {
			if got, err := b.i.SharedSecret(b.r.Public()); err != nil || got != b.ss {
				t.Errorf("concurrently: %v", err)
			}
		})
	}
	wg.Wait()
}

func TestNewEphemeral(t *testing.T) {
	want := randomBytes(9, 64)
	random := chacha(9)
	for n := range 2 {
		e, err := NewEphemeral(random)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(e.Bytes(), want[32*n:32*n+32]) {
			t.Errorf("key %d isn't made of the reader's bytes", n)
		}
	}
	if e, err := NewEphemeral(bytes.NewReader(make([]byte, 31))); !errors.Is(err, io.ErrUnexpectedEOF) || e != nil {
		t.Errorf("from 31 bytes: %v", err)
	}
}

func TestSecretsDontPrint(t *testing.T) {
	b := newBed(t, 7)
	i, msg := b.initiate(t)
	r := b.consume(t, msg)
	secrets := [][]byte{bytes.Clone(i.s.c[:]), bytes.Clone(r.s.c[:])}
	var out strings.Builder
	show := func(v any) {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		j, err := json.Marshal(v)
		fmt.Fprintf(&out, "%s %v\n", j, err)
	}
	show(i)
	show(r)
	keys, _ := b.respond(t, r)
	secrets = append(secrets, keys.Send[:], keys.Receive[:], b.ipriv[:])
	show(keys)
	show(&keys)
	show(struct{ K Keys }{keys})
	show(b.i)
	for _, s := range secrets {
		for _, form := range []string{hex.EncodeToString(s[:4]), strings.ToUpper(hex.EncodeToString(s[:4])),
			fmt.Sprintf("%d %d %d", s[0], s[1], s[2]), fmt.Sprintf("%d,%d,%d", s[0], s[1], s[2]),
			fmt.Sprintf("%#x, %#x, %#x", s[0], s[1], s[2]), string(s[:4])} {
			if strings.Contains(out.String(), form) {
				t.Errorf("a secret was printed as %q", form)
			}
		}
	}
	if !strings.Contains(out.String(), hidden) {
		t.Error("nothing says that something is hidden")
	}
}
