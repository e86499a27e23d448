package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The load generator sends and receives datagrams that carry their number, many in one system call.

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32 // bytes received or sent
}

// A burst is the messages of one system call, each with a buffer of its own.
type burst struct {
	msgs []mmsghdr
	iovs []unix.Iovec
	bufs [][]byte
}

// newBurst returns a burst whose buffers have these sizes, in bytes.
func newBurst(sizes []int) *burst {
	b := &burst{msgs: make([]mmsghdr, len(sizes)), iovs: make([]unix.Iovec, len(sizes)), bufs: make([][]byte, len(sizes))}
	for i, size := range sizes {
		b.bufs[i] = make([]byte, size)
		b.iovs[i].Base = &b.bufs[i][0]
		b.iovs[i].SetLen(size)
		b.msgs[i].hdr.Iov = &b.iovs[i]
		b.msgs[i].hdr.SetIovlen(1)
	}
	return b
}

// call makes a sendmmsg(2) or recvmmsg(2) system call, by its number trap. The kernel uses the burst's memory only during
// the call.
func (b *burst) call(trap uintptr, fd int, flags uintptr) (int, error) {
	n, _, errno := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(&b.msgs[0])), uintptr(len(b.msgs)), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// send runs the subcommand that sends datagrams as fast as it can.
func send(args []string, stdout io.Writer) error {
	fs := flag.NewFlagSet(cmdSend, flag.ContinueOnError)
	to := fs.String("to", "", "`address:port`")
	list := fs.String("sizes", "128", "bytes of payload of each datagram, in turn")
	span := fs.Duration("for", 4*time.Second, "how long to send")
	if err := fs.Parse(args); err != nil {
		return err
	}
	var sizes []int
	for s := range strings.SplitSeq(*list, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < minDatagram {
			return fmt.Errorf("send: %q is not a size of at least %d bytes", s, minDatagram)
		}
		sizes = append(sizes, n)
	}
	fd, err := dial(*to, false)
	if err != nil {
		return fmt.Errorf("send: %s: %w", *to, err)
	}
	defer unix.Close(fd)
	n, err := sendFor(fd, sizes, *span)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return json.NewEncoder(stdout).Encode(sent{Packets: n})
}

// sendFor sends datagrams of the sizes, in turn, for the time span, and returns how many the kernel accepted.
func sendFor(fd int, sizes []int, span time.Duration) (sent uint64, err error) {
	const batch = 32
	repeated := make([]int, 0, batch+len(sizes))
	for len(repeated) < batch {
		repeated = append(repeated, sizes...) // all of them each time, so that every burst has the same mix
	}
	b := newBurst(repeated)
	for start := time.Now(); sent == 0 || time.Since(start) < span; {
		for i, buf := range b.bufs {
			binary.LittleEndian.PutUint64(buf, sent+uint64(i))
		}
		n, err := b.call(unix.SYS_SENDMMSG, fd, 0)
		if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return sent, fmt.Errorf("sendmmsg: %w", err)
		}
		sent += uint64(n)
	}
	return sent, nil
}

// sink runs the subcommand that receives and counts datagrams.
func sink(args []string, stdout io.Writer) error {
	fs := flag.NewFlagSet(cmdSink, flag.ContinueOnError)
	listen := fs.String("listen", "", "`address:port`")
	span := fs.Duration("for", 5*time.Second, "how long to receive after the first datagram, at most")
	idle := fs.Duration("idle", 600*time.Millisecond, "how long without a datagram is the end")
	first := fs.Duration("first", 5*time.Second, "how long to wait for the first datagram")
	if err := fs.Parse(args); err != nil {
		return err
	}
	fd, err := dial(*listen, true)
	if err != nil {
		return fmt.Errorf("sink: %s: %w", *listen, err)
	}
	defer unix.Close(fd)
	fmt.Fprintln(stdout, sinkReady)
	r, err := receiveFor(fd, *first, *idle, *span)
	if err != nil {
		return fmt.Errorf("sink: %w", err)
	}
	return json.NewEncoder(stdout).Encode(r)
}

// receiveFor waits for the first datagram, and then receives until none comes for the time idle, or the time span is over.
func receiveFor(fd int, first, idle, span time.Duration) (r received, err error) {
	const batch, largest = 64, 9000
	sizes := make([]int, batch)
	for i := range sizes {
		sizes[i] = largest
	}
	b := newBurst(sizes)
	var o order
	var start, last time.Time
	if err := setReceiveTimeout(fd, first); err != nil {
		return r, err
	}
	for {
		n, err := b.call(unix.SYS_RECVMMSG, fd, unix.MSG_WAITFORONE)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			return r, fmt.Errorf("recvmmsg: %w", err)
		}
		last = time.Now()
		if start.IsZero() {
			start = last
			if err := setReceiveTimeout(fd, idle); err != nil {
				return r, err
			}
		}
		for i := range n {
			if b.msgs[i].n >= minDatagram {
				r.Packets++
				o.add(binary.LittleEndian.Uint64(b.bufs[i]))
			}
		}
		if last.Sub(start) > span {
			break
		}
	}
	r.Seconds = last.Sub(start).Seconds()
	r.Reordered, r.Duplicates = o.reordered, o.duplicates
	return r, nil
}

// setReceiveTimeout bounds how long a receive call waits.
func setReceiveTimeout(fd int, d time.Duration) error {
	tv := unix.NsecToTimeval(int64(d))
	return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
}

// dial makes a UDP socket, bound to an address or connected to it, with buffers so large that they don't limit the speed.
func dial(address string, listen bool) (fd int, err error) {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return -1, err
	}
	if !ap.Addr().Is4() {
		return -1, errors.New("not an IPv4 address")
	}
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	sa := &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	if listen {
		err = unix.Bind(fd, sa)
		force(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, 8<<20)
	} else {
		err = unix.Connect(fd, sa)
		force(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, 4<<20)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// force sets a buffer's size: by the option beyond, which may exceed the machine's limit, or else by within.
func force(fd, beyond, within, size int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, beyond, size) != nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, within, size) // if this fails too, the buffer keeps its size
	}
}
