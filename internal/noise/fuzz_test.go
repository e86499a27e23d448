package noise

import (
	"bytes"
	"testing"

	"throughline/internal/wire"
)

// Whatever comes, nothing is accepted but the genuine initiation, in which only the fields that mac1 alone covers may
// differ.
func FuzzConsumeInitiation(f *testing.F) {
	b := newBed(f, 1)
	_, genuine := b.initiate(f)
	f.Add(genuine)
	f.Add(genuine[:wire.InitiationSize-1])
	f.Add(append(bytes.Clone(genuine), 0))
	f.Add([]byte{1, 0, 0, 0})
	for _, p := range lowOrder(f) {
		msg := bytes.Clone(genuine)
		copy(msg[wire.InitiationEphemeral:], p[:])
		f.Add(msg)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		before := bytes.Clone(msg)
		r, err := ConsumeInitiation(msg, b.r)
		if err == nil {
			var ts Timestamp
			if ts, err = r.Verify(&b.ss); err == nil {
				if !bytes.Equal(msg[:wire.InitiationSender], genuine[:wire.InitiationSender]) ||
					!bytes.Equal(msg[wire.InitiationEphemeral:wire.InitiationMAC1], genuine[wire.InitiationEphemeral:wire.InitiationMAC1]) {
					t.Fatalf("accepted a forgery: %x", msg)
				}
				if ts != b.ts || r.Static() != b.i.Public() {
					t.Fatalf("read timestamp %x and static key %x", ts, r.Static())
				}
			} else if *r != (Responder{}) {
				t.Fatal("a failed Verify left something behind")
			}
		} else if r != nil {
			t.Fatal("a Responder beside an error")
		}
		if !bytes.Equal(msg, before) {
			t.Fatal("the message was changed")
		}
	})
}

// Whatever comes, nothing is accepted but the genuine response, and what is refused leaves the Initiator as it was.
func FuzzConsumeResponse(f *testing.F) {
	b := newBed(f, 1)
	i, msg := b.initiate(f)
	keys, genuine := b.respond(f, b.consume(f, msg))
	f.Add(genuine)
	f.Add(genuine[:wire.ResponseSize-1])
	f.Add(append(bytes.Clone(genuine), 0))
	f.Add([]byte{2, 0, 0, 0})
	for _, p := range lowOrder(f) {
		msg := bytes.Clone(genuine)
		copy(msg[wire.ResponseEphemeral:], p[:])
		f.Add(msg)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		before, state := bytes.Clone(msg), *i
		got, _, err := state.ConsumeResponse(msg, b.i, &b.psk)
		if err != nil {
			if state != *i || got != (Keys{}) {
				t.Fatal("a refused response changed the Initiator, or came with keys")
			}
		} else {
			if !bytes.Equal(msg[:wire.ResponseSender], genuine[:wire.ResponseSender]) ||
				!bytes.Equal(msg[wire.ResponseReceiver:wire.ResponseMAC1], genuine[wire.ResponseReceiver:wire.ResponseMAC1]) {
				t.Fatalf("accepted a forgery: %x", msg)
			}
			if got != keys.swapped() || state != (Initiator{}) {
				t.Fatal("other keys, or an Initiator that isn't over")
			}
		}
		if !bytes.Equal(msg, before) {
			t.Fatal("the message was changed")
		}
	})
}
