package session

import (
	"bytes"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"throughline/internal/aead"
	"throughline/packet"
)

// After Wipe nothing is sealed, nothing opened, and the keys are gone.
func TestWipe(t *testing.T) {
	for _, impl := range aead.Implementations() {
		k1, k2 := [32]byte{1}, [32]byte{2}
		k, peer := New(impl, &k1, &k2, 1, 2, true, born), New(impl, &k2, &k1, 2, 1, false, born)
		sealed := train(t, 1420, 0, 100, 0, 1420)
		peer.Seal(sealed.Slab, sealed.Packets, 1420)
		k.Wipe()
		k.Wipe()

		b := train(t, 1420, 0, 100, 0, 1420)
		b.Packets[1].Drop = packet.DropMalformed
		before, packets := bytes.Clone(b.Slab), slices.Clone(b.Packets)
		k.Seal(b.Slab, b.Packets, 1420)
		if !bytes.Equal(b.Slab, before) {
			t.Errorf("%v: Seal wrote to the slab", impl)
		}
		for i, want := range []packet.Drop{packet.DropExpired, packet.DropMalformed, packet.DropExpired} {
			packets[i].Drop = want
			if b.Packets[i] != packets[i] {
				t.Errorf("%v: packet %d is %+v, want %+v", impl, i, b.Packets[i], packets[i])
			}
		}
		k.Open(sealed.Slab, sealed.Packets)
		for i, p := range sealed.Packets {
			if p.Drop != packet.DropExpired {
				t.Errorf("%v: opened packet %d has drop %v", impl, i, p.Drop)
			}
		}
		for _, key := range []*key{&k.send, &k.receive} {
			if !isZero(key.Key) {
				t.Errorf("%v: a key is left", impl)
			}
		}
	}
}

// isZero reports whether a Key seals as that of zeros.
func isZero(k *aead.Key) bool {
	var out [2][]byte
	for i, k := range []*aead.Key{k, aead.Best().NewKey(new([32]byte))} {
		slab := make([]byte, 64+16)
		k.Seal(slab, []packet.Packet{{Len: 64}})
		out[i] = slab
	}
	return bytes.Equal(out[0], out[1])
}

// A use that is under way when the keypair is retired ends with the right key, and then clears it.
func TestWipeWaitsForUsers(t *testing.T) {
	a, z := twins()
	for range 2 {
		if !a.send.users.Begin() {
			t.Fatal("no use begins")
		}
	}
	a.Wipe()
	b := train(t, 1420, 0, 100)
	header := b.Packets[0]
	a.send.Seal(b.Slab, b.Packets) // as Seal would go on
	a.send.end()
	if isZero(a.send.Key) {
		t.Fatal("cleared while another use is under way")
	}
	a.send.end()
	if !isZero(a.send.Key) || !isZero(a.receive.Key) {
		t.Error("not cleared by the last use")
	}
	z.receive.Open(b.Slab, b.Packets)
	if b.Packets[0].Drop != 0 || b.Packets[0].Len != header.Len {
		t.Errorf("what was sealed meanwhile doesn't open: %v", b.Packets[0].Drop)
	}
}

// Lanes seal and open as fast as they can while the keypair is wiped: whatever isn't dropped was sealed with the session's
// key, never with zeros or with half of it. The race detector sees a key that is cleared under a user's hands.
func TestWipeWhileInUse(t *testing.T) {
	const rounds, lanes = 40, 4
	var sealed, refused atomic.Int64
	for _, impl := range aead.Implementations() {
		for range rounds {
			k1, k2 := [32]byte{1, 7}, [32]byte{2, 8}
			a := New(impl, &k1, &k2, 1, 2, true, born)
			z := New(impl, &k2, &k1, 2, 1, false, born) // never wiped
			var all sync.WaitGroup
			begin := make(chan struct{})
			for lane := range lanes {
				b := train(t, 1420, 0, 96, 200, 96, 96, 640, 96)
				laid, packets := bytes.Clone(b.Slab), slices.Clone(b.Packets)
				all.Go(func() {
					<-begin
					for {
						copy(b.Slab, laid)
						copy(b.Packets, packets)
						if lane%2 == 0 { // outbound
							a.Seal(b.Slab, b.Packets, 1420)
							if b.Packets[0].Drop == packet.DropExpired {
								refused.Add(1)
								return
							}
							z.Open(b.Slab, b.Packets)
						} else {
							z.Seal(b.Slab, b.Packets, 1420)
							a.Open(b.Slab, b.Packets)
							if b.Packets[0].Drop == packet.DropExpired {
								refused.Add(1)
								return
							}
						}
						for i := range b.Packets {
							if b.Packets[i].Drop != 0 {
								t.Errorf("%v: a packet didn't open with the session's key: %v", impl, b.Packets[i].Drop)
								return
							}
						}
						sealed.Add(1)
						runtime.Gosched()
					}
				})
			}
			all.Go(func() {
				<-begin
				for before := sealed.Load(); sealed.Load() < before+3 && !t.Failed(); { // somewhere among them
					runtime.Gosched()
				}
				a.Wipe()
			})
			close(begin)
			all.Wait()
			if !isZero(a.send.Key) || !isZero(a.receive.Key) {
				t.Fatalf("%v: a key is left", impl)
			}
		}
	}
	if sealed.Load() == 0 || refused.Load() == 0 {
		t.Errorf("%d trains before Wipe, %d after: the test saw one side only", sealed.Load(), refused.Load())
	}
	t.Logf("%d trains before Wipe, %d lanes refused after it", sealed.Load(), refused.Load())
}
