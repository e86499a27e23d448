package tun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A link asks the kernel about one interface by rtnetlink, and hears of its changes. The interface may be in another
// network namespace than this process, from the start or later; then requests name that namespace by an id that is local
// to ours (IFLA_TARGET_NETNSID), and the socket listens to all namespaces that have one (NETLINK_LISTEN_ALL_NSID).
type link struct {
	tun syscall.RawConn // the TUN's descriptor, which knows the interface wherever it is

	mu    sync.Mutex // guards what follows, and one exchange on req
	req   int        // a socket for requests
	seq   uint32
	ns    nsKey // the namespace of our sockets
	index int32 // the interface's last known index
	wide  bool  // hears of all namespaces

	events *os.File // a socket that is in the group of link changes
	conn   syscall.RawConn
	buf    [4096]byte // of hear; the head of a message is enough
}

// A linkState is what an interface is at one moment.
type linkState struct {
	nsid  int32 // its namespace's id in ours; noNSID: it is in ours
	index int32
	up    bool
	mtu   int

	// forwards tells whether what arrives on it may be sent on by another interface: the host is a router here, for IPv4
	// or IPv6. Then it is one in the other direction too.
	forwards bool
}

// An nsKey identifies a network namespace.
type nsKey struct{ dev, ino uint64 }

const noNSID = -1

// From Linux, include/uapi/linux/rtnetlink.h, where x/sys has them not.
const (
	sizeofRtgenmsg       = 4 // struct rtgenmsg, padded
	rtextFilterSkipStats = 1 << 3
	nlaTypeMask          = 0x3fff // include/uapi/linux/netlink.h

	// What IFLA_AF_SPEC holds for an address family: settings by number, of which forwarding is the first in both.
	iflaInetConf  = 1 // include/uapi/linux/if_link.h
	iflaInet6Conf = 2

	sizeofNetconfmsg = 4 // include/uapi/linux/netconf.h, padded
	netconfaIfindex  = 1
	groupsHeard      = unix.RTMGRP_LINK | 1<<(unix.RTNLGRP_IPV4_NETCONF-1) | 1<<(unix.RTNLGRP_IPV6_NETCONF-1)
)

func newLink(tun syscall.RawConn) (*link, error) {
	req, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("netlink socket", err)
	}
	ev, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		unix.Close(req)
		return nil, os.NewSyscallError("netlink socket", err)
	}
	l := &link{tun: tun, req: req, events: os.NewFile(uintptr(ev), "rtnetlink")}
	l.conn, err = l.events.SyscallConn()
	if err == nil {
		err = os.NewSyscallError("netlink bind", unix.Bind(ev, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groupsHeard}))
	}
	if err == nil {
		// The kernel answers before the request's send returns; this bounds a surprise.
		err = unix.SetsockoptTimeval(req, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2})
	}
	if err != nil {
		l.close()
		return nil, err
	}
	if fd, err := unix.IoctlRetInt(req, unix.SIOCGSKNS); err == nil {
		l.ns, _ = nsKeyOf(fd)
		unix.Close(fd)
	} else {
		var st unix.Stat_t // not permitted: without namespaces of its own, a process has one for all threads
		if unix.Stat("/proc/thread-self/ns/net", &st) == nil {
			l.ns = nsKey{uint64(st.Dev), st.Ino}
		}
	}
	return l, nil
}

func nsKeyOf(fd int) (nsKey, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return nsKey{uint64(st.Dev), st.Ino}, err
}

// stop ends hear; it may be called from anywhere.
func (l *link) stop() { l.events.Close() }

// close frees the sockets. Nothing may be asked any more.
func (l *link) close() {
	l.events.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.req >= 0 {
		unix.Close(l.req)
		l.req = -1
	}
}

// hear waits until something may have changed about the interface. It returns an error only after stop.
func (l *link) hear() error {
	for {
		n, overrun := 0, false
		err := l.conn.Read(func(fd uintptr) bool {
			var err error
			n, _, err = unix.Recvfrom(int(fd), l.buf[:], unix.MSG_DONTWAIT)
			overrun = errors.Is(err, unix.ENOBUFS) // messages were lost: look
			return err == nil || overrun
		})
		if err != nil {
			return err
		}
		if overrun || l.concerns(l.buf[:n]) {
			return nil
		}
	}
}

// concerns reports whether the netlink message m is about the interface. Another interface in another namespace may have
// the same index; then there is a look too many.
func (l *link) concerns(m []byte) bool {
	if len(m) < unix.SizeofNlMsghdr+sizeofNetconfmsg {
		return false
	}
	var index []byte
	switch body := m[unix.SizeofNlMsghdr:]; binary.NativeEndian.Uint16(m[4:]) {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(body) >= unix.SizeofIfInfomsg {
			index = body[4:8]
		}
	case unix.RTM_NEWNETCONF:
		index = attr(body[sizeofNetconfmsg:], netconfaIfindex)
	}
	if len(index) < 4 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return int32(binary.NativeEndian.Uint32(index)) == l.index
}

// ifname returns the interface's name: TUNGETIFF works wherever the interface is.
func ifname(tun syscall.RawConn) (name string, flags uint16, err error) {
	ifr, _ := unix.NewIfreq("")
	if cerr := tun.Control(func(fd uintptr) { err = unix.IoctlIfreq(int(fd), unix.TUNGETIFF, ifr) }); cerr != nil {
		return "", 0, os.ErrClosed
	}
	return ifr.Name(), ifr.Uint16(), err
}

// state asks what the interface is now.
func (l *link) state() (linkState, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for try := 0; ; try++ {
		name, _, err := ifname(l.tun)
		if err != nil {
			return linkState{}, err
		}
		st, err := l.get(name)
		if err == nil {
			l.index = st.index
			return st, nil
		}
		if try == 2 { // it was renamed or moved in between, once, perhaps twice
			return linkState{}, err
		}
	}
}

// get asks for the interface by name, in the namespace where it is.
func (l *link) get(name string) (linkState, error) {
	nsid, err := l.locate()
	if err != nil {
		return linkState{}, err
	}
	m := newMessage(unix.RTM_GETLINK, unix.NLM_F_REQUEST, make([]byte, unix.SizeofIfInfomsg))
	m.attr(unix.IFLA_IFNAME, append([]byte(name), 0))
	m.attr(unix.IFLA_EXT_MASK, u32(rtextFilterSkipStats))
	if nsid != noNSID {
		m.attr(unix.IFLA_TARGET_NETNSID, u32(uint32(nsid)))
	}
	reply, err := l.exchange(m, unix.RTM_NEWLINK)
	if err == nil && len(reply) < unix.SizeofIfInfomsg {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return linkState{}, fmt.Errorf("rtnetlink: get link: %w", err)
	}
	st := linkState{
		nsid:  nsid,
		index: int32(binary.NativeEndian.Uint32(reply[4:])),
		up:    binary.NativeEndian.Uint32(reply[8:])&unix.IFF_UP != 0,
	}
	if v := attr(reply[unix.SizeofIfInfomsg:], unix.IFLA_MTU); len(v) >= 4 {
		st.mtu = int(binary.NativeEndian.Uint32(v))
	}
	families := attr(reply[unix.SizeofIfInfomsg:], unix.IFLA_AF_SPEC)
	for family, conf := range map[uint16]uint16{unix.AF_INET: iflaInetConf, unix.AF_INET6: iflaInet6Conf} {
		if v := attr(attr(families, family), conf); len(v) >= 4 && binary.NativeEndian.Uint32(v) != 0 {
			st.forwards = true
		}
	}
	return st, nil
}

// set sets a number of the interface whose state is st, such as IFLA_MTU. That can only be done in our own namespace: in
// a request to change a link, IFLA_TARGET_NETNSID would move it.
func (l *link) set(st linkState, attr uint16, v int) error {
	if st.nsid != noNSID {
		return fmt.Errorf("the interface is in another network namespace: %w", errors.ErrUnsupported)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	info := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(info[4:], uint32(st.index))
	m := newMessage(unix.RTM_NEWLINK, unix.NLM_F_REQUEST|unix.NLM_F_ACK, info)
	m.attr(attr, u32(uint32(v)))
	_, err := l.exchange(m, unix.NLMSG_ERROR)
	return err
}

// locate finds the interface's namespace, and returns the id it has in ours; noNSID stands for ours.
func (l *link) locate() (nsid int32, err error) {
	fd, err := -1, error(nil)
	if cerr := l.tun.Control(func(t uintptr) { fd, err = unix.IoctlRetInt(int(t), unix.TUNGETDEVNETNS) }); cerr != nil {
		return 0, os.ErrClosed
	}
	if err != nil {
		return noNSID, nil // not permitted, or before Linux 5.2: suppose ours
	}
	defer unix.Close(fd)
	key, err := nsKeyOf(fd)
	if err != nil || key == l.ns || l.ns == (nsKey{}) {
		return noNSID, err
	}
	nsid, err = l.nsid(fd)
	if err == nil && nsid == noNSID { // nobody gave it one yet
		m := newMessage(unix.RTM_NEWNSID, unix.NLM_F_REQUEST|unix.NLM_F_ACK, make([]byte, sizeofRtgenmsg))
		m.attr(unix.NETNSA_FD, u32(uint32(fd)))
		none := int32(noNSID)
		m.attr(unix.NETNSA_NSID, u32(uint32(none)))
		if _, err = l.exchange(m, unix.NLMSG_ERROR); err == nil || errors.Is(err, unix.EEXIST) {
			nsid, err = l.nsid(fd)
		}
	}
	if err != nil {
		return 0, err
	}
	if nsid == noNSID {
		return 0, errors.New("tun: the interface's network namespace has no id in this one")
	}
	if !l.wide {
		l.wide = true
		// Without CAP_NET_BROADCAST there are no events from there; a read will still notice deletion.
		l.conn.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 1)
		})
	}
	return nsid, nil
}

// nsid asks for the id of the namespace that fd refers to.
func (l *link) nsid(fd int) (int32, error) {
	m := newMessage(unix.RTM_GETNSID, unix.NLM_F_REQUEST, make([]byte, sizeofRtgenmsg))
	m.attr(unix.NETNSA_FD, u32(uint32(fd)))
	reply, err := l.exchange(m, unix.RTM_NEWNSID)
	if err != nil {
		return 0, err
	}
	if len(reply) >= sizeofRtgenmsg {
		if v := attr(reply[sizeofRtgenmsg:], unix.NETNSA_NSID); len(v) >= 4 {
			return int32(binary.NativeEndian.Uint32(v)), nil
		}
	}
	return 0, errors.New("tun: rtnetlink: no namespace id in the answer")
}

// exchange sends m and returns the body of the answer, which must be of the given type; NLMSG_ERROR means that an
// acknowledgment is the answer.
func (l *link) exchange(m message, want uint16) ([]byte, error) {
	if l.req < 0 {
		return nil, os.ErrClosed
	}
	l.seq++
	if err := unix.Sendto(l.req, m.finish(l.seq), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("netlink send", err)
	}
	buf := make([]byte, 16<<10)
	for {
		n, _, err := unix.Recvfrom(l.req, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("netlink receive", err)
		}
		if n < unix.SizeofNlMsghdr || binary.NativeEndian.Uint32(buf[8:]) != l.seq {
			continue // the late answer to a request that was given up
		}
		body := buf[unix.SizeofNlMsghdr:n]
		switch typ := binary.NativeEndian.Uint16(buf[4:]); {
		case typ == unix.NLMSG_ERROR && len(body) >= 4:
			if e := int32(binary.NativeEndian.Uint32(body)); e != 0 {
				return nil, unix.Errno(-e)
			}
			return nil, nil
		case typ == want:
			return body, nil
		default:
			return nil, fmt.Errorf("tun: rtnetlink: answer of type %d", typ)
		}
	}
}

// A message is a netlink message being made.
type message []byte

func newMessage(typ, flags uint16, body []byte) message {
	m := make(message, unix.SizeofNlMsghdr, 128)
	binary.NativeEndian.PutUint16(m[4:], typ)
	binary.NativeEndian.PutUint16(m[6:], flags)
	return append(m, body...)
}

func (m *message) attr(typ uint16, v []byte) {
	h := make([]byte, unix.SizeofRtAttr)
	binary.NativeEndian.PutUint16(h, uint16(len(h)+len(v)))
	binary.NativeEndian.PutUint16(h[2:], typ)
	*m = append(append(*m, h...), v...)
	for len(*m)%unix.NLMSG_ALIGNTO != 0 {
		*m = append(*m, 0)
	}
}

func (m message) finish(seq uint32) []byte {
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	binary.NativeEndian.PutUint32(m[8:], seq)
	return m
}

// attr returns the value of the first attribute of a type in b, or nil.
func attr(b []byte, typ uint16) []byte {
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return nil
		}
		if binary.NativeEndian.Uint16(b[2:])&nlaTypeMask == typ {
			return b[unix.SizeofRtAttr:n]
		}
		b = b[min(len(b), (n+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
	}
	return nil
}

func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
