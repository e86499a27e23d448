package aead

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"unsafe"

	"throughline/packet"
)

// needAVX512 skips a test where the CPU lacks AVX-512 with IFMA; emulate runs it on any amd64 machine.
func needAVX512(t *testing.T) {
	t.Helper()
	if !hasAVX512() {
		t.Skip("this CPU has no AVX-512 with IFMA; emulate/ runs this test on an emulated one")
	}
}

// Under emulate/ avx512 must be usable; elsewhere that depends on the CPU.
func TestAVX512IsUsable(t *testing.T) {
	if want := os.Getenv("THROUGHLINE_WANT_IMPLEMENTATION"); want != "" {
		if _, err := Named(want); err != nil {
			t.Fatal(err)
		}
	}
	if got := slices.Contains(Implementations(), avx512); got != hasAVX512() {
		t.Errorf("avx512 is usable: %v, but supported by the CPU: %v", got, hasAVX512())
	}
}

// The assembly has these offsets as numbers.
func TestAVX512Workspace(t *testing.T) {
	ws := workspaces512.Get().(*workspace512)
	if at := uintptr(unsafe.Pointer(ws)); at%64 != 0 {
		t.Errorf("the workspace is at %#x, not aligned to a cache line: slow", at)
	}
	for _, f := range []struct {
		name      string
		got, want uintptr
	}{
		{"zeros", unsafe.Offsetof(ws.zeros), 3776},
		{"heads", unsafe.Offsetof(ws.heads), 3904},
		{"segments", unsafe.Offsetof(ws.segments), 16128},
		{"a segment", unsafe.Sizeof(segment{}), 40},
		{"stripes", unsafe.Offsetof(ws.stripes), 16768},
		{"steps", unsafe.Offsetof(ws.steps), 16960},
		{"scratch", unsafe.Offsetof(ws.scratch), 17024},
		{"the end of scratch", unsafe.Offsetof(ws.scratch) + unsafe.Sizeof(ws.scratch), 17600},
	} {
		if f.got != f.want {
			t.Errorf("%s: %d, but the assembly says %d", f.name, f.got, f.want)
		}
	}
}

// checkAVX512 seals a train of packets of these lengths, opens it, and opens it with some packets forged: every byte of
// the slab is compared with x/crypto's. It never leaves a train to x/crypto, however small.
func checkAVX512(t *testing.T, rng *rand.Rand, lengths []int) {
	t.Helper()
	var key [32]byte
	for i := range key {
		key[i] = byte(rng.Uint32())
	}
	k := avx512.NewKey(&key)
	var train []packet.Packet
	end := rng.IntN(100)
	for _, n := range lengths {
		p := newPacket(end, n, rng.Uint64())
		if rng.IntN(20) == 0 {
			p.Drop = packet.DropNoPeer
		}
		train = append(train, p)
		end += n + 16 + rng.IntN(3)*rng.IntN(30)
	}
	slab := make([]byte, end)
	for i := range slab {
		slab[i] = byte(rng.Uint32())
	}
	rng.Shuffle(len(train), func(i, j int) { train[i], train[j] = train[j], train[i] })
	plain, plainTrain := bytes.Clone(slab), slices.Clone(train)
	want, wantTrain := bytes.Clone(slab), slices.Clone(train)
	nonce := make([]byte, 12)
	for i := range wantTrain {
		if p := &wantTrain[i]; p.Drop == 0 {
			binary.LittleEndian.PutUint64(nonce[4:], p.Counter())
			k.library().Seal(want[p.Off:p.Off], nonce, want[p.Off:p.Off+p.Len], nil)
			p.Len += 16
		}
	}
	compare := func(what string, want []byte, wantTrain []packet.Packet) {
		t.Helper()
		for i := range train {
			if train[i] != wantTrain[i] {
				t.Fatalf("%s %v: packet %d is %+v, want %+v", what, lengths, i, train[i], wantTrain[i])
			}
		}
		for i := range slab {
			if slab[i] != want[i] {
				t.Fatalf("%s %v: byte %d of the slab is %#x, want %#x; train %+v", what, lengths, i, slab[i], want[i], train)
			}
		}
	}
	trainAVX512(k, slab, train, true)
	compare("seal", want, wantTrain)
	// Open leaves the tags as they are.
	opened := bytes.Clone(want)
	for _, p := range plainTrain {
		copy(opened[p.Off:p.Off+p.Len], plain[p.Off:])
	}
	trainAVX512(k, slab, train, false)
	compare("open", opened, plainTrain)

	copy(slab, want)
	copy(train, wantTrain)
	for i := range train {
		if p := &train[i]; p.Drop == 0 && rng.IntN(3) == 0 {
			slab[p.Off+rng.IntN(p.Len)] ^= 1 << rng.IntN(8)
			copy(opened[p.Off:p.Off+p.Len], slab[p.Off:])
			clear(opened[p.Off:][:p.Len-16])
			plainTrain[i].Len = p.Len
			plainTrain[i].Drop = packet.DropTag
		}
	}
	trainAVX512(k, slab, train, false)
	compare("open with forged packets", opened, plainTrain)

	held := workspaces512.Get().(*workspace512)
	if held.secrets512 != (secrets512{}) || held.slab != nil {
		t.Fatal("secrets are left in the workspace")
	}
	workspaces512.Put(held)
}

func TestAVX512Trains(t *testing.T) {
	needAVX512(t)
	rng := rand.New(rand.NewPCG(11, 12))
	t.Run("one size", func(t *testing.T) {
		for _, n := range []int{1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 33} {
			for _, size := range []int{0, 1, 15, 16, 17, 48, 64, 128, 700, 1420} {
				checkAVX512(t, rng, slices.Repeat([]int{size}, n))
			}
		}
	})
	t.Run("all lengths", func(t *testing.T) {
		n := 2048
		if testing.Short() {
			n = 300
		}
		for first := 0; first < n; {
			var lengths []int
			for range 1 + rng.IntN(40) {
				lengths = append(lengths, first)
				first++
			}
			checkAVX512(t, rng, lengths)
		}
	})
	t.Run("one packet", func(t *testing.T) {
		for size := 0; size < 1500; size += 7 {
			checkAVX512(t, rng, []int{size})
		}
	})
	t.Run("mixed", func(t *testing.T) {
		times := 200
		if testing.Short() {
			times = 20
		}
		for range times {
			var lengths []int
			for range 1 + rng.IntN(50) {
				lengths = append(lengths, rng.IntN(1+[]int{16, 64, 200, 1420}[rng.IntN(4)]))
			}
			checkAVX512(t, rng, lengths)
		}
	})
	t.Run("long", func(t *testing.T) {
		checkAVX512(t, rng, []int{65535})
		checkAVX512(t, rng, []int{65535, 100, 9000, 4097})
		checkAVX512(t, rng, []int{30000, 30001, 65535, 30002, 20000, 0, 3, 64000})
	})
	t.Run("many", func(t *testing.T) {
		for _, n := range []int{512, 513, 600} {
			checkAVX512(t, rng, slices.Repeat([]int{20}, n))
		}
	})
}

func TestAVX512Pays(t *testing.T) {
	checkChoices(t, avx512Pays, []choice{
		{0, 0, false}, {1, 0, false}, {1, 128, false}, {1, 639, false}, {1, 640, true}, {1, 1420, true}, {2, 0, true}, {2, 128, true},
		{2, 256, true}, {3, 0, true}, {3, 64, true}, {4, 0, true}, {64, 128, true},
	})
}

// Edge cases of the accumulator: r of all ones, blocks of all ones, and sums next to 2¹³⁰-5 and 2¹²⁸. The one-time key is
// chosen here, not made by ChaCha20.
func TestAVX512Poly1305Edges(t *testing.T) {
	needAVX512(t)
	rng := rand.New(rand.NewPCG(13, 14))
	ones := func(n int) []byte { return bytes.Repeat([]byte{0xff}, n) }
	keys := [][]byte{
		ones(32),
		append(append([]byte{1}, make([]byte, 15)...), make([]byte, 16)...),
		append(append([]byte{2}, make([]byte, 15)...), ones(16)...),
		append(append([]byte{4}, make([]byte, 15)...), ones(16)...),
		append(make([]byte, 16), ones(16)...),
		append(ones(16), make([]byte, 16)...),
	}
	contents := func(n int) [][]byte {
		low := append(ones(n), 0)[:n]
		if n > 0 {
			low[0] = 0xfb
		}
		mixed := make([]byte, n)
		for i := range mixed {
			mixed[i] = []byte{0, 0xff, 0xfe, 0xfb}[rng.IntN(4)]
		}
		return [][]byte{ones(n), make([]byte, n), low, mixed}
	}
	ws := workspaces512.Get().(*workspace512)
	for _, n := range []int{0, 1, 15, 16, 31, 32, 48, 63, 64, 65, 127, 128, 240, 256, 512, 700, 1420} {
		for _, count := range []int{1, 2, 3, 4, 5, 8} {
			all := contents(n)
			var slab []byte
			var texts []packetText
			for i := range count {
				texts = append(texts, packetText{off: len(slab), len: n})
				slab = append(slab, all[i%len(all)]...)
				slab = append(slab, make([]byte, 16)...)
				copy(ws.stream[i][:], keys[rng.IntN(len(keys))])
			}
			each := ws.authenticate(&slab[0], texts, 0)
			for i, p := range texts {
				padded := append(bytes.Clone(slab[p.off:p.off+n]), make([]byte, -n&15)...)
				padded = binary.LittleEndian.AppendUint64(padded, 0)
				padded = binary.LittleEndian.AppendUint64(padded, uint64(n))
				want := refPoly(ws.stream[i][:32], padded)
				if got := ws.tag(i * each); !bytes.Equal(got[:], want) {
					t.Fatalf("%d of %d packets of %d bytes %x, key %x: tag %x, want %x", i, count, n, all[i%len(all)], ws.stream[i][:32], *got, want)
				}
			}
		}
	}
}

// With r = 1 the sum of two blocks and the lengths is made to be around 2¹³⁰-5, where the last reduction matters.
func TestAVX512LastReduction(t *testing.T) {
	needAVX512(t)
	ws := workspaces512.Get().(*workspace512)
	const n = 32
	for _, add := range []byte{0, 0xff} {
		var slab []byte
		var texts []packetText
		for j := range 8 { // 3*2¹²⁸ plus 32*2⁶⁴ for the length plus the text is 2¹³⁰-j
			text := make([]byte, n)
			binary.LittleEndian.PutUint64(text, uint64(-j))
			binary.LittleEndian.PutUint64(text[8:], ^uint64(n-1))
			if j > 0 {
				binary.LittleEndian.PutUint64(text[8:], ^uint64(n))
			}
			texts = append(texts, packetText{off: len(slab), len: n})
			slab = append(append(slab, text...), make([]byte, 16)...)
			clear(ws.stream[j][:])
			ws.stream[j][0] = 1
			copy(ws.stream[j][16:], bytes.Repeat([]byte{add}, 16))
		}
		ws.authenticate(&slab[0], texts, 0)
		for j := range 8 {
			sum := uint64(5 - j) // modulo 2¹³⁰-5, and then modulo 2¹²⁸
			high := uint64(0)
			if j > 5 {
				high-- // 2¹³⁰-j
				sum = uint64(-j)
			}
			if add != 0 { // 2¹²⁸-1
				if sum == 0 {
					high--
				}
				sum--
			}
			want := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, sum), high)
			if got := ws.tag(j); !bytes.Equal(got[:], want) {
				t.Errorf("2¹³⁰-%d: tag %x, want %x", j, *got, want)
			}
		}
	}
}

func BenchmarkAVX512(b *testing.B) {
	if !hasAVX512() {
		b.Skip("this CPU has no AVX-512 with IFMA")
	}
	k := avx512.NewKey(&[32]byte{1})
	for _, n := range []struct{ packets, size int }{{45, 1420}, {16, 1420}, {4, 1420}, {2, 1420}, {1, 1420}, {64, 128}, {8, 128}, {1, 128}} {
		b.Run(fmt.Sprintf("seal/%dx%d", n.packets, n.size), func(b *testing.B) {
			var train []packet.Packet
			for i := range n.packets {
				train = append(train, newPacket(16+i*(n.size+32), n.size, uint64(i)))
			}
			slab, work := make([]byte, n.packets*(n.size+32)+16), slices.Clone(train)
			b.ReportAllocs()
			for b.Loop() {
				copy(work, train)
				k.Seal(slab, work)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n.packets), "ns/packet")
		})
	}
}
