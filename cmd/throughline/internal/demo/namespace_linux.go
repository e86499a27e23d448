package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"throughline/packet"
	"throughline/tun"
)

// A namespace is a network namespace without a name: the kernel removes it, with the interface in it, when the process has
// closed everything that refers to it, or has ended in any way. Its methods are safe for concurrent use.
type namespace struct {
	file *os.File
	path string // by which other programs can enter it, as long as this process has it open
}

// newNamespace makes a namespace that has only a loopback interface.
func newNamespace() (*namespace, error) {
	n := new(namespace)
	err := apart(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			hint := ""
			switch {
			case errors.Is(err, fs.ErrPermission):
				hint = "; needs CAP_SYS_ADMIN"
			case errors.Is(err, unix.ENOSPC):
				hint = "; raise user.max_net_namespaces with sysctl"
			}
			return fmt.Errorf("make a network namespace: %w%s", err, hint)
		}
		if err = ifUp("lo"); err != nil {
			return err
		}
		if n.file, err = os.Open("/proc/thread-self/ns/net"); err == nil {
			n.path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd())
		}
		return err
	})
	return n, err
}

// apart calls f on a thread of its own, which ends afterwards: nothing else runs on a thread whose namespace f has changed.
// Sockets and interfaces that f opens stay in the namespace where it opened them.
func apart(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // it isn't unlocked, so the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// The process's first thread can't end. While this goroutine is locked to it, a new goroutine gets another.
			defer runtime.UnlockOSThread()
			done <- apart(f)
			return
		}
		done <- f()
	}()
	return <-done
}

// in calls f in the namespace.
func (n *namespace) in(f func() error) error {
	return apart(func() error {
		rc, err := n.file.SyscallConn()
		if err != nil {
			return err
		}
		// While Control runs, the descriptor can't be closed and its number used again.
		if e := rc.Control(func(fd uintptr) { err = unix.Setns(int(fd), unix.CLONE_NEWNET) }); e != nil {
			err = e
		}
		if err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

// Close closes the namespace, which ends once nothing else refers to it.
func (n *namespace) Close() error { return n.file.Close() }

// open makes a TUN in the namespace that has an address and is up.
func (n *namespace) open(name string, prefix netip.Prefix, off packet.Offload) (dev tun.Device, err error) {
	err = n.in(func() error {
		// IPv6 would send messages in search of routers and neighbours. On a kernel without it the write fails, which is fine.
		os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
		dev, err = tun.Open(name, tun.Options{Off: off})
		if err != nil {
			return err
		}
		if err = ifAddress(name, prefix); err == nil {
			err = ifUp(name)
		}
		if err != nil {
			dev.Close()
		}
		return err
	})
	return dev, err
}

// ifreq calls set with a socket and a request to read or change a setting of an interface in the thread's namespace.
func ifreq(name string, set func(fd int, r *unix.Ifreq) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(name)
	if err == nil {
		err = set(fd, r)
	}
	if err != nil {
		return fmt.Errorf("set up the interface %s: %w", name, err)
	}
	return nil
}

// ifUp sets an interface up.
func ifUp(name string) error {
	return ifreq(name, func(fd int, r *unix.Ifreq) error {
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, r); err != nil {
			return err
		}
		r.SetUint16(r.Uint16() | unix.IFF_UP)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
	})
}

// ifAddress gives an interface its IPv4 address.
func ifAddress(name string, prefix netip.Prefix) error {
	return ifreq(name, func(fd int, r *unix.Ifreq) error {
		if err := r.SetInet4Addr(prefix.Addr().AsSlice()); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, r); err != nil {
			return err
		}
		if err := r.SetInet4Addr(net.CIDRMask(prefix.Bits(), 32)); err != nil {
			return err
		}
		return unix.IoctlIfreq(fd, unix.SIOCSIFNETMASK, r)
	})
}

// DialContext connects from the namespace.
func (n *namespace) DialContext(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = n.in(func() error {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Listen listens in the namespace.
func (n *namespace) Listen(network, address string) (ln net.Listener, err error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // which Go's listeners use by default; the demo shows plain TCP
	err = n.in(func() error {
		ln, err = lc.Listen(context.Background(), network, address)
		return err
	})
	return ln, err
}

// ListenPacket opens a socket in the namespace.
func (n *namespace) ListenPacket(network, address string) (c net.PacketConn, err error) {
	err = n.in(func() error {
		c, err = net.ListenPacket(network, address)
		return err
	})
	return c, err
}

// LookupHost accepts addresses only: there is no name server in the namespace.
func (n *namespace) LookupHost(_ context.Context, name string) ([]netip.Addr, error) {
	a, err := netip.ParseAddr(name)
	return []netip.Addr{a}, err
}

// Ping sends one ICMP echo request and waits for the reply until ctx ends. The kernel replies, in the other namespace.
func (n *namespace) Ping(ctx context.Context, to netip.Addr) (time.Duration, error) {
	c, err := n.ListenPacket("ip4:icmp", "")
	if err != nil {
		return 0, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()

	// Type 8, code 0, checksum, identifier, sequence number 1, and random bytes by which the reply is recognised.
	msg := append([]byte{8, 0, 0, 0, 0, 0, 0, 1}, make([]byte, 16)...)
	rand.Read(msg[8:])
	binary.BigEndian.PutUint16(msg[2:], checksum(msg))
	begin := time.Now()
	if _, err := c.WriteTo(msg, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return 0, err
	}
	buf := make([]byte, 2*len(msg))
	for {
		n, _, err := c.ReadFrom(buf)
		switch {
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case err != nil:
			return 0, err
		case n == len(msg) && buf[0] == 0 && bytes.Equal(buf[4:n], msg[4:]):
			return time.Since(begin), nil
		}
	}
}

// checksum is the Internet checksum (RFC 1071) of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 0; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum + sum>>16)
}
