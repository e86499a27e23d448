package udp

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"throughline/internal/linux"
	"throughline/packet"
)

// A seam stands between a socket and the kernel. It may refuse, and notes what passed.
type seam struct {
	kernel
	mu       sync.Mutex
	refuse   func(ms []unix.Mmsghdr) (most int, errno syscall.Errno) // most: how many the kernel gets, 0 for all
	calls    int
	segments []int // the segment size of each send that left, 0 for a datagram
	pieces   []int // and its pieces of memory
	got      []syscall.Errno
}

func (k *seam) sendmmsg(fd uintptr, ms []unix.Mmsghdr) (n int, errno syscall.Errno) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls++
	if k.refuse != nil {
		if n, errno = k.refuse(ms); errno != 0 {
			return 0, errno
		}
		if n > 0 {
			ms = ms[:min(n, len(ms))]
		}
	}
	n, errno = k.kernel.sendmmsg(fd, ms)
	if errno != 0 {
		k.got = append(k.got, errno)
		return n, errno
	}
	for i := range ms[:n] {
		size, _ := controlOf(&ms[i])
		k.segments = append(k.segments, size)
		k.pieces = append(k.pieces, int(ms[i].Hdr.Iovlen))
	}
	return n, errno
}

// controlOf returns what a send asks the kernel for.
func controlOf(m *unix.Mmsghdr) (segment int, src netip.Addr) {
	if m.Hdr.Controllen == 0 {
		return 0, src
	}
	b := unsafe.Slice(m.Hdr.Control, m.Hdr.Controllen)
	ms, err := unix.ParseSocketControlMessage(b)
	if err != nil {
		panic(err)
	}
	for _, m := range ms {
		switch {
		case m.Header.Level == unix.SOL_UDP:
			segment = int(m.Data[0]) | int(m.Data[1])<<8
		case m.Header.Level == unix.SOL_IP:
			src, _ = netip.AddrFromSlice(m.Data[4:8])
		case m.Header.Level == unix.SOL_IPV6:
			src, _ = netip.AddrFromSlice(m.Data[:16])
		}
	}
	return segment, src
}

// newSeam puts a seam into the sockets of c.
func newSeam(c *conn) *seam {
	k := &seam{kernel: syscalls{}}
	c.v4.sys, c.v6.sys = k, k
	return k
}

// first makes a refusal of a condition on the first of the sends.
func first(errno syscall.Errno, when func(segment int, src netip.Addr) bool) func([]unix.Mmsghdr) (int, syscall.Errno) {
	return func(ms []unix.Mmsghdr) (int, syscall.Errno) {
		for i := range ms {
			if when(controlOf(&ms[i])) {
				if i == 0 {
					return 0, errno
				}
				return i, 0 // as the kernel does: those before leave, and the call succeeds
			}
		}
		return 0, 0
	}
}

// A refuser is made anew for each test, as it may count.
type refuser func() func([]unix.Mmsghdr) (int, syscall.Errno)

func always(errno syscall.Errno, when func(segment int, src netip.Addr) bool) refuser {
	return func() func([]unix.Mmsghdr) (int, syscall.Errno) { return first(errno, when) }
}

// times refuses so often, and then no more.
func (r refuser) times(n int) refuser {
	return func() func([]unix.Mmsghdr) (int, syscall.Errno) {
		f, left := r(), n
		return func(ms []unix.Mmsghdr) (int, syscall.Errno) {
			if left == 0 {
				return 0, 0
			}
			left--
			return f(ms)
		}
	}
}

func isSuper(segment int, _ netip.Addr) bool       { return segment > 0 }
func isSuperOf1000(segment int, _ netip.Addr) bool { return segment >= 1000 }
func hasSource(_ int, src netip.Addr) bool         { return src.IsValid() }
func isEither(segment int, src netip.Addr) bool    { return segment > 0 || src.IsValid() }
func isAnything(int, netip.Addr) bool              { return true }

// needGSO: the kernels this is tested on have it.
func needGSO(t *testing.T, c *conn) {
	t.Helper()
	if o := c.Offloads(); o[packet.GSO] != packet.OffloadOn {
		t.Fatalf("GSO is %v on kernel %v", o[packet.GSO], linux.Running())
	}
	c.v4.avoidEqual, c.v6.avoidEqual = false, false
}

func TestRefusals(t *testing.T) {
	plain := func(n int) []int { return times(n, 0) }
	for _, c := range []struct {
		name     string
		refuse   refuser
		sizes    []int
		segments []int // of the sends that left
		calls    int
		source   bool // it is kept
		gso      packet.OffloadState
		second   []int // the same of a second batch of the same shape
	}{
		{"nothing", nil, times(130, 500), []int{500, 500, 500}, 1, true, packet.OffloadOn, []int{500, 500, 500}},
		{"nothing, mixed", nil, times(45, 1452, append(times(3, 128), 9)...), []int{1452, 128}, 1, true, packet.OffloadOn, []int{1452, 128}},
		{"as large as can be", nil, append(times(2, packet.MaxSuperPacket/2), times(2, packet.MaxSuperPacket/2+1)...), append([]int{packet.MaxSuperPacket / 2}, plain(2)...), 1, true, packet.OffloadOn,
			append([]int{packet.MaxSuperPacket / 2}, plain(2)...)},
		{"only one is taken at a time", func() func([]unix.Mmsghdr) (int, syscall.Errno) {
			return func([]unix.Mmsghdr) (int, syscall.Errno) { return 1, 0 }
		},
			times(130, 500), []int{500, 500, 500}, 3, true, packet.OffloadOn, []int{500, 500, 500}},
		{"interrupted", always(unix.EINTR, isAnything).times(3), times(64, 100), []int{100}, 4, true, packet.OffloadOn, []int{100}},
		{"no room for a moment", always(unix.EAGAIN, isAnything).times(1), times(64, 100), []int{100}, 2, true, packet.OffloadOn, []int{100}},
		{"no memory for a moment", always(unix.ENOBUFS, isAnything).times(maxTries), times(64, 100), []int{100}, 1 + maxTries, true, packet.OffloadOn, []int{100}},
		{"an ICMP error reported late", always(unix.ECONNREFUSED, isAnything).times(1), times(64, 100), []int{100}, 2, true, packet.OffloadOn, []int{100}},
		{"no checksum offload", always(unix.EIO, isSuper), times(130, 500), plain(130), 3, true, packet.OffloadWithdrawn, plain(130)},
		{"no checksum offload, found out late", always(unix.EIO, isSuper).times(1), times(130, 500), plain(130), 3, true, packet.OffloadWithdrawn, plain(130)},
		{"path too small for some", always(unix.EMSGSIZE, isSuperOf1000), times(4, 1452, 128, 128, 128), append(plain(4), 128), 2, true, packet.OffloadOn,
			append(plain(4), 128)},
		{"path too small, before 6.14", always(unix.EINVAL, isSuperOf1000), times(4, 1452, 128, 128, 128), append(plain(4), 128), 2, true, packet.OffloadOn,
			append(plain(4), 128)},
		{"small ones first", always(unix.EMSGSIZE, isSuperOf1000), append(times(3, 128), times(4, 1452)...), append([]int{128}, plain(4)...), 3, true, packet.OffloadOn,
			append([]int{128}, plain(4)...)},
		{"a firewall looks at the length", always(unix.EPERM, isSuper), times(3, 500), plain(3), 2, true, packet.OffloadOn, plain(3)},
		{"source gone", always(unix.EINVAL, hasSource), times(64, 100), []int{100}, 3, false, packet.OffloadOn, []int{100}},
		{"source gone, two super-packets", always(unix.EADDRNOTAVAIL, hasSource), times(100, 100), []int{100, 100}, 2, false, packet.OffloadOn, []int{100, 100}},
		{"source gone, no way", always(unix.ENETUNREACH, hasSource), times(64, 100), []int{100}, 2, false, packet.OffloadOn, []int{100}},
		{"source gone and a driver without super-packets", always(unix.EINVAL, isEither), times(64, 100), plain(64), 4, false, packet.OffloadOn, plain(64)},
	} {
		t.Run(c.name, func(t *testing.T) {
			families(t, func(t *testing.T, lo netip.Addr) {
				a, r := newConn(t, &Host{}), newConn(t, &Host{})
				needGSO(t, a)
				watch(t, r)
				k := newSeam(a)
				if c.refuse != nil {
					k.refuse = c.refuse()
				}
				e := packet.Endpoint{Addr: netip.AddrPortFrom(lo, r.Port()), Src: lo, SrcIf: 1}
				b, data := lay(e, 0, c.sizes...)
				wantSent(t, a, b)
				wantReceived(t, r.receiverOf(lo), data)
				if !slices.Equal(k.segments, c.segments) {
					t.Errorf("left as %v, want %v", k.segments, c.segments)
				}
				if maxed := (len(c.segments) + maxSends - 1) / maxSends; k.calls > c.calls+maxed-1 {
					t.Errorf("%d system calls, want %d", k.calls, c.calls)
				}
				if got := b.Runs[0].Endpoint; got.Src.IsValid() != c.source || (got.SrcIf != 0) != c.source {
					t.Errorf("the source is now %v %d", got.Src, got.SrcIf)
				}
				if o := a.Offloads(); o[packet.GSO] != c.gso {
					t.Errorf("GSO is %v, want %v", o[packet.GSO], c.gso)
				}
				// What was learned is not learned again.
				k.segments, k.calls = nil, 0
				b, data = lay(b.Runs[0].Endpoint, 0, c.sizes...)
				wantSent(t, a, b)
				wantReceived(t, r.receiverOf(lo), data)
				if !slices.Equal(k.segments, c.second) {
					t.Errorf("the second left as %v, want %v", k.segments, c.second)
				}
				if c.name != "only one is taken at a time" && k.calls > (len(c.second)+maxSends-1)/maxSends {
					t.Errorf("the second took %d system calls", k.calls)
				}
			})
		})
	}
}

// TestLost has the kernel refuse datagrams for good: those are dropped, and no others.
func TestLost(t *testing.T) {
	for _, c := range []struct {
		errno syscall.Errno
		calls int // for a batch of a super-packet and a datagram
	}{
		{unix.ENOBUFS, 1 + maxTries + 1}, // once per run is enough
		{unix.ENETUNREACH, 3},            // once more without the source
		{unix.EACCES, 2},
		{unix.EMSGSIZE, 1 + 3},
		{unix.EINVAL, 7},
	} {
		a, r := newConn(t, &Host{}), newConn(t, &Host{})
		needGSO(t, a)
		watch(t, r)
		k := newSeam(a)
		bad := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), 9)
		k.refuse = func(ms []unix.Mmsghdr) (int, syscall.Errno) {
			for i := range ms {
				if sa := (*sockaddr)(unsafe.Slice(ms[i].Hdr.Name, len(sockaddr{}))); sa.get(ms[i].Hdr.Namelen, a.v4.zones) == bad {
					if i == 0 {
						return 0, c.errno
					}
					return i, 0
				}
			}
			return 0, 0
		}
		good := packet.Endpoint{Addr: netip.AddrPortFrom(lo4, r.Port())}
		b, data := lay(good, 0, times(7, 100)...)
		b.Runs = []packet.Run{
			{First: 0, N: 2, Endpoint: good},
			{First: 2, N: 2, Endpoint: packet.Endpoint{Addr: bad, Src: lo4, SrcIf: 1}},
			{First: 4, N: 0, Endpoint: packet.Endpoint{Addr: bad}},
			{First: 4, N: 1, Endpoint: good},
			{First: 5, N: 2, Endpoint: good},
		}
		err := a.Send(b)
		if want := "udp: send to 192.0.2.1:9: " + c.errno.Error(); !errors.Is(err, c.errno) || err.Error() != want {
			t.Errorf("%v: error %v, want %s", c.errno, err, want)
		}
		for i, p := range b.Packets {
			if lost := i == 2 || i == 3; (p.Drop == packet.DropSend) != lost {
				t.Errorf("%v: packet %d: %v", c.errno, i, p.Drop)
			}
		}
		wantReceived(t, r.receiverOf(lo4), append(data[:2:2], data[4:]...))
		if !b.Runs[1].Endpoint.Src.IsValid() {
			t.Errorf("%v: the source was blamed", c.errno)
		}
		if a.v4.refusing.limit(good.Addr) != noLimit {
			t.Errorf("%v: the super-packets of another were blamed", c.errno)
		}
		if c.errno != unix.EMSGSIZE && a.v4.refusing.limit(bad) != noLimit {
			t.Errorf("%v: super-packets were blamed", c.errno)
		}
		if k.calls > c.calls+2 { // two for the good ones
			t.Errorf("%v: %d system calls, want %d", c.errno, k.calls, c.calls+2)
		}
	}
}

// TestWithdrawnForAll has a driver refuse super-packets to everybody.
func TestWithdrawnForAll(t *testing.T) {
	a := newConn(t, &Host{})
	needGSO(t, a)
	k := newSeam(a)
	send := func(port int) {
		b, _ := lay(packet.Endpoint{Addr: netip.AddrPortFrom(lo4, uint16(port))}, 0, times(3, 100)...)
		wantSent(t, a, b)
	}
	k.refuse = first(unix.EINVAL, isSuper)
	for i := range maxRefusals - 1 {
		send(1000 + i)
	}
	k.refuse = nil
	send(1) // somebody takes one: it isn't the driver
	k.refuse = first(unix.EINVAL, isSuper)
	for i := range maxRefusals {
		if o := a.Offloads(); o[packet.GSO] != packet.OffloadOn {
			t.Fatalf("GSO is %v after %d", o[packet.GSO], i)
		}
		send(i + 2)
	}
	if o := a.Offloads(); o[packet.GSO] != packet.OffloadWithdrawn {
		t.Fatalf("GSO is %v after all", o[packet.GSO])
	}
}

// TestNoEqualSegments sends as on the kernels that corrupt super-packets of equal segments.
func TestNoEqualSegments(t *testing.T) {
	families(t, func(t *testing.T, lo netip.Addr) {
		a, r := newConn(t, &Host{}), newConn(t, &Host{})
		needGSO(t, a)
		watch(t, r)
		a.v4.avoidEqual, a.v6.avoidEqual = true, true
		k := newSeam(a)
		for _, c := range []struct{ sizes, segments []int }{
			{times(2, 100), times(2, 0)},
			{times(64, 100), times(64, 0)},
			{times(64, 100, 99), times(65, 0)}, // what is shorter is the 65th
			{times(63, 100, 99), []int{100}},
			{times(45, 1452, 10, 20), []int{1452, 0}},
			{times(46, 1452, 10), append(times(45, 0), 1452)},
			{[]int{5, 4, 4, 4, 3}, []int{5, 4}},
			{[]int{1}, []int{0}},
		} {
			k.segments = nil
			for _, gap := range []int{0, 1} {
				b, data := lay(packet.Endpoint{Addr: netip.AddrPortFrom(lo, r.Port())}, gap, c.sizes...)
				wantSent(t, a, b)
				wantReceived(t, r.receiverOf(lo), data)
			}
			want := append(slices.Clone(c.segments), c.segments...)
			if !slices.Equal(k.segments, want) {
				t.Errorf("%v left as %v, want %v", c.sizes, k.segments, want)
			}
		}
	})
}

func TestCloseUnblocksSend(t *testing.T) {
	a := newConn(t, &Host{})
	k := newSeam(a)
	waits := make(chan bool, 100)
	k.refuse = func([]unix.Mmsghdr) (int, syscall.Errno) { waits <- true; return 0, unix.EAGAIN }
	done := make(chan error)
	b, _ := lay(packet.Endpoint{Addr: netip.AddrPortFrom(lo4, 9)}, 0, 1, 2, 3)
	go func() { done <- a.Send(b) }()
	<-waits
	<-waits
	a.Close()
	if err := <-done; err != net.ErrClosed {
		t.Fatalf("Send: %v", err)
	}
	for i, p := range b.Packets {
		if p.Drop != packet.DropSend {
			t.Errorf("packet %d: %v", i, p.Drop)
		}
	}
}

// TestIovecs counts the iovecs of a super-packet.
func TestIovecs(t *testing.T) {
	a := newConn(t, &Host{})
	needGSO(t, a)
	for _, c := range []struct {
		gap  int
		gone []int
		want []int
	}{
		{0, nil, []int{1}},
		{1, nil, []int{10}},
		{0, []int{4}, []int{2}},
		{0, []int{0, 9}, []int{1}},
		{0, []int{1, 3, 5, 6, 7}, []int{4}},
	} {
		k := newSeam(a)
		b, _ := lay(packet.Endpoint{Addr: netip.AddrPortFrom(lo4, 9)}, c.gap, times(10, 100)...)
		for _, i := range c.gone {
			b.Packets[i].Drop = packet.DropMalformed
		}
		if err := a.Send(b); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(k.pieces, c.want) {
			t.Errorf("gap %d, without %v: %v pieces, want %v", c.gap, c.gone, k.pieces, c.want)
		}
	}
}
