package tun

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"throughline/packet"
	"throughline/tun/offload"
)

// A cable joins two TUNs in two namespaces, as a tunnel would that doesn't encrypt.
type cable struct {
	home, away netns
	a, b       *device
	there      counts // from a to b
	back       counts
	carriers   sync.WaitGroup
}

// counts are what went over one direction of a cable.
type counts struct{ reads, packets, writes, merged, dropped atomic.Int64 }

const (
	addrA, addrB   = "10.9.0.1", "10.9.0.2"
	addrA6, addrB6 = "fd09::1", "fd09::2"
)

func newWire(t testing.TB, opts Options) *cable {
	t.Helper()
	w := &cable{home: inNetns(t)}
	w.away = w.home.another(t)
	w.a = open(t, "tla", opts)
	addrs(t, "tla", addrA, addrA6)
	w.away.enter(t)
	ip(t, "link", "set", "lo", "up")
	w.b = open(t, "tlb", opts)
	addrs(t, "tlb", addrB, addrB6)
	w.home.enter(t)
	return w
}

func addrs(t testing.TB, dev, v4, v6 string) {
	t.Helper()
	ip(t, "addr", "add", v4+"/24", "dev", dev)
	ip(t, "addr", "add", v6+"/64", "dev", dev, "nodad")
	ip(t, "link", "set", dev, "up")
}

// run begins to carry.
func (w *cable) run(t testing.TB) {
	carry := func(from, to *queue, c *counts) {
		b := packet.New()
		for {
			b.Reset()
			if _, err := from.Read(b); err != nil {
				if !errors.Is(err, os.ErrClosed) {
					t.Errorf("Read: %v", err)
				}
				return
			}
			c.reads.Add(1)
			c.packets.Add(int64(len(b.Packets)))
			if err := to.Write(b); err != nil {
				if !errors.Is(err, os.ErrClosed) {
					t.Errorf("Write: %v", err)
				}
				return
			}
			for i := range b.Packets {
				if b.Packets[i].Drop != 0 {
					c.dropped.Add(1)
				}
			}
			c.writes.Add(int64(len(to.writes)))
			for _, x := range to.writes {
				if x.N > 1 {
					c.merged.Add(1)
				}
			}
		}
	}
	w.carriers.Go(func() { carry(&w.a.q, &w.b.q, &w.there) })
	w.carriers.Go(func() { carry(&w.b.q, &w.a.q, &w.back) })
}

// end ends carrying; then the counts stand still.
func (w *cable) end() {
	w.a.Close()
	w.b.Close()
	w.carriers.Wait()
}

// transfer sends n bytes over TCP each way at the same time and checks what comes.
func (w *cable) transfer(t *testing.T, to string, n int) {
	t.Helper()
	w.away.enter(t)
	l, err := net.Listen("tcp", net.JoinHostPort(to, "0"))
	w.home.enter(t)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{9}).Read(data)
	want := sha256.Sum256(data)
	exchange := func(c net.Conn) error {
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		sent := make(chan error, 1)
		go func() {
			_, err := c.Write(data)
			sent <- errors.Join(err, c.(*net.TCPConn).CloseWrite())
		}()
		h := sha256.New()
		m, err := io.Copy(h, c)
		if err := errors.Join(err, <-sent); err != nil {
			return err
		}
		if got := h.Sum(nil); !bytes.Equal(got, want[:]) {
			return fmt.Errorf("%d bytes came, want %d, or others", m, n)
		}
		return nil
	}
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			err = exchange(c)
		}
		done <- err
	}()
	c, err := net.DialTimeout("tcp", l.Addr().String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(exchange(c), <-done); err != nil {
		t.Fatal(err)
	}
}

// Real TCP through real TUNs: super-packets are read and written, and every byte comes through.
func TestTCP(t *testing.T) {
	for _, c := range []struct {
		name string
		off  packet.Offload
		addr string
	}{
		{"tcp4", 0, addrB}, {"tcp6", 0, addrB6}, {"tcp4 without offloads", packet.TUNOffloads, addrB}, {"tcp6 without offloads", packet.TUNOffloads, addrB6},
		{"tcp4 without tso", packet.TSO, addrB}, {"tcp4 without gro", packet.TCPGRO | packet.UDPGRO, addrB},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWire(t, Options{Off: c.off})
			t.Logf("%+v", w.a.Offloads())
			w.run(t)
			w.transfer(t, c.addr, 8<<20)
			w.end()
			for _, c := range []*counts{&w.there, &w.back} {
				t.Logf("%d reads, %d packets, %d writes, %d of them merged, %d dropped", c.reads.Load(), c.packets.Load(), c.writes.Load(), c.merged.Load(), c.dropped.Load())
			}
			if merged := w.there.merged.Load() > 0; merged != (c.off&packet.TCPGRO == 0) {
				t.Errorf("merged writes: %v", merged)
			}
			if w.there.dropped.Load() != 0 {
				t.Error("packets were dropped")
			}
			for d, want := range map[packet.Offload]packet.OffloadState{packet.TSO: w.a.Offloads()[packet.TSO], packet.TCPGRO: w.a.Offloads()[packet.TCPGRO]} {
				if (c.off&d == 0) != (want == packet.OffloadOn) {
					t.Errorf("%v is %v", d, want)
				}
			}
		})
	}
}

// A sender's UDP_SEGMENT comes as one super-packet, leaves as datagrams, and arrives as datagrams.
func TestUDP(t *testing.T) {
	for _, c := range []struct{ network, from, to string }{{"udp4", addrA, addrB}, {"udp6", addrA6, addrB6}} {
		for _, off := range []packet.Offload{0, packet.USO, packet.UDPGRO, packet.TUNOffloads} {
			t.Run(fmt.Sprintf("%s without %v", c.network, off), func(t *testing.T) {
				w := newWire(t, Options{Off: off})
				w.run(t)
				w.away.enter(t)
				l, err := net.ListenUDP(c.network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.to), 0)))
				w.home.enter(t)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				s, err := net.Dial(c.network, l.LocalAddr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				buf := make([]byte, 65536)
				// IPv6 addresses become usable a moment after they are set.
				for deadline := time.Now().Add(patience); ; {
					s.Write([]byte("?"))
					l.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
					if _, err := l.Read(buf); err == nil {
						break
					}
					if time.Now().After(deadline) {
						t.Fatal("no datagram arrives")
					}
				}
				raw, _ := s.(*net.UDPConn).SyscallConn()
				raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 1000) })
				if err != nil {
					t.Fatal(err)
				}
				sent := make([]byte, 10*1000+7)
				rand.NewChaCha8([32]byte{1}).Read(sent)
				if _, err := s.Write(sent); err != nil {
					t.Fatal(err)
				}
				l.SetReadDeadline(time.Now().Add(patience))
				var got []byte
				for i := 0; i < 11; i++ {
					n, err := l.Read(buf)
					if err == nil && n == 1 { // of those before
						i--
						continue
					}
					if err != nil {
						t.Fatalf("datagram %d: %v; %d packets read, %d writes, %d dropped", i, err, w.there.packets.Load(), w.there.writes.Load(), w.there.dropped.Load())
					}
					if want := min(1000, len(sent)-1000*i); n != want {
						t.Fatalf("datagram %d has %d bytes, want %d", i, n, want)
					}
					got = append(got, buf[:n]...)
				}
				if !bytes.Equal(got, sent) {
					t.Error("other bytes came")
				}
				w.end()
				if merged := w.there.merged.Load() > 0; merged != (off&packet.UDPGRO == 0) {
					t.Errorf("merged writes: %v", merged)
				}
			})
		}
	}
}

// A kernel that accepts IFF_VNET_HDR and refuses merged writes when they come (gluetun#3424): nothing is lost, and the
// merging is withdrawn.
func TestRefusedMergeIsWithdrawn(t *testing.T) {
	w := newWire(t, Options{})
	var refused atomic.Int64
	w.b.q.sysWritev = func(uintptr, []unix.Iovec) unix.Errno { refused.Add(1); return unix.EINVAL }
	w.run(t)
	w.transfer(t, addrB, 1<<20)
	w.end()
	if o := w.b.Offloads(); o[packet.TCPGRO] != packet.OffloadWithdrawn || o[packet.UDPGRO] != packet.OffloadOn || w.a.Offloads()[packet.TCPGRO] != packet.OffloadOn {
		t.Errorf("offloads are %+v and %+v", o, w.a.Offloads())
	}
	if n := w.there.dropped.Load(); n != 0 {
		t.Errorf("%d packets dropped", n)
	}
	if refused.Load() == 0 {
		t.Error("no merged write was tried")
	}
}

// With the interface down every write fails; that says nothing about merging.
func TestWriteWhileDown(t *testing.T) {
	inNetns(t)
	d := open(t, "tla", Options{})
	b := packet.New()
	for range 3 {
		b.Append(offload.Probe(false)[offload.HeaderSize:])
		b.Append(udpPacket(100))
	}
	if err := d.q.Write(b); err != nil {
		t.Fatal(err)
	}
	for i, p := range b.Packets {
		if p.Drop != packet.DropTUN {
			t.Errorf("packet %d: %v", i, p.Drop)
		}
	}
	if o := d.Offloads(); o[packet.UDPGRO] != packet.OffloadOn || o[packet.TCPGRO] != packet.OffloadOn {
		t.Errorf("%+v", o)
	}
}

// What the probe at start rests on.
func TestProbe(t *testing.T) {
	inNetns(t)
	d := open(t, "tla", Options{})
	for _, udp := range []bool{false, true} {
		p := offload.Probe(udp)
		d.rc.Control(func(fd uintptr) {
			if err := sysWrite(fd, p); err != unix.EIO {
				t.Errorf("udp %v, down: %v, want EIO", udp, err)
			}
			p[1] = 0x7f // no such type
			if err := sysWrite(fd, p); err != unix.EINVAL {
				t.Errorf("udp %v, down, with a header no kernel takes: %v, want EINVAL", udp, err)
			}
		})
	}
	ip(t, "link", "set", "tla", "up")
	d.rc.Control(func(fd uintptr) {
		for _, udp := range []bool{false, true} {
			if err := sysWrite(fd, offload.Probe(udp)); err != 0 {
				t.Errorf("udp %v, up: %v", udp, err)
			}
		}
	})
}

func TestFromFD(t *testing.T) {
	inNetns(t)
	for _, vnet := range []bool{true, false} {
		fd := rawTUN(t, "f0", unix.IFF_TUN|unix.IFF_NO_PI|map[bool]uint16{true: unix.IFF_VNET_HDR}[vnet])
		ip(t, "link", "set", "f0", "up", "mtu", "1400")
		ip(t, "addr", "add", addrA+"/24", "dev", "f0")
		dev, err := FromFD(fd, Options{})
		if err != nil {
			t.Fatal(err)
		}
		d := dev.(*device)
		wantEvent(t, d, Up)
		if m, err := d.MTU(); m != 1400 || err != nil {
			t.Errorf("MTU %d, %v", m, err)
		}
		state := packet.OffloadOff
		if vnet {
			state = packet.OffloadOn
		}
		want := packet.OffloadStates{packet.TSO: state, packet.USO: state, packet.TCPGRO: state, packet.UDPGRO: state}
		if o := d.Offloads(); !maps.Equal(o, want) {
			t.Errorf("vnet %v: %v", vnet, o)
		}
		c, err := net.Dial("udp", addrB+":9")
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte("hello"))
		c.Close()
		b := packet.New()
		for found := false; !found; {
			b.Reset()
			if _, err := d.q.Read(b); err != nil {
				t.Fatal(err)
			}
			for i := range b.Packets {
				p := b.Bytes(i)
				found = found || p[0] == 0x45 && bytes.HasSuffix(p, []byte("hello"))
			}
		}
		if err := d.q.Write(b); err != nil || b.Packets[0].Drop != 0 {
			t.Errorf("Write: %v, %v", err, b.Packets[0].Drop)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Where rtnetlink is not to be had, or says nothing about the interface, a device that was handed over is taken to be up:
// nothing would ever set it up.
func TestFromFDWithoutRtnetlink(t *testing.T) {
	inNetns(t)
	defer func() { openLink = newLink }()
	for name, open := range map[string]func(syscall.RawConn) (*link, error){
		"not to be had": func(syscall.RawConn) (*link, error) { return nil, unix.EACCES },
		"says nothing": func(rc syscall.RawConn) (*link, error) {
			l, err := newLink(rc)
			if err == nil {
				l.req.Close()
			}
			return l, err
		},
	} {
		openLink = open
		d, err := FromFD(rawTUN(t, "f0", unix.IFF_TUN|unix.IFF_NO_PI|unix.IFF_VNET_HDR), Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		wantEvent(t, d, Up)
		if m, err := d.MTU(); m != DefaultMTU || err != nil {
			t.Errorf("%s: MTU %d, %v", name, m, err)
		}
		d.Close()
		wantClosed(t, d)
	}
}

// An interface handed over while it is in another namespace is asked there.
func TestFromFDInAnotherNetns(t *testing.T) {
	home := inNetns(t)
	away := home.another(t)
	away.enter(t)
	fd := rawTUN(t, "f0", unix.IFF_TUN|unix.IFF_NO_PI|unix.IFF_VNET_HDR)
	ip(t, "link", "set", "f0", "up", "mtu", "1400")
	home.enter(t)
	if _, err := FromFD(fd, Options{MTU: 1300}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("the MTU of an interface elsewhere was set: %v", err)
	}
	d, err := FromFD(fd, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	wantEvent(t, d, Up)
	if m, err := d.MTU(); m != 1400 || err != nil {
		t.Errorf("MTU %d, %v", m, err)
	}
	away.enter(t)
	ip(t, "link", "set", "f0", "mtu", "1401")
	home.enter(t)
	wantEvent(t, d, MTU)
	away.enter(t)
	ip(t, "link", "del", "f0")
	home.enter(t)
	wantClosed(t, d)
}

func rawTUN(t *testing.T, name string, flags uint16) int {
	t.Helper()
	fd, err := unix.Open(cloneDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ifr, _ := unix.NewIfreq(name)
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		t.Fatal(err)
	}
	return fd
}
