package tun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"throughline/packet"
	"throughline/tun/offload"
)

// A fakeKernel is the other end of a queue's descriptor: a socket that keeps packets apart as a TUN does.
type fakeKernel struct {
	t    testing.TB
	q    queue
	peer int
	file *os.File
}

func newFakeKernel(t testing.TB, vnet int) *fakeKernel {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.SetsockoptInt(fds[1], unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<20)
	unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<20)
	k := &fakeKernel{t: t, peer: fds[1], file: os.NewFile(uintptr(fds[0]), "fake")}
	rc, err := k.file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	k.q.init(rc, vnet, func() bool { return false })
	k.q.set(packet.TCPGRO, packet.OffloadOn)
	k.q.set(packet.UDPGRO, packet.OffloadOn)
	t.Cleanup(func() { k.file.Close(); unix.Close(k.peer) })
	return k
}

func (k *fakeKernel) send(h offload.Header, p []byte) {
	k.t.Helper()
	b := make([]byte, k.q.vnet+len(p))
	if k.q.vnet > 0 {
		h.Put(b)
	}
	copy(b[k.q.vnet:], p)
	if err := unix.Send(k.peer, b, 0); err != nil {
		k.t.Fatal(err)
	}
}

// received returns all that was written, whole.
func (k *fakeKernel) received() (out [][]byte) {
	for {
		b := make([]byte, 70000)
		n, _, err := unix.Recvfrom(k.peer, b, 0)
		if err != nil {
			return out
		}
		out = append(out, b[:n])
	}
}

// ipSum fills in the header checksum of an IPv4 header without options.
func ipSum(p []byte) {
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], ^offload.Fold(offload.Sum(p[:20], 0)))
}

// udpPacket returns an IPv4 datagram of n bytes of payload with right checksums.
func udpPacket(n int) []byte {
	p := make([]byte, 28+n)
	p[0], p[6], p[8], p[9] = 0x45, 0x40, 64, 17
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], []byte{10, 9, 0, 2, 10, 9, 0, 1})
	ipSum(p)
	binary.BigEndian.PutUint16(p[22:], 9)
	binary.BigEndian.PutUint16(p[24:], uint16(8+n))
	pseudo := append(bytes.Clone(p[12:20]), 0, 17, p[24], p[25])
	binary.BigEndian.PutUint16(p[26:], ^offload.Fold(offload.Sum(p[20:], offload.Sum(pseudo, 0))))
	return p
}

// superPacket returns a UDP super-packet.
func superPacket(n, size int) (offload.Header, []byte) {
	return offload.Header{Flags: offload.NeedsCsum, GSOType: offload.GSOUDP, GSOSize: uint16(size), CsumStart: 20, CsumOffset: 6}, udpPacket(n)
}

func (k *fakeKernel) read(b *packet.Batch) bool {
	k.t.Helper()
	b.Reset()
	more, err := k.q.Read(b)
	if err != nil {
		k.t.Fatal(err)
	}
	return more
}

func TestReadDrains(t *testing.T) {
	for _, vnet := range []int{0, offload.HeaderSize} {
		k := newFakeKernel(t, vnet)
		for i := range 10 {
			k.send(offload.Header{}, udpPacket(i))
		}
		b := packet.New()
		if more := k.read(b); more || len(b.Packets) != 10 {
			t.Fatalf("%d packets, more %v", len(b.Packets), more)
		}
		for i := range b.Packets {
			if !bytes.Equal(b.Bytes(i), udpPacket(i)) {
				t.Errorf("packet %d is another", i)
			}
		}
	}
}

func TestReadStopsWhenFull(t *testing.T) {
	k := newFakeKernel(t, offload.HeaderSize)
	b := packet.NewSize(packet.SlabSize, 4)
	for i := range 6 {
		k.send(offload.Header{}, udpPacket(i))
	}
	if more := k.read(b); !more || len(b.Packets) != 4 {
		t.Fatalf("%d packets, more %v", len(b.Packets), more)
	}
	if more := k.read(b); more || len(b.Packets) != 2 {
		t.Fatalf("then %d packets, more %v", len(b.Packets), more)
	}
}

// A read that would not hold the largest packet isn't begun; the largest packet is never cut.
func TestReadNeverTruncates(t *testing.T) {
	k := newFakeKernel(t, offload.HeaderSize)
	large := udpPacket(65535 - 28)
	for range 5 {
		k.send(offload.Header{}, large)
	}
	b := packet.New()
	for n := 0; n < 5; {
		k.read(b)
		for i := range b.Packets {
			if !bytes.Equal(b.Bytes(i), large) {
				t.Fatalf("packet %d of %d bytes", n, b.Packets[i].Len)
			}
			n++
		}
	}
	if _, err := k.q.Read(packet.NewSize(1000, 10)); err == nil {
		t.Error("Read into a batch that can't hold a packet")
	}
}

func TestReadSplits(t *testing.T) {
	k := newFakeKernel(t, offload.HeaderSize)
	h, p := superPacket(2500, 1000)
	k.send(offload.Header{}, udpPacket(5))
	k.send(h, p)
	k.send(offload.Header{}, udpPacket(6))
	b := packet.New()
	k.read(b)
	var sizes []int
	for _, p := range b.Packets {
		sizes = append(sizes, p.Len-28)
	}
	if len(sizes) != 5 || sizes[0] != 5 || sizes[1] != 1000 || sizes[2] != 1000 || sizes[3] != 500 || sizes[4] != 6 {
		t.Errorf("payloads of %v bytes", sizes)
	}
}

// Segments that a batch has no room for come with the next.
func TestReadCarriesOver(t *testing.T) {
	k := newFakeKernel(t, offload.HeaderSize)
	h, p := superPacket(60000, 50)
	k.send(h, p)
	k.send(offload.Header{}, udpPacket(3))
	b := packet.New()
	n, reads := 0, 0
	for n < 1201 {
		more := k.read(b)
		n += len(b.Packets)
		reads++
		if n < 1200 && !more {
			t.Fatalf("no more said after %d packets", n)
		}
	}
	if n != 1201 || b.Packets[len(b.Packets)-1].Len != 31 || reads < 3 {
		t.Errorf("%d packets in %d reads", n, reads)
	}
}

func TestReadCountsMalformed(t *testing.T) {
	k := newFakeKernel(t, offload.HeaderSize)
	h, p := superPacket(2500, 1000)
	h.GSOSize = 0
	k.send(h, p)
	k.send(offload.Header{Flags: offload.NeedsCsum, CsumStart: 60000}, udpPacket(9))
	k.send(offload.Header{}, nil)
	unix.Send(k.peer, []byte{1, 2, 3}, 0) // not even a header
	k.send(offload.Header{}, udpPacket(7))
	b := packet.New()
	k.read(b)
	for i, p := range b.Packets {
		if want := map[bool]packet.Drop{false: packet.DropMalformed}[i == 4]; p.Drop != want {
			t.Errorf("packet %d: %v, want %v", i, p.Drop, want)
		}
	}
	if len(b.Packets) != 5 {
		t.Errorf("%d packets", len(b.Packets))
	}
}

// A packet that the kernel can't describe costs only itself; a queue of which no read succeeds ends.
func TestReadRefused(t *testing.T) {
	for _, c := range []struct{ before, refused int }{{0, 1}, {2, 3}, {0, maxRefused - 1}, {0, maxRefused}, {1, maxRefused}} {
		k := newFakeKernel(t, offload.HeaderSize)
		reads := 0
		read := k.q.sysRead
		k.q.sysRead = func(fd uintptr, p []byte) (int, unix.Errno) {
			if reads++; reads > c.before && reads <= c.before+c.refused || c.refused == maxRefused && reads > c.before {
				return 0, unix.EINVAL
			}
			return read(fd, p)
		}
		for i := range c.before + 3 {
			k.send(offload.Header{}, udpPacket(i))
		}
		b := packet.New()
		var err error
		good, bad := 0, 0
		for want := c.before + 3; err == nil && good < want; {
			b.Reset()
			_, err = k.q.Read(b)
			for i, p := range b.Packets {
				if p.Drop == packet.DropMalformed {
					bad++
				} else if good++; !bytes.Equal(b.Bytes(i), udpPacket(good-1)) {
					t.Errorf("%+v: packet %d is another", c, good-1)
				}
			}
		}
		if c.refused < maxRefused {
			if err != nil || bad != c.refused {
				t.Errorf("%+v: %d dropped, %v", c, bad, err)
			}
			continue
		}
		if !errors.Is(err, unix.EINVAL) || errors.Is(err, os.ErrClosed) || good != c.before || bad != maxRefused-1 {
			t.Errorf("%+v: %d packets and %d dropped, then %v", c, good, bad, err)
		}
	}
}

// Refused packets that come one at a time, however many, don't end a queue: each time it was found empty after them.
func TestReadRefusedSlowly(t *testing.T) {
	k := newFakeKernel(t, offload.HeaderSize)
	b := packet.New()
	read := k.q.sysRead
	for range 2 * maxRefused {
		k.q.sysRead = func(uintptr, []byte) (int, unix.Errno) {
			k.q.sysRead = read
			return 0, unix.EINVAL
		}
		if k.read(b); len(b.Packets) != 1 || b.Packets[0].Drop != packet.DropMalformed {
			t.Fatalf("%d packets", len(b.Packets))
		}
	}
}

// An interface that is gone ends reading at once, but not before what was read is delivered.
func TestReadGone(t *testing.T) {
	k := newFakeKernel(t, 0)
	read := k.q.sysRead
	k.q.sysRead = func(fd uintptr, p []byte) (int, unix.Errno) {
		if n, err := read(fd, p); err == 0 {
			return n, 0
		}
		return 0, unix.EBADFD
	}
	k.q.gone = func() bool { return true }
	k.send(offload.Header{}, udpPacket(1))
	b := packet.New()
	if k.read(b); len(b.Packets) != 1 || b.Packets[0].Drop != 0 {
		t.Errorf("%d packets", len(b.Packets))
	}
	b.Reset()
	if _, err := k.q.Read(b); !errors.Is(err, os.ErrClosed) || len(b.Packets) != 0 {
		t.Errorf("%v, %d packets", err, len(b.Packets))
	}
}

func TestWriteMerges(t *testing.T) {
	k := newFakeKernel(t, offload.HeaderSize)
	b := packet.New()
	for range 3 {
		b.Append(udpPacket(100))
	}
	b.Append([]byte{0x45, 0})
	b.Packets[1].Drop = packet.DropReplay
	if err := k.q.Write(b); err != nil {
		t.Fatal(err)
	}
	got := k.received()
	if len(got) != 2 || len(got[0]) != 10+28+200 || len(got[1]) != 12 {
		t.Fatalf("%d writes", len(got))
	}
	if h := offload.ReadHeader(got[0]); h.GSOSize != 100 || h.GSOType != offload.GSOUDP {
		t.Errorf("%+v", h)
	}
	if h := offload.ReadHeader(got[1]); h != (offload.Header{}) {
		t.Errorf("%+v", h)
	}
}

func TestWriteApart(t *testing.T) {
	k := newFakeKernel(t, offload.HeaderSize)
	for _, c := range []struct {
		apart bool
		n     int
		state packet.OffloadState
	}{{false, 1, packet.OffloadOn}, {true, 2, packet.OffloadOff}, {false, 1, packet.OffloadOn}} {
		k.q.separateUDP.Store(c.apart)
		b := packet.New()
		b.Append(udpPacket(100))
		b.Append(udpPacket(100))
		if err := k.q.Write(b); err != nil {
			t.Fatal(err)
		}
		if n := len(k.received()); n != c.n {
			t.Errorf("apart %v: %d writes, want %d", c.apart, n, c.n)
		}
		if o := k.q.offloads(); o[packet.UDPGRO] != c.state || o[packet.TCPGRO] != packet.OffloadOn {
			t.Errorf("apart %v: %+v", c.apart, o)
		}
	}
}

func TestWritePlain(t *testing.T) {
	k := newFakeKernel(t, 0)
	b := packet.New()
	for i := range 4 {
		b.Append(udpPacket(i))
	}
	b.Packets[0].Drop, b.Packets[2].Len = packet.DropReplay, 0
	if err := k.q.Write(b); err != nil {
		t.Fatal(err)
	}
	if got := k.received(); len(got) != 2 || !bytes.Equal(got[0], udpPacket(1)) || !bytes.Equal(got[1], udpPacket(3)) {
		t.Errorf("%d writes", len(got))
	}
}

// refuse makes the queue's kernel refuse merged writes, and single ones of n bytes.
func (k *fakeKernel) refuse(why unix.Errno, n int) {
	k.q.sysWritev = func(uintptr, []unix.Iovec) unix.Errno { return why }
	write := k.q.sysWrite
	k.q.sysWrite = func(fd uintptr, p []byte) unix.Errno {
		if len(p) == n {
			return unix.EINVAL
		}
		return write(fd, p)
	}
}

func TestWriteRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		why   unix.Errno
		bad   int
		state packet.OffloadState
		drops int
	}{
		{"merged writes", unix.EINVAL, 0, packet.OffloadWithdrawn, 0},
		{"merged writes with EIO", unix.EIO, 0, packet.OffloadWithdrawn, 0},
		{"merged writes for want of memory", unix.ENOMEM, 0, packet.OffloadOn, 0},
		{"one packet of them", unix.EINVAL, 10 + 28 + 99, packet.OffloadOn, 1},
		{"all", unix.EIO, 10 + 28 + 100, packet.OffloadOn, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newFakeKernel(t, offload.HeaderSize)
			k.refuse(c.why, c.bad)
			b := packet.New()
			want := [][]byte{udpPacket(100), udpPacket(100), udpPacket(100), udpPacket(99)}
			for _, p := range want {
				b.Append(p)
			}
			if err := k.q.Write(b); err != nil {
				t.Fatal(err)
			}
			drops := 0
			got := k.received()
			for i, p := range b.Packets {
				if p.Drop != 0 {
					drops++
					continue
				}
				if offload.ReadHeader(got[0]) != (offload.Header{}) || !bytes.Equal(got[0][10:], want[i]) {
					t.Errorf("packet %d was written otherwise", i)
				}
				got = got[1:]
			}
			if drops != c.drops || len(got) != 0 {
				t.Errorf("%d dropped, want %d; %d written too much", drops, c.drops, len(got))
			}
			if o := k.q.offloads(); o[packet.UDPGRO] != c.state || o[packet.TCPGRO] != packet.OffloadOn {
				t.Errorf("%+v, want %v", o, c.state)
			}
			b.Reset()
			b.Append(want[0])
			if err := k.q.Write(b); err != nil || k.q.single != -1 {
				t.Errorf("the next write: %v", err)
			}
		})
	}
}

// EAGAIN and EINTR in the middle of anything lose nothing and write nothing twice.
func TestWriteResumes(t *testing.T) {
	for _, merged := range []bool{true, false} {
		k := newFakeKernel(t, offload.HeaderSize)
		n := 0
		hold := func() unix.Errno {
			n++
			return []unix.Errno{unix.EINTR, unix.EAGAIN, 0}[n%3]
		}
		write, writev := k.q.sysWrite, k.q.sysWritev
		k.q.sysWrite = func(fd uintptr, p []byte) unix.Errno {
			if err := hold(); err != 0 {
				return err
			}
			return write(fd, p)
		}
		k.q.sysWritev = func(fd uintptr, iov []unix.Iovec) unix.Errno {
			if err := hold(); err != 0 {
				return err
			}
			if !merged {
				return unix.EINVAL
			}
			return writev(fd, iov)
		}
		b := packet.New()
		for i := range 12 {
			b.Append(udpPacket(100 + i/4))
		}
		// A socket that is ready at once would not report so again: call as the poller would.
		k.q.wb, k.q.w = b, 0
		k.q.merger.UDP = true
		k.q.writes = k.q.merger.Merge(b)
		for calls := 0; !k.q.write(k.file.Fd()); calls++ {
			if calls > 100 {
				t.Fatal("no end")
			}
		}
		got := k.received()
		if want := map[bool]int{true: 3, false: 12}[merged]; len(got) != want {
			t.Errorf("merged %v: %d writes, want %d", merged, len(got), want)
		}
	}
}

func TestGoneIsClosed(t *testing.T) {
	k := newFakeKernel(t, offload.HeaderSize)
	k.q.sysWrite = func(uintptr, []byte) unix.Errno { return unix.EBADFD }
	b := packet.New()
	b.Append(udpPacket(1))
	if err := k.q.Write(b); !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func TestQueueAllocatesNothing(t *testing.T) {
	k := newFakeKernel(t, offload.HeaderSize)
	in, out := packet.New(), packet.New()
	h, p := superPacket(30000, 1000)
	msg := make([]byte, 10+len(p))
	h.Put(msg)
	copy(msg[10:], p)
	sink := make([]byte, 70000)
	for range 10 {
		out.Append(udpPacket(100))
		out.Append(udpPacket(50))
	}
	cycle := func() {
		unix.Write(k.peer, msg)
		in.Reset()
		if _, err := k.q.Read(in); err != nil || len(in.Packets) != 30 {
			t.Fatalf("%d packets, %v", len(in.Packets), err)
		}
		if err := k.q.Write(out); err != nil {
			t.Fatal(err)
		}
		for i := range k.q.writes {
			k.q.merger.Undo(out, &k.q.writes[i])
			unix.Read(k.peer, sink)
		}
	}
	if n := testing.AllocsPerRun(50, cycle); n != 0 {
		t.Errorf("%v allocations for a Read and a Write", n)
	}
}
