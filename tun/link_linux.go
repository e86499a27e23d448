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

	"throughline/internal/rtnl"
)

// A link asks the kernel about one interface by rtnetlink, and receives notifications of its changes. The interface may
// be in another network namespace than this process, from the start or later; then requests name that namespace by an id
// that is local to ours (IFLA_TARGET_NETNSID), and the socket listens to all namespaces that have one
// (NETLINK_LISTEN_ALL_NSID).
type link struct {
	tun syscall.RawConn // the TUN's descriptor, which knows the interface wherever it is

	req *rtnl.Conn
	ns  nsKey // the namespace of our sockets

	mu    sync.Mutex // guards what follows, and a request with its answer
	index int32      // the interface's last known index
	wide  bool       // notified of all namespaces

	events *rtnl.Events
	buf    [4096]byte // of wait; the head of a message is enough
}

// A linkState is what an interface is at one moment.
type linkState struct {
	nsid  int32 // its namespace's id in ours; noNSID: it is in ours
	index int32
	up    bool
	mtu   int

	// forwards says whether what comes in by it may be sent on by another interface: the host is a router here, for IPv4
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

	// What IFLA_AF_SPEC holds for an address family: settings by number, of which forwarding is the first in both.
	iflaInetConf  = 1 // include/uapi/linux/if_link.h
	iflaInet6Conf = 2

	sizeofNetconfmsg = 4 // include/uapi/linux/netconf.h, padded
	netconfaIfindex  = 1
	groups           = unix.RTMGRP_LINK | 1<<(unix.RTNLGRP_IPV4_NETCONF-1) | 1<<(unix.RTNLGRP_IPV6_NETCONF-1)
)

func newLink(tun syscall.RawConn) (*link, error) {
	req, err := rtnl.Dial()
	if err != nil {
		return nil, err
	}
	events, err := rtnl.Listen(groups)
	if err != nil {
		req.Close()
		return nil, err
	}
	l := &link{tun: tun, req: req, events: events}
	req.Control(func(fd int) {
		if ns, err := unix.IoctlRetInt(fd, unix.SIOCGSKNS); err == nil {
			l.ns, _ = nsKeyOf(ns)
			unix.Close(ns)
		} else {
			var st unix.Stat_t // not permitted: without namespaces of its own, a process has one for all threads
			if unix.Stat("/proc/thread-self/ns/net", &st) == nil {
				l.ns = nsKey{uint64(st.Dev), st.Ino}
			}
		}
	})
	return l, nil
}

func nsKeyOf(fd int) (nsKey, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return nsKey{uint64(st.Dev), st.Ino}, err
}

// stop ends wait; it may be called from anywhere.
func (l *link) stop() { l.events.Close() }

// close frees the sockets. Nothing may be asked any more.
func (l *link) close() {
	l.events.Close()
	l.req.Close()
}

// wait waits until something may have changed about the interface. It returns an error only after stop.
func (l *link) wait() error {
	for {
		n, lost, err := l.events.Next(l.buf[:])
		if err != nil {
			return err
		}
		if lost || l.concerns(l.buf[:n]) {
			return nil
		}
	}
}

// concerns reports whether the netlink message m is about the interface. Another interface in another namespace may have
// the same index; then the state is asked for once too often.
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
		index = rtnl.Attr(body[sizeofNetconfmsg:], netconfaIfindex)
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
	m := rtnl.NewMessage(unix.RTM_GETLINK, unix.NLM_F_REQUEST, make([]byte, unix.SizeofIfInfomsg))
	m.Add(unix.IFLA_IFNAME, append([]byte(name), 0))
	m.AddUint32(unix.IFLA_EXT_MASK, rtextFilterSkipStats)
	if nsid != noNSID {
		m.AddUint32(unix.IFLA_TARGET_NETNSID, uint32(nsid))
	}
	reply, err := l.req.Exchange(m, unix.RTM_NEWLINK)
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
	if mtu, ok := rtnl.Uint32(reply[unix.SizeofIfInfomsg:], unix.IFLA_MTU); ok {
		st.mtu = int(mtu)
	}
	families := rtnl.Attr(reply[unix.SizeofIfInfomsg:], unix.IFLA_AF_SPEC)
	for family, conf := range map[uint16]uint16{unix.AF_INET: iflaInetConf, unix.AF_INET6: iflaInet6Conf} {
		if forwards, _ := rtnl.Uint32(rtnl.Attr(families, family), conf); forwards != 0 {
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
	m := rtnl.NewMessage(unix.RTM_NEWLINK, unix.NLM_F_REQUEST|unix.NLM_F_ACK, info)
	m.AddUint32(attr, uint32(v))
	_, err := l.req.Exchange(m, unix.NLMSG_ERROR)
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
	if err == nil && nsid == noNSID { // it has none yet
		m := rtnl.NewMessage(unix.RTM_NEWNSID, unix.NLM_F_REQUEST|unix.NLM_F_ACK, make([]byte, sizeofRtgenmsg))
		m.AddUint32(unix.NETNSA_FD, uint32(fd))
		none := int32(noNSID)
		m.AddUint32(unix.NETNSA_NSID, uint32(none))
		if _, err = l.req.Exchange(m, unix.NLMSG_ERROR); err == nil || errors.Is(err, unix.EEXIST) {
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
		// Without CAP_NET_BROADCAST there are no events from there; a read will still find out about deletion.
		l.events.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 1)
		})
	}
	return nsid, nil
}

// nsid asks for the id of the namespace that fd refers to.
func (l *link) nsid(fd int) (int32, error) {
	m := rtnl.NewMessage(unix.RTM_GETNSID, unix.NLM_F_REQUEST, make([]byte, sizeofRtgenmsg))
	m.AddUint32(unix.NETNSA_FD, uint32(fd))
	reply, err := l.req.Exchange(m, unix.RTM_NEWNSID)
	if err != nil {
		return 0, err
	}
	if len(reply) >= sizeofRtgenmsg {
		if id, ok := rtnl.Uint32(reply[sizeofRtgenmsg:], unix.NETNSA_NSID); ok {
			return int32(id), nil
		}
	}
	return 0, errors.New("tun: rtnetlink: no namespace id in the answer")
}
