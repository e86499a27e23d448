package session

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"throughline/internal/aead"
	"throughline/internal/mono"
	"throughline/internal/wire"
	"throughline/packet"
)

const born = mono.Time(time.Hour)

// twins returns the two ends of a session.
func twins() (initiator, responder *Keypair) {
	k1, k2 := [wire.KeySize]byte{1}, [wire.KeySize]byte{2}
	return New(aead.Best(), &k1, &k2, 0x11111111, 0x22222222, true, born), New(aead.Best(), &k2, &k1, 0x22222222, 0x11111111, false, born)
}

// train lays packets of the sizes in a batch, with counters from first.
func train(t testing.TB, mtu int, first uint64, sizes ...int) *packet.Batch {
	t.Helper()
	b := packet.New()
	b.MTU = mtu
	for i, n := range sizes {
		if !b.Append(bytes.Repeat([]byte{byte(i + 1)}, n)) {
			t.Fatal("the batch is full")
		}
		b.Packets[i].SetCounter(first + uint64(i))
	}
	return b
}

func TestSealThenOpen(t *testing.T) {
	a, z := twins()
	for _, mtu := range []int{1280, 1420, 9000, 0} {
		sizes := []int{0, 1, 15, 16, 17, 100, 1279, 1280, 1280}
		b := train(t, mtu, 7, sizes...)
		for i := range b.Slab[:32] {
			b.Slab[i] = 0xaa // the header is written over whatever was there
		}
		b.Packets[3].Drop = packet.DropMalformed
		before := b.Packets[3]
		a.Seal(b.Slab, b.Packets, mtu)
		end := 0
		for i := range b.Packets {
			p := &b.Packets[i]
			if i == 3 {
				if *p != before {
					t.Fatal("a dropped packet was touched")
				}
				end = p.Off + wire.Padded(p.Len, mtu) + wire.TagSize
				continue
			}
			if want := wire.Padded(sizes[i], mtu) + wire.TransportOverhead; p.Len != want {
				t.Errorf("MTU %d: a packet of %d bytes became a datagram of %d, want %d", mtu, sizes[i], p.Len, want)
			}
			if p.Off != end {
				t.Errorf("MTU %d: datagram %d doesn't touch the one before", mtu, i)
			}
			end = p.Off + p.Len
			d := b.Bytes(i)
			if kind := binary.LittleEndian.Uint32(d); kind != wire.TypeTransport {
				t.Errorf("type %#x", kind)
			}
			if index := binary.LittleEndian.Uint32(d[wire.TransportReceiver:]); index != z.LocalIndex {
				t.Errorf("receiver index %#x", index)
			}
			if c := binary.LittleEndian.Uint64(d[wire.TransportCounter:]); c != 7+uint64(i) {
				t.Errorf("counter %d", c)
			}
			p.SetCounter(0) // the receiver reads it from the datagram
		}
		z.Open(b.Slab, b.Packets)
		for i := range b.Packets {
			if i == 3 {
				continue
			}
			p := &b.Packets[i]
			if p.Drop != 0 || p.Counter() != 7+uint64(i) || p.Len != wire.Padded(sizes[i], mtu) {
				t.Fatalf("packet %d came back as %+v", i, *p)
			}
			got := b.Bytes(i)
			if !bytes.Equal(got[:sizes[i]], bytes.Repeat([]byte{byte(i + 1)}, sizes[i])) {
				t.Errorf("packet %d differs", i)
			}
			if pad := got[sizes[i]:]; !bytes.Equal(pad, make([]byte, len(pad))) {
				t.Errorf("packet %d is padded with % x", i, pad)
			}
		}
	}
}

func TestOpenRefusesWhatIsForged(t *testing.T) {
	a, z := twins()
	for _, at := range []int{0, wire.TransportCounter, wire.TransportHeaderSize, wire.TransportHeaderSize + 40, wire.TransportOverhead + 63} {
		b := train(t, 1420, 0, 64, 64, 64)
		a.Seal(b.Slab, b.Packets, 1420)
		b.Slab[b.Packets[1].Off+at] ^= 1
		z.Open(b.Slab, b.Packets)
		// The type and the index were looked at before; they are not authenticated themselves.
		refused := at >= wire.TransportCounter
		for i := range b.Packets {
			if got := b.Packets[i].Drop == packet.DropTag; got != (refused && i == 1) {
				t.Errorf("bit flipped at %d of packet 1: packet %d refused: %v", at, i, got)
			}
		}
	}
	// Our own packet, reflected.
	b := train(t, 1420, 0, 64)
	a.Seal(b.Slab, b.Packets, 1420)
	a.Open(b.Slab, b.Packets)
	if b.Packets[0].Drop != packet.DropTag {
		t.Error("a reflected packet passes")
	}
}

func TestReserve(t *testing.T) {
	const limit = wire.RejectAfterMessages
	for _, c := range []struct {
		at    uint64
		n     int
		ok    bool
		after uint64
	}{
		{0, 1, true, 1},
		{5, 45, true, 50},
		{wire.RekeyAfterMessages, 1, true, wire.RekeyAfterMessages + 1},
		{limit - 1, 1, true, limit},
		{limit - 1, 2, false, limit - 1}, // a train that doesn't fit takes nothing
		{limit, 1, false, limit},
		{1<<64 - 1, 1, false, 1<<64 - 1},
	} {
		k, _ := twins()
		k.counter.Store(c.at)
		first, ok := k.Reserve(c.n)
		if ok != c.ok || ok && first != c.at || k.counter.Load() != c.after {
			t.Errorf("at %d, Reserve(%d) = %d, %v and leaves %d", c.at, c.n, first, ok, k.counter.Load())
		}
	}
}

func TestLimits(t *testing.T) {
	at := func(d time.Duration) mono.Time { return born.Add(d) }
	initiator, responder := twins()
	for _, c := range []struct {
		what string
		got  bool
		want bool
	}{
		{"send when fresh", initiator.CanSend(born), true},
		{"send before 180 s", initiator.CanSend(at(180*time.Second - 1)), true},
		{"send at 180 s", initiator.CanSend(at(180 * time.Second)), false},
		{"receive before 180 s", responder.CanReceive(at(180*time.Second - 1)), true},
		{"receive at 180 s", responder.CanReceive(at(180 * time.Second)), false},
		{"initiator rekeys on send before 120 s", initiator.RekeyOnSend(at(120*time.Second - 1)), false},
		{"initiator rekeys on send at 120 s", initiator.RekeyOnSend(at(120 * time.Second)), true},
		{"responder rekeys on send at 120 s", responder.RekeyOnSend(at(179 * time.Second)), false},
		{"initiator rekeys on receipt before 165 s", initiator.RekeyOnReceive(at(165*time.Second - 1)), false},
		{"initiator rekeys on receipt at 165 s", initiator.RekeyOnReceive(at(165 * time.Second)), true},
		{"responder rekeys on receipt at 165 s", responder.RekeyOnReceive(at(179 * time.Second)), false},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v", c.what, c.got)
		}
	}
	responder.counter.Store(wire.RekeyAfterMessages)
	if !responder.RekeyOnSend(born) {
		t.Error("no rekey after 2^60 messages")
	}
	if !initiator.Unused() || responder.Unused() {
		t.Error("Unused is wrong")
	}
	initiator.Expire()
	if initiator.CanSend(born) || !initiator.CanReceive(born) {
		t.Error("an expired keypair should receive, and not send")
	}
}

// TestRotation walks a trio through every step a peer can take it.
func TestRotation(t *testing.T) {
	named := map[*Keypair]string{nil: "-"}
	make := func(name string) *Keypair {
		k, _ := twins()
		named[k] = name
		return k
	}
	show := func(k Keypairs, gone Retired) string {
		words := []string{named[k.Previous], named[k.Current], named[k.Next]}
		for _, late := range k.Late {
			if late != nil {
				words = append(words, named[late])
			}
		}
		words = append(words, "gone")
		for _, g := range gone {
			if g != nil {
				words = append(words, named[g])
			}
		}
		return strings.Join(words, " ")
	}
	var k Keypairs
	var gone Retired
	step := func(want string, next Keypairs, g Retired) {
		t.Helper()
		k, gone = next, g
		if got := show(k, gone); got != want {
			t.Errorf("previous, current, next, late: %s; want %s", got, want)
		}
	}
	then := func(want string) func(Keypairs, Retired) { return func(n Keypairs, g Retired) { step(want, n, g) } }

	then("- A - gone")(k.Initiated(make("A")))
	then("A B - gone")(k.Initiated(make("B")))
	then("B C - gone A")(k.Initiated(make("C")))
	then("B C D gone")(k.Responded(make("D")))
	then("B C E gone D")(k.Responded(make("E")))
	then("C E - gone B")(k.Confirmed())
	then("C E F gone")(k.Responded(make("F")))
	then("F G - E gone C")(k.Initiated(make("G"))) // both began at once: the peer may still send with E
	then("F G H E gone")(k.Responded(make("H")))
	then("H I - G F gone E")(k.Initiated(make("I"))) // and once more: with F, or with G if it never heard of F
	then("H I J G F gone")(k.Responded(make("J")))
	then("I J - H gone G F")(k.Confirmed()) // the peer sent with H
	then("J K - gone I H")(k.Initiated(make("K")))
	then("J K L gone")(k.Responded(make("L")))
	then("L M - K gone J")(k.Initiated(make("M")))
	then("M N - L gone K")(k.Initiated(make("N")))
	then("M N O L gone")(k.Responded(make("O")))
	then("- - - gone M N O L")(k.Erased())
}

func TestTheDataPathAllocatesNothing(t *testing.T) {
	a, z := twins()
	b := train(t, 1420, 0, 1420, 1420, 100)
	saved := append([]packet.Packet(nil), b.Packets...)
	if n := testing.AllocsPerRun(100, func() {
		copy(b.Packets, saved)
		first, _ := a.Reserve(len(b.Packets))
		for i := range b.Packets {
			b.Packets[i].SetCounter(first + uint64(i))
		}
		a.Seal(b.Slab, b.Packets, 1420)
		z.Open(b.Slab, b.Packets)
		for i := range b.Packets {
			if !z.Accept(b.Packets[i].Counter()) {
				t.Fatal("refused")
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
