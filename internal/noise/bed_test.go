package noise

import (
	"bytes"
	"crypto/ecdh"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"throughline/internal/wire"
	"throughline/wgtypes"
)

// A bed is two identities and all that a handshake between them needs, the same for the same seed.
type bed struct {
	random         io.Reader
	ipriv, rpriv   [32]byte
	i, r           *Identity
	ss             [32]byte
	psk            wgtypes.PresharedKey
	iIndex, rIndex uint32
	ts             Timestamp
}

func newBed(tb testing.TB, seed byte) *bed {
	tb.Helper()
	b := &bed{random: chacha(seed), iIndex: 0x01020304, rIndex: 0xa1a2a3a4}
	for _, k := range []*[32]byte{&b.ipriv, &b.rpriv, (*[32]byte)(&b.psk)} {
		io.ReadFull(b.random, k[:])
	}
	b.i, b.r = identity(tb, b.ipriv), identity(tb, b.rpriv)
	var err error
	if b.ss, err = b.i.SharedSecret(b.r.Public()); err != nil {
		tb.Fatal(err)
	}
	b.ts = TAI64N(time.Unix(1_700_000_000, 123_456_789))
	return b
}

func chacha(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

func randomBytes(seed byte, n int) []byte {
	b := make([]byte, n)
	io.ReadFull(chacha(seed), b)
	return b
}

func identity(tb testing.TB, private wgtypes.PrivateKey) *Identity {
	tb.Helper()
	id, err := NewIdentity(&private)
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

func (b *bed) ephemeral(tb testing.TB) *ecdh.PrivateKey {
	tb.Helper()
	e, err := NewEphemeral(b.random)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

func (b *bed) initiate(tb testing.TB) (*Initiator, []byte) {
	tb.Helper()
	msg := bytes.Repeat([]byte{0xee}, wire.InitiationSize)
	i, err := Initiate(msg, b.i, b.r.Public(), &b.ss, b.ephemeral(tb), b.iIndex, b.ts)
	if err != nil {
		tb.Fatal(err)
	}
	return i, msg
}

// consume consumes and verifies an initiation that must be good.
func (b *bed) consume(tb testing.TB, msg []byte) *Responder {
	tb.Helper()
	r, err := ConsumeInitiation(msg, b.r)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := r.Verify(&b.ss); err != nil {
		tb.Fatal(err)
	}
	return r
}

func (b *bed) respond(tb testing.TB, r *Responder) (Keys, []byte) {
	tb.Helper()
	msg := bytes.Repeat([]byte{0xee}, wire.ResponseSize)
	keys, err := r.Respond(msg, &b.psk, b.ephemeral(tb), b.rIndex)
	if err != nil {
		tb.Fatal(err)
	}
	return keys, msg
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}
