package udp

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"throughline/internal/linux"
	"throughline/packet"
	"throughline/udp/internal/zone"
)

// An answer is what a script's recvmsg returns.
type answer struct {
	errno syscall.Errno
	data  string
	flags int32
	gro   int  // 0: no control message
	v6    bool // from an address that isn't of the socket's family
	bad   bool // with a control message that is cut off
}

// A script answers recvmsg; when it has come to its end there is nothing to receive.
type script struct {
	kernel
	answers []answer
	bursts  int
}

func (k *script) recvmsg(_ uintptr, m *unix.Msghdr) (int, syscall.Errno) {
	if len(k.answers) == 0 {
		return 0, unix.EAGAIN
	}
	a := k.answers[0]
	k.answers = k.answers[1:]
	if a.errno != 0 {
		return 0, a.errno
	}
	from := netip.MustParseAddrPort("192.0.2.1:51820")
	m.Namelen = (*sockaddr)(unsafe.Slice(m.Name, m.Namelen)).put(from, &zone.Host)
	if a.v6 {
		m.Namelen = 0
	}
	c := unsafe.Slice(m.Control, m.Controllen)[:0]
	if a.gro > 0 {
		c = append(c, coalesced(a.gro)...)
	}
	if a.bad {
		c = append(c, coalesced(1)[:unix.SizeofCmsghdr+1]...)
	}
	m.SetControllen(len(c))
	m.Flags = a.flags
	return copy(unsafe.Slice(m.Iov.Base, m.Iov.Len), a.data), 0
}

// coalesced returns the control message that says of what size the coalesced datagrams are.
func coalesced(size int) []byte {
	b := make([]byte, unix.CmsgSpace(4))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_GRO
	h.SetLen(unix.CmsgLen(4))
	binary.NativeEndian.PutUint32(b[unix.CmsgLen(0):], uint32(size))
	return b
}

func (k *script) recvmmsg(fd uintptr, ms []unix.Mmsghdr) (n int, errno syscall.Errno) {
	k.bursts++
	for n < len(ms) {
		if n > 0 && (len(k.answers) == 0 || k.answers[0].errno != 0) {
			return n, 0
		}
		got, errno := k.recvmsg(fd, &ms[n].Hdr)
		if errno != 0 {
			return 0, errno
		}
		ms[n].Len = uint32(got)
		n++
	}
	return n, 0
}

func TestReceive(t *testing.T) {
	big := string(make([]byte, 60000))
	for _, c := range []struct {
		name    string
		answers []answer
		want    []string
		more    bool
		err     error
		left    int // answers not asked for
	}{
		{"one", []answer{{data: "a"}}, []string{"a"}, false, nil, 0},
		{"several", []answer{{data: "a"}, {data: "bc"}, {data: "d"}}, []string{"a", "bc", "d"}, false, nil, 0},
		{"a super-packet", []answer{{data: "aabbc", gro: 2}, {data: "dd"}}, []string{"aa", "bb", "c", "dd"}, false, nil, 0},
		{"a super-packet of one", []answer{{data: "aa", gro: 2}}, []string{"aa"}, false, nil, 0},
		{"a size beyond it", []answer{{data: "aa", gro: 200}}, []string{"aa"}, false, nil, 0},
		{"nearly full", []answer{{data: big}, {data: big}, {data: "x"}}, []string{big, big}, true, nil, 1},
		{"empty", []answer{{}, {data: "a"}, {}}, []string{"a"}, false, nil, 0},
		{"truncated", []answer{{data: "ab", flags: unix.MSG_TRUNC}, {data: "c"}}, []string{"c"}, false, nil, 0},
		{"control messages truncated", []answer{{data: "ab", flags: unix.MSG_CTRUNC}, {data: "c"}}, []string{"c"}, false, nil, 0},
		{"control messages cut off", []answer{{data: "ab", bad: true}, {data: "c"}}, []string{"c"}, false, nil, 0},
		{"no sender", []answer{{data: "ab", v6: true}, {data: "c"}}, []string{"c"}, false, nil, 0},
		{"interrupted", []answer{{errno: unix.EINTR}, {data: "a"}, {errno: unix.EINTR}, {data: "b"}}, []string{"a", "b"}, false, nil, 0},
		{"ICMP errors", []answer{{errno: unix.ECONNREFUSED}, {errno: unix.EHOSTUNREACH}, {data: "a"}, {errno: unix.ECONNREFUSED}, {data: "b"}},
			[]string{"a", "b"}, false, nil, 0},
		{"no memory", []answer{{errno: unix.ENOBUFS}, {data: "a"}}, nil, false, unix.ENOBUFS, 1},
		{"no memory after the first", []answer{{data: "a"}, {errno: unix.ENOMEM}, {data: "b"}}, []string{"a"}, false, nil, 1},
		{"a burst", slices.Repeat([]answer{{data: "a"}, {data: "b"}}, 20), slices.Repeat([]string{"a", "b"}, 20), false, nil, 0},
		{"a burst with a super-packet in it", append(slices.Repeat([]answer{{data: "a"}}, burstAfter+2), answer{data: "ccdde", gro: 2}, answer{data: "f"}),
			append(slices.Repeat([]string{"a"}, burstAfter+2), "cc", "dd", "e", "f"), false, nil, 0},
		{"a burst with errors in it", append(slices.Repeat([]answer{{data: "a"}}, burstAfter+1), answer{errno: unix.ECONNREFUSED},
			answer{data: "b", flags: unix.MSG_TRUNC}, answer{data: "c"}, answer{}, answer{data: "d"}),
			append(slices.Repeat([]string{"a"}, burstAfter+1), "c", "d"), false, nil, 0},
		{"much that is nothing", append(make([]answer, 3*receiveTries), answer{data: "a"}), []string{"a"}, false, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := newConn(t, &Host{})
			watch(t, conn)
			k := &script{kernel: syscalls{}, answers: slices.Clone(c.answers)}
			conn.v4.sys = k
			b := packet.New()
			more, err := conn.v4.receiver().Receive(b)
			if err != c.err || more != c.more || len(k.answers) != c.left {
				t.Errorf("more %t, error %v, %d answers left; want %t, %v, %d", more, err, len(k.answers), c.more, c.err, c.left)
			}
			var got []string
			for i := range b.Packets {
				got = append(got, string(b.Bytes(i)))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("received %.200q, want %.200q", got, c.want)
			}
			if len(got) > 0 && len(b.Runs) != 1 {
				t.Errorf("%d runs from one endpoint", len(b.Runs))
			}
			if r := &conn.v4.rx; r.b != nil || r.direct.iov.Base != nil {
				t.Error("the batch is still held")
			}
		})
	}
}

// TestBurst looks at when a burst is tried, and has one that is more than a batch holds.
func TestBurst(t *testing.T) {
	conn := newConn(t, &Host{})
	watch(t, conn)
	small, super := answer{data: "x"}, answer{data: string(make([]byte, 60000)), gro: 1000}
	k := &script{kernel: syscalls{}}
	conn.v4.sys = k
	r, b := &conn.v4.rx, packet.New()
	receive := func(packets int, more bool, bursts int, answers ...answer) {
		t.Helper()
		k.answers, k.bursts = append(k.answers, answers...), 0
		b.Reset()
		got, err := r.Receive(b)
		if err != nil || got != more || len(b.Packets) != packets || k.bursts != bursts {
			t.Fatalf("%d packets, more %t, %d bursts, %v; want %d, %t, %d", len(b.Packets), got, k.bursts, err, packets, more, bursts)
		}
		for i := range b.Packets {
			if d := b.Bytes(i); len(d) == 1 && d[0] != 'x' || len(d) > 1 && d[0] != 0 {
				t.Fatalf("packet %d is %q", i, d)
			}
		}
	}
	receive(60, false, 0, super)
	if r.burst.burstMemory != nil {
		t.Error("memory for a burst that never came")
	}
	receive(1, false, 0, small)
	receive(1, false, 0, small)
	receive(1, false, 0, small)
	receive(1, false, 1, small) // tried, and nothing was there
	receive(9, false, 2, slices.Repeat([]answer{small}, 9)...)
	receive(60, false, 0, super) // alone: received directly
	receive(4+60+2, false, 1, small, small, small, small, super, small, small)
	// More than fits: small ones, and a burst of super-packets.
	receive(4+2*60, true, 1, small, small, small, small, super, super, super, super, super, small)
	receive(2*60, true, 0)
	receive(60+1, false, 0)
	// More packets than fit.
	b = packet.NewSize(packet.SlabSize, 130)
	many := answer{data: strings.Repeat("x", 50), gro: 1}
	receive(3, true, 0, small, small, small, small, small, many, many, many, small)
	receive(2+2*50, true, 1)
	receive(50+1, true, 0)
}

// TestReceiveStopsBeforePacketsAreLost: a super-packet brings up to maxCoalesced.
func TestReceiveStopsBeforePacketsAreLost(t *testing.T) {
	conn := newConn(t, &Host{})
	conn.v4.gro = true
	super := answer{data: string(make([]byte, maxCoalesced)), gro: 1}
	k := &script{kernel: syscalls{}, answers: []answer{super, super, super, {data: "x"}, {data: "y"}}}
	conn.v4.sys = k
	b := packet.NewSize(256<<10, 3*maxCoalesced+1)
	if more, err := conn.v4.receiver().Receive(b); !more || err != nil || len(b.Packets) != 3*maxCoalesced {
		t.Fatalf("%d packets, more %t, %v", len(b.Packets), more, err)
	}
}

func TestEndpoints(t *testing.T) {
	families(t, func(t *testing.T, lo netip.Addr) {
		a, c := newConn(t, &Host{}), newConn(t, &Host{})
		watch(t, c)
		b, data := lay(packet.Endpoint{Addr: netip.AddrPortFrom(lo, c.Port())}, 0, 10)
		wantSent(t, a, b)
		got := wantReceived(t, c.receiverOf(lo), data)
		if want := (packet.Endpoint{Addr: netip.AddrPortFrom(lo, a.Port()), Src: lo, SrcIf: 1}); got != want {
			t.Errorf("from %v, want %v", got, want)
		}
	})
}

// TestSuperPacketsComeWhole shows that both offloads work on this kernel, and a batch leaves by one call.
func TestSuperPacketsComeWhole(t *testing.T) {
	families(t, func(t *testing.T, lo netip.Addr) {
		a, c := newConn(t, &Host{}), newConn(t, &Host{})
		watch(t, c)
		if o := c.Offloads(); !maps.Equal(o, packet.OffloadStates{packet.GSO: packet.OffloadOn, packet.GRO: packet.OffloadOn}) {
			t.Fatalf("offloads %+v on kernel %v", o, linux.Running())
		}
		needGSO(t, a)
		k := newSeam(a)
		b, data := lay(packet.Endpoint{Addr: netip.AddrPortFrom(lo, c.Port())}, 0, times(45, 1452, 900)...)
		wantSent(t, a, b)
		if k.calls != 1 {
			t.Errorf("%d calls", k.calls)
		}
		got := packet.New()
		if _, err := c.receiverOf(lo).Receive(got); err != nil || len(got.Packets) != len(data) {
			t.Errorf("%d of %d datagrams, %v", len(got.Packets), len(data), err)
		}
	})
}

func TestNoAllocations(t *testing.T) {
	for _, h := range []Host{{}, {Off: packet.SocketOffloads}} {
		families(t, func(t *testing.T, lo netip.Addr) {
			a, c := newConn(t, &h), newConn(t, &h)
			watch(t, c)
			r := c.receiverOf(lo)
			b, _ := lay(packet.Endpoint{Addr: netip.AddrPortFrom(lo, c.Port()), Src: lo, SrcIf: 1}, 0, times(40, 300, 100)...)
			got := packet.New()
			if n := testing.AllocsPerRun(200, func() {
				if err := a.Send(b); err != nil {
					t.Fatal(err)
				}
				for n := 0; n < len(b.Packets); n += len(got.Packets) {
					got.Reset()
					if _, err := r.Receive(got); err != nil {
						t.Fatal(err)
					}
				}
			}); n > poolAllocs {
				t.Errorf("%+v: a batch sent and received allocates %v times", h, n)
			}
		})
	}
}
