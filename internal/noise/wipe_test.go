package noise

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"throughline/internal/wire"
	"throughline/wgtypes"
)

// The ephemeral keys are wiped with the handshake, however it ends.
func TestEphemeralKeysAreWiped(t *testing.T) {
	zero := make([]byte, wire.KeySize)
	b := newBed(t, 1)
	msg := make([]byte, wire.InitiationSize)
	begin := func() (*Initiator, func() []byte) {
		e := b.ephemeral(t)
		i, err := Initiate(msg, b.i, b.r.Public(), &b.ss, e, b.iIndex, b.ts)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(e.Bytes(), zero) {
			t.Fatal("wiped while the response is awaited")
		}
		return i, e.Bytes
	}
	i, e := begin()
	i.Clear()
	if !bytes.Equal(e(), zero) {
		t.Error("the initiator's is left after Clear")
	}
	i, e = begin()
	er := b.ephemeral(t)
	reply := make([]byte, wire.ResponseSize)
	if _, err := b.consume(t, msg).Respond(reply, &b.psk, er, b.rIndex); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(er.Bytes(), zero) {
		t.Error("the responder's is left after Respond")
	}
	if _, _, err := i.ConsumeResponse(reply, b.i, &b.psk); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(e(), zero) {
		t.Error("the initiator's is left after ConsumeResponse")
	}
	wrong := b.ephemeral(t)
	if _, err := Initiate(msg, b.i, wgtypes.PublicKey{}, &b.ss, wrong, b.iIndex, b.ts); err == nil {
		t.Error("an initiation to a low-order point")
	}
	if !bytes.Equal(wrong.Bytes(), zero) {
		t.Error("it is left after an initiation that failed")
	}
}

// An identity that is wiped while handshakes compute with it gives right results or errors, never wrong ones, and is zero in
// the end. The race detector sees a key that is cleared under a computation's hands.
func TestIdentityWipe(t *testing.T) {
	for range 20 {
		b := newBed(t, 2)
		if b.i.Private() != wgtypes.PrivateKey(b.ipriv) {
			t.Fatal("Private returns another key")
		}
		var all sync.WaitGroup
		begin := make(chan struct{})
		for range 3 {
			all.Go(func() {
				<-begin
				for {
					switch ss, err := b.i.SharedSecret(b.r.Public()); {
					case errors.Is(err, errWiped) && ss == [32]byte{}:
						return
					case err != nil || ss != b.ss:
						t.Errorf("another secret, or %v", err)
						return
					}
				}
			})
		}
		all.Go(func() { <-begin; b.i.Wipe(); b.i.Wipe() })
		close(begin)
		all.Wait()
		if !bytes.Equal(b.i.private.Bytes(), make([]byte, wire.KeySize)) || !b.i.Private().IsZero() {
			t.Fatal("the private key is left")
		}
		if _, err := ConsumeInitiation(make([]byte, wire.InitiationSize), b.i); err == nil {
			t.Error("it consumes an initiation")
		}
	}
	(*Identity)(nil).Wipe()
}
