package packet

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"throughline/internal/wire"
)

// Packets are laid so that the datagrams they become touch, and keep what was copied.
func TestAppendLaysDatagramsThatTouch(t *testing.T) {
	b := New()
	b.MTU = 1420
	var want [][]byte
	for i := range 40 {
		p := bytes.Repeat([]byte{byte(i + 1)}, []int{1420, 1, 16, 999, 0}[i%5])
		if !b.Append(p) {
			t.Fatalf("no room for packet %d", i)
		}
		want = append(want, p)
	}
	end := 0
	for i := range b.Packets {
		if got := b.Bytes(i); !bytes.Equal(got, want[i]) {
			t.Fatalf("packet %d was changed", i)
		}
		p := b.Packets[i]
		if p.Off-Headroom != end {
			t.Fatalf("packet %d: its datagram begins at %d, the one before ended at %d", i, p.Off-Headroom, end)
		}
		end = p.Off + wire.Padded(p.Len, b.MTU) + Tailroom
	}
}

func TestAppendUntilFull(t *testing.T) {
	for _, size := range []int{0, 1, 20, 1420, 9000, wire.MaxPacket} {
		b := New()
		n := 0
		for b.Append(make([]byte, size)) {
			n++
			p := b.Packets[len(b.Packets)-1]
			if p.Off+wire.Padded(p.Len, 0)+Tailroom > len(b.Slab) {
				t.Fatalf("%d bytes: packet %d reaches beyond the slab", size, n)
			}
		}
		if n == 0 || n > MaxPackets {
			t.Errorf("%d bytes: %d packets fit", size, n)
		}
		b.Reset()
		if !b.Append(make([]byte, size)) {
			t.Errorf("%d bytes: no room after Reset", size)
		}
	}
}

func TestReceived(t *testing.T) {
	from := Endpoint{Addr: netip.MustParseAddrPort("192.0.2.1:51820")}
	for _, c := range []struct {
		name    string
		n, size int
		want    []int
	}{
		{"one datagram", 100, 0, []int{100}},
		{"one, its own size given", 100, 100, []int{100}},
		{"one, a larger size given", 100, 1452, []int{100}},
		{"a super-packet", 300, 100, []int{100, 100, 100}},
		{"a super-packet with a short tail", 250, 100, []int{100, 100, 50}},
		{"an empty datagram", 0, 0, nil},
		{"a negative size", 10, -1, []int{10}},
	} {
		b := New()
		b.Received(32, 0, from) // something before
		off, _ := b.Free()
		if omitted := b.Received(c.n, c.size, from); omitted != 0 {
			t.Errorf("%s: %d omitted", c.name, omitted)
		}
		var got []int
		for _, p := range b.Packets[1:] {
			if p.Off != off {
				t.Errorf("%s: a datagram at %d, want %d", c.name, p.Off, off)
			}
			off += p.Len
			got = append(got, p.Len)
		}
		if len(got) != len(c.want) {
			t.Fatalf("%s: %v, want %v", c.name, got, c.want)
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Fatalf("%s: %v, want %v", c.name, got, c.want)
			}
		}
		if next, _ := b.Free(); next%16 != 0 || next < off {
			t.Errorf("%s: the next datagram would lie at %d", c.name, next)
		}
		covered := 0
		for _, r := range b.Runs {
			if r.First != covered || r.Endpoint != from {
				t.Errorf("%s: runs %+v don't cover the packets", c.name, b.Runs)
			}
			covered += r.N
		}
		if covered != len(b.Packets) {
			t.Errorf("%s: runs cover %d of %d packets", c.name, covered, len(b.Packets))
		}
	}
}

func TestReceivedBeyondRoom(t *testing.T) {
	b := NewSize(64<<10, 10)
	if omitted := b.Received(20*50, 50, Endpoint{}); omitted != 10 || len(b.Packets) != 10 {
		t.Errorf("%d packets and %d omitted, want 10 and 10", len(b.Packets), omitted)
	}
	if omitted := b.Received(70, 50, Endpoint{}); omitted != 2 || len(b.Packets) != 10 || len(b.Runs) != 1 {
		t.Errorf("%d omitted of a full batch, %d runs", omitted, len(b.Runs))
	}
}

// A slab may end anywhere.
func TestReceivedToTheEnd(t *testing.T) {
	b := NewSize(100, 4)
	b.Received(99, 0, Endpoint{})
	if off, free := b.Free(); off != 100 || len(free) != 0 {
		t.Errorf("%d bytes are free at %d", len(free), off)
	}
	if b.Append([]byte{1}) {
		t.Error("a packet fits behind the end")
	}
}

func TestDropNames(t *testing.T) {
	seen := map[string]Drop{}
	for d := range NumDrops {
		name := d.String()
		if name == "" || name == "unknown" {
			t.Errorf("reason %d has no name", d)
		}
		if other, ok := seen[name]; ok {
			t.Errorf("reasons %d and %d share the name %s", d, other, name)
		}
		seen[name] = d
	}
	if NumDrops.String() != "unknown" {
		t.Error("what is no reason has a name")
	}
	if _, ok := seen[Taken.String()]; ok || Taken.String() == "unknown" {
		t.Errorf("Taken is called %v, as a reason or as what is none", Taken)
	}
}

// Taken is neither a live packet's state, which is zero, nor a reason with a counter.
func TestTakenIsNoReason(t *testing.T) {
	if Taken == 0 || Taken < NumDrops {
		t.Errorf("Taken is %d; reasons end before %d", Taken, NumDrops)
	}
	for d := range Drop(1<<8 - 1) {
		if counted := d.Counted(); counted != (d != 0) {
			t.Errorf("Drop %d: counted %v", d, counted)
		}
	}
	if Taken.Counted() {
		t.Error("Taken is counted")
	}

	var drops Drops
	b := New()
	for _, d := range []Drop{0, DropTag, Taken, DropTag, NumDrops - 1} {
		b.Append(nil)
		b.Packets[len(b.Packets)-1].Drop = d
	}
	drops.Count(b)
	drops.Add(DropDown, 3)
	drops.Add(DropSend, 0)
	want := map[Drop]uint64{DropTag: 2, NumDrops - 1: 1, DropDown: 3}
	for d := range NumDrops {
		if got := drops[d].Load(); got != want[d] {
			t.Errorf("%d packets were dropped as %v, want %d", got, d, want[d])
		}
	}
}

// A nonce is what the whitepaper says in §5.4.6, whatever counter was there before.
func TestNonce(t *testing.T) {
	var p Packet
	for _, counter := range []uint64{0, 1, 1<<32 - 1, 1 << 32, 0x0123456789abcdef, 1<<64 - 1, 7} {
		p.SetCounter(counter)
		if got := p.Counter(); got != counter {
			t.Errorf("counter %#x came back as %#x", counter, got)
		}
		if want := binary.LittleEndian.AppendUint64(make([]byte, 4), counter); !bytes.Equal(p.Nonce(), want) {
			t.Errorf("counter %#x is the nonce %x, want %x", counter, p.Nonce(), want)
		}
	}
}

func TestFillingAllocatesNothing(t *testing.T) {
	b, p := New(), make([]byte, 1420)
	from := Endpoint{Addr: netip.MustParseAddrPort("[2001:db8::1]:1")}
	if n := testing.AllocsPerRun(100, func() {
		b.Reset()
		for range 45 {
			b.Append(p)
		}
		b.Received(4000, 100, from)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Sorting puts a train in the order of its counters, and packets with the same counter stay as they came.
func TestSortByCounter(t *testing.T) {
	var train []Packet
	for i, counter := range []uint64{7, 1 << 40, 2, 7, 0} {
		p := Packet{Off: i}
		p.SetCounter(counter)
		train = append(train, p)
	}
	SortByCounter(train)
	for i, off := range []int{4, 2, 0, 3, 1} {
		if train[i].Off != off {
			t.Errorf("at %d: packet %d, want %d", i, train[i].Off, off)
		}
	}
}
