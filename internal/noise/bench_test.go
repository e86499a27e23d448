package noise

import (
	"bytes"
	"crypto/ecdh"
	"testing"

	"throughline/internal/wire"
)

// A flood of forged initiations must not make us allocate more than the key exchange does by itself.
func TestAllocs(t *testing.T) {
	b := newBed(t, 8)
	_, msg := b.initiate(t)
	forged := bytes.Clone(msg)
	forged[wire.InitiationStatic] ^= 1
	short := msg[:100]
	for _, tt := range []struct {
		name string
		f    func()
		max  float64
	}{
		{"kdf", func() { var c, k [32]byte; kdf(&c, b.psk[:], &c, &k) }, 0},
		{"mixHash", func() { var s symmetric; s.mixHash(msg[:48]) }, 0},
		{"a short initiation", func() { ConsumeInitiation(short, b.r) }, 0},
		{"a forged initiation", func() { ConsumeInitiation(forged, b.r) }, 5},
	} {
		if n := testing.AllocsPerRun(20, tt.f); n > tt.max {
			t.Errorf("%s: %v allocations, want at most %v", tt.name, n, tt.max)
		}
	}
}

// BenchmarkHandshake is a whole handshake, both sides: eight X25519.
func BenchmarkHandshake(b *testing.B) {
	bed := newBed(b, 1)
	msg, resp := make([]byte, wire.InitiationSize), make([]byte, wire.ResponseSize)
	b.ReportAllocs()
	for b.Loop() {
		e, _ := NewEphemeral(bed.random)
		i, err := Initiate(msg, bed.i, bed.r.Public(), &bed.ss, e, 1, bed.ts)
		if err != nil {
			b.Fatal(err)
		}
		r, err := ConsumeInitiation(msg, bed.r)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := r.Verify(&bed.ss); err != nil {
			b.Fatal(err)
		}
		e, _ = NewEphemeral(bed.random)
		if _, err := r.Respond(resp, &bed.psk, e, 2); err != nil {
			b.Fatal(err)
		}
		if _, _, err := i.ConsumeResponse(resp, bed.i, &bed.psk); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLadder is one X25519, the unit a handshake is counted in.
func BenchmarkLadder(b *testing.B) {
	bed := newBed(b, 1)
	pub, err := ecdh.X25519().NewPublicKey(bed.r.public[:])
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		dh(bed.i.private, pub)
	}
}

// BenchmarkForgedInitiation is what one datagram of a flood costs that passed mac1.
func BenchmarkForgedInitiation(b *testing.B) {
	bed := newBed(b, 1)
	_, msg := bed.initiate(b)
	msg[wire.InitiationStatic] ^= 1
	b.ReportAllocs()
	for b.Loop() {
		ConsumeInitiation(msg, bed.r)
	}
}
