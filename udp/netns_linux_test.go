package udp

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
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

// Real refusals come from real networks: these tests make network namespaces, with links between them. They need root,
// or a kernel that lets anybody make a user namespace; then they run themselves again in one.

// A netns is a network namespace, and the thread that lives in it. Sockets that the thread opens stay in it, whatever
// thread uses them.
type netns struct {
	t   *testing.T
	do  chan func()
	tid int
}

// inNamespaces calls f where namespaces can be made.
func inNamespaces(t *testing.T, f func(t *testing.T)) {
	if os.Geteuid() == 0 {
		f(t)
		return
	}
	if os.Getenv("UDP_TEST_IN_USERNS") != "" {
		t.Fatal("not root in the user namespace either")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "UDP_TEST_IN_USERNS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err == nil {
		return
	}
	if _, ran := err.(*exec.ExitError); !ran && os.Getenv("CI") == "" {
		t.Skipf("not root, and no user namespace can be made: %v", err)
	}
	t.Fatalf("in a user namespace: %v\n%s", err, out)
}

func newNetns(t *testing.T) *netns {
	ns := &netns{t: t, do: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine, and the namespace with it
		err := unix.Unshare(unix.CLONE_NEWNET)
		ns.tid = unix.Gettid()
		ready <- err
		if err == nil {
			for f := range ns.do {
				f()
			}
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("no network namespace: %v", err)
	}
	t.Cleanup(func() { close(ns.do) })
	ns.ip("link set lo up")
	return ns
}

// run calls f on the namespace's thread.
func (ns *netns) run(f func()) {
	done := make(chan bool)
	ns.do <- func() { f(); close(done) }
	<-done
}

// ip runs ip(8).
func (ns *netns) ip(args string) { ns.cmd("ip", args) }

func (ns *netns) cmd(name, args string) {
	ns.t.Helper()
	var out []byte
	var err error
	ns.run(func() { out, err = exec.Command(name, strings.Fields(args)...).CombinedOutput() })
	if err != nil {
		ns.t.Fatalf("%s %s: %v: %s", name, args, err, out)
	}
}

func (ns *netns) listen(h Host) (c *conn) {
	ns.t.Helper()
	var err error
	ns.run(func() {
		var l Conn
		if l, err = h.Listen(0); err == nil {
			c = l.(*conn)
		}
	})
	if err != nil {
		ns.t.Fatal(err)
	}
	ns.t.Cleanup(func() { c.Close() })
	watch(ns.t, c)
	z := &zone.Names{Ask: func() (ifis []net.Interface, err error) {
		ns.run(func() { ifis, err = net.Interfaces() })
		return
	}}
	c.v4.zones, c.v6.zones = z, z
	return c
}

// pair returns two namespaces with a veth between them: v0 with 10.9.0.1 and fd09::1, v1 with 10.9.0.2 and fd09::2.
func pair(t *testing.T) (a, b *netns) {
	a, b = newNetns(t), newNetns(t)
	a.ip(fmt.Sprintf("link add v0 type veth peer name v1 netns %d", b.tid))
	for i, ns := range []*netns{a, b} {
		ns.ip(fmt.Sprintf("addr add 10.9.0.%d/24 dev v%d", i+1, i))
		ns.ip(fmt.Sprintf("addr add fd09::%d/64 dev v%d nodad", i+1, i))
		ns.ip(fmt.Sprintf("link set v%d addrgenmode none", i))
		ns.ip(fmt.Sprintf("addr add fe80::%d/64 dev v%d nodad", i+1, i))
		ns.ip(fmt.Sprintf("link set v%d up", i))
	}
	return a, b
}

var peers = []netip.Addr{netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("fd09::2")}

// noChecksums switches tx checksum offload off. SIOCETHTOOL, ETHTOOL_STXCSUM.
func (ns *netns) noChecksums(link string) {
	var errno syscall.Errno
	ns.run(func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			errno = err.(syscall.Errno)
			return
		}
		defer unix.Close(fd)
		value := &[2]uint32{0x17, 0}
		var req struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}
		copy(req.name[:], link)
		req.data = unsafe.Pointer(value)
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	})
	if errno != 0 {
		ns.t.Fatalf("switch checksum offload off: %v", errno)
	}
}

// TestNoChecksumOffload sends super-packets out of a link that computes no checksums. Kernels before 6.11 refuse that
// with EIO; later ones compute them.
func TestNoChecksumOffload(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		na, nb := pair(t)
		na.noChecksums("v0")
		for _, to := range peers {
			a, b := na.listen(Host{}), nb.listen(Host{})
			needGSO(t, a)
			k := newSeam(a)
			batch, data := lay(packet.Endpoint{Addr: netip.AddrPortFrom(to, b.Port())}, 0, times(100, 1200, 5)...)
			wantSent(t, a, batch)
			wantReceived(t, b.receiverOf(to), data)
			want := packet.OffloadOn
			if slices.Contains(k.got, unix.EIO) {
				want = packet.OffloadWithdrawn
			}
			t.Logf("to %v on kernel %v: refused with %v", to, linux.Running(), k.got)
			if o := a.Offloads(); o[packet.GSO] != want || !slices.Contains(k.got, unix.EIO) && len(k.got) > 0 {
				t.Errorf("GSO is %v after %v", o[packet.GSO], k.got)
			}
		}
	})
}

// TestPathMTU sends super-packets whose segments are larger than a route lets pass. The kernel refuses the super-packet,
// and fragments the datagrams.
func TestPathMTU(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		na, nb := pair(t)
		na.ip("route replace 10.9.0.0/24 dev v0 mtu 1300")
		na.ip("route replace fd09::/64 dev v0 metric 1 mtu 1300")
		for _, to := range peers {
			a, b := na.listen(Host{}), nb.listen(Host{})
			needGSO(t, a)
			k := newSeam(a)
			batch, data := lay(packet.Endpoint{Addr: netip.AddrPortFrom(to, b.Port())}, 0, times(40, 1400, append(times(40, 200), 3)...)...)
			wantSent(t, a, batch)
			wantReceived(t, b.receiverOf(to), data)
			if want := []syscall.Errno{unix.EMSGSIZE}; !slices.Equal(k.got, want) && !slices.Equal(k.got, []syscall.Errno{unix.EINVAL}) {
				t.Errorf("the kernel refused with %v, want %v (EINVAL before 6.14)", k.got, want)
			}
			if want := append(times(40, 0), 200); !slices.Equal(k.segments, want) {
				t.Errorf("left as %v, want %v", k.segments, want)
			}
			if o := a.Offloads(); o[packet.GSO] != packet.OffloadOn {
				t.Errorf("GSO is %v", o[packet.GSO])
			}
			k.got = nil
			wantSent(t, a, batch)
			wantReceived(t, b.receiverOf(to), data)
			if len(k.got) > 0 {
				t.Errorf("refused again: %v", k.got)
			}
		}
	})
}

// TestMustNotFragment is the same with IP_MTU_DISCOVER set, so that datagrams are refused too: they are lost, and those
// that fit are not.
func TestMustNotFragment(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		na, nb := pair(t)
		na.ip("route replace 10.9.0.0/24 dev v0 mtu 1300")
		a, b := na.listen(Host{}), nb.listen(Host{})
		a.v4.rc.Control(func(fd uintptr) {
			if err := unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO); err != nil {
				t.Fatal(err)
			}
		})
		batch, data := lay(packet.Endpoint{Addr: netip.AddrPortFrom(peers[0], b.Port())}, 0, append(times(3, 1200), append(times(3, 1400), times(3, 1200)...)...)...)
		if err := a.Send(batch); err == nil || !strings.Contains(err.Error(), unix.EMSGSIZE.Error()) {
			t.Fatalf("error %v", err)
		}
		for i, p := range batch.Packets {
			if lost := p.Len == 1400; lost != (p.Drop == packet.DropSend) {
				t.Errorf("packet %d of %d bytes: %v", i, p.Len, p.Drop)
			}
		}
		wantReceived(t, b.receiverOf(peers[0]), append(data[:3:3], data[6:]...))
	})
}

// TestSource sends from each of two addresses, the one that the peer sent to, and when one is removed from the other.
func TestSource(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		na, nb := pair(t)
		na.ip("addr add 10.9.0.11/24 dev v0")
		na.ip("addr add fd09::11/64 dev v0 nodad")
		for i, second := range []string{"10.9.0.11", "fd09::11"} {
			a, b := na.listen(Host{}), nb.listen(Host{})
			first := []string{"10.9.0.1", "fd09::1"}[i]
			var e packet.Endpoint
			for _, ours := range []string{first, second} {
				// The peer speaks to the address, and is answered from it, by super-packets and by datagrams.
				to := netip.AddrPortFrom(netip.MustParseAddr(ours), a.Port())
				hello, data := lay(packet.Endpoint{Addr: to}, 0, 10)
				wantSent(t, b, hello)
				e = wantReceived(t, a.receiverOf(to.Addr()), data)
				if e.Src != to.Addr() || e.SrcIf == 0 {
					t.Fatalf("arrived at %v on %d, want %v", e.Src, e.SrcIf, to.Addr())
				}
				for _, sizes := range [][]int{{10}, times(5, 100, 7)} {
					answer, data := lay(e, 0, sizes...)
					wantSent(t, a, answer)
					if from := wantReceived(t, b.receiverOf(to.Addr()), data); from.Addr != to {
						t.Errorf("answered from %v, want %v", from.Addr, to)
					}
					if answer.Runs[0].Endpoint != e {
						t.Errorf("the endpoint changed to %v", answer.Runs[0].Endpoint)
					}
				}
			}
			// The second address goes away between receipt and answer.
			na.ip("addr del " + map[bool]string{true: second + "/24", false: second + "/64"}[i == 0] + " dev v0")
			k := newSeam(a)
			answer, data := lay(e, 0, times(30, 1000, 9)...)
			wantSent(t, a, answer)
			from := wantReceived(t, b.receiverOf(e.Addr.Addr()), data)
			if want := netip.AddrPortFrom(netip.MustParseAddr(first), a.Port()); from.Addr != want {
				t.Errorf("answered from %v, want %v", from.Addr, want)
			}
			if got := answer.Runs[0].Endpoint; got.Src.IsValid() || got.SrcIf != 0 || got.Addr != e.Addr {
				t.Errorf("the source that is gone was kept: %v", got)
			}
			if !slices.Equal(k.segments, []int{1000}) || len(k.got) == 0 {
				t.Errorf("left as %v after %v", k.segments, k.got)
			}
			if o := a.Offloads(); o[packet.GSO] != packet.OffloadOn || a.v4.refusing.limit(e.Addr) != noLimit || a.v6.refusing.limit(e.Addr) != noLimit {
				t.Error("super-packets were blamed for the source")
			}
		}
	})
}

// TestLinkLocal sends to and from link-local addresses, whose zone must be kept.
func TestLinkLocal(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		na, nb := pair(t)
		a, b := na.listen(Host{}), nb.listen(Host{})
		to := netip.AddrPortFrom(netip.MustParseAddr("fe80::2%v0"), b.Port())
		hello, data := lay(packet.Endpoint{Addr: to}, 0, times(3, 500)...)
		wantSent(t, a, hello)
		e := wantReceived(t, b.receiverOf(to.Addr()), data)
		if want := netip.AddrPortFrom(netip.MustParseAddr("fe80::1%v1"), a.Port()); e.Addr != want || e.Src != to.Addr().WithZone("") || e.SrcIf == 0 {
			t.Fatalf("from %v, want %v", e, want)
		}
		answer, data := lay(e, 0, times(3, 500)...)
		wantSent(t, b, answer)
		if e = wantReceived(t, a.receiverOf(to.Addr()), data); e.Addr != to {
			t.Fatalf("answered from %v, want %v", e.Addr, to)
		}
		if n := testing.AllocsPerRun(100, func() {
			wantSent(t, a, hello)
		}); n > poolAllocs {
			t.Errorf("sending allocates %v times", n)
		}
		lost, _ := lay(packet.Endpoint{Addr: netip.AddrPortFrom(netip.MustParseAddr("fe80::2%nolink"), 9)}, 0, 5, 5)
		if err := a.Send(lost); err == nil {
			t.Error("sent to a link that isn't there")
		}
	})
}

// TestWaitsForRoom sends more than the socket's buffer holds through a slow link.
func TestWaitsForRoom(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		na, nb := pair(t)
		na.cmd("tc", "qdisc add dev v0 root tbf rate 400mbit burst 128kb limit 20mb")
		a, b := na.listen(Host{}), nb.listen(Host{})
		if err := a.v4.pc.SetWriteBuffer(100 << 10); err != nil {
			t.Fatal(err)
		}
		// FORCE may have set more than SetWriteBuffer can; so set it back by the same option.
		a.v4.rc.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 100<<10) })
		k := newSeam(a)
		batch, data := lay(packet.Endpoint{Addr: netip.AddrPortFrom(peers[0], b.Port())}, 0, times(900, 1400)...)
		sent := make(chan error)
		go func() { sent <- a.Send(batch) }()
		wantReceived(t, b.receiverOf(peers[0]), data)
		if err := <-sent; err != nil {
			t.Error(err)
		}
		if !slices.Contains(k.got, unix.EAGAIN) {
			t.Errorf("it never had to wait: %v", k.got)
		}
	})
}

// TestNoIPv6 listens where IPv6 is switched off.
func TestNoIPv6(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		na, nb := pair(t)
		na.run(func() {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0); err != nil {
				t.Error(err)
			}
		})
		a, b := na.listen(Host{}), nb.listen(Host{})
		batch, data := lay(packet.Endpoint{Addr: netip.AddrPortFrom(peers[1], b.Port())}, 0, 10, 10)
		batch.Runs = append(batch.Runs, packet.Run{First: 1, N: 1, Endpoint: packet.Endpoint{Addr: netip.AddrPortFrom(peers[0], b.Port())}})
		batch.Runs[0].N = 1
		if err := a.Send(batch); err == nil || batch.Packets[0].Drop != packet.DropSend || batch.Packets[1].Drop != 0 {
			t.Errorf("error %v, drops %v", err, batch.Packets)
		}
		wantReceived(t, b.receiverOf(peers[0]), data[1:])
	})
}

// TestMark sees that the mark chooses the route.
func TestMark(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		na, nb := pair(t)
		na.ip("rule add fwmark 0x2a prohibit")
		na.ip("-6 rule add fwmark 0x2a prohibit")
		a, b := na.listen(Host{}), nb.listen(Host{})
		for _, to := range peers {
			batch, data := lay(packet.Endpoint{Addr: netip.AddrPortFrom(to, b.Port())}, 0, 10, 10)
			send := func() error { batch.Packets[0].Drop, batch.Packets[1].Drop = 0, 0; return a.Send(batch) }
			if err := a.SetMark(0x2a); err != nil {
				t.Fatal(err)
			}
			if err := send(); err == nil {
				t.Errorf("to %v: the mark is not set", to)
			}
			if err := a.SetMark(0); err != nil {
				t.Fatal(err)
			}
			if err := send(); err != nil {
				t.Error(err)
			}
			wantReceived(t, b.receiverOf(to), data)
		}
		for _, s := range a.sockets() {
			s.rc.Control(func(fd uintptr) {
				if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil || n < 2*bufferSize && os.Getenv("UDP_TEST_IN_USERNS") == "" {
					t.Errorf("receive buffer of %d bytes, %v", n, err)
				}
			})
		}
		// One that can't be set in both families is set in none.
		if err := a.SetMark(7); err != nil {
			t.Fatal(err)
		}
		a.v6.close()
		if err := a.SetMark(8); err != net.ErrClosed {
			t.Errorf("SetMark: %v", err)
		}
		a.v4.rc.Control(func(fd uintptr) {
			if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK); err != nil || n != 7 {
				t.Errorf("the mark is %d, %v", n, err)
			}
		})
	})
}
