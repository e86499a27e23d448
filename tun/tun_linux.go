package tun

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"throughline/internal/linux"
	"throughline/packet"
	"throughline/tun/offload"
)

const cloneDevice = "/dev/net/tun"

// errClosed is what a device's methods return after Close, errGone after the interface was deleted.
var (
	errClosed = fmt.Errorf("tun: %w", os.ErrClosed)
	errGone   = fmt.Errorf("tun: the interface was deleted: %w", os.ErrClosed)
)

// device is a TUN of the kernel's with one queue.
type device struct {
	file *os.File // owned; non-blocking, so that the runtime's poller waits for it
	rc   syscall.RawConn
	q    queue
	qs   [1]Queue
	link *link // nil when rtnetlink is not to be had

	events chan Event
	stop   chan struct{} // closed when listen is to end
	ending sync.Once
	ended  sync.WaitGroup // the listener
	closed atomic.Bool
	mtu    atomic.Int32 // the last known; 0: none
}

var _ Offloader = (*device)(nil)

// Open creates the TUN with this name, or attaches to the persistent one that has it. The name may contain "%d", which
// the kernel replaces by the first free number. The interface is left as it is, down if it is new, but for its MTU. It
// needs CAP_NET_ADMIN, unless a persistent TUN belongs to the user.
func Open(name string, opts Options) (Device, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return nil, fmt.Errorf("tun: create %q: %w; a name has at most %d bytes", name, unix.ENAMETOOLONG, unix.IFNAMSIZ-1)
	}
	fd, err := unix.Open(cloneDevice, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("tun: open %s: %w%s", cloneDevice, err, openHint(err))
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("tun: create %s: %w%s", name, err, createHint(err))
	}
	if opts.MTU == 0 {
		opts.MTU = DefaultMTU
	}
	return newDevice(fd, ifr.Name(), true, opts)
}

// FromFD makes a Device of the descriptor of a TUN that another program opened, and owns it from then on; when it fails the
// descriptor stays the caller's. The interface must have been made with IFF_NO_PI. Without IFF_VNET_HDR it works without
// offloads.
func FromFD(fd int, opts Options) (Device, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	ifr, _ := unix.NewIfreq("")
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr); err != nil {
		return nil, fmt.Errorf("tun: descriptor %d: %w; it is not that of a TUN with an interface", fd, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("tun: descriptor %d: %w", fd, err)
	}
	flags := ifr.Uint16()
	if flags&unix.IFF_TUN == 0 || !withoutPI(fd) {
		return nil, fmt.Errorf("tun: descriptor %d: %s: %w; it must be IFF_TUN with IFF_NO_PI", fd, ifr.Name(), unix.EINVAL)
	}
	unix.CloseOnExec(fd)
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("tun: descriptor %d: %w", fd, err)
	}
	d, err := newDevice(own, ifr.Name(), flags&unix.IFF_VNET_HDR != 0, opts)
	if err != nil {
		return nil, err
	}
	unix.Close(fd)
	return d, nil
}

// withoutPI reports whether packets have no protocol information before them. TUNGETIFF shows IFF_NO_PI on interfaces made
// without it (its bit is IFF_NOFILTER's too). So zeros are written: without protocol information their IP version is
// looked at, and is none (EINVAL); with it they are a frame of no protocol, which is dropped.
func withoutPI(fd int) bool {
	_, err := unix.Write(fd, make([]byte, 40)) // more than any virtio header and protocol information
	return err == unix.EINVAL
}

func (o Options) check() error {
	if o.MTU < 0 || o.MTU > MaxMTU {
		return fmt.Errorf("tun: MTU %d: %w; it is at most %d", o.MTU, unix.EINVAL, MaxMTU)
	}
	return nil
}

func openHint(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return "; load the kernel's module with \"modprobe tun\", or give the container the device"
	case errors.Is(err, fs.ErrPermission):
		return "; needs access to the device"
	}
	return ""
}

func createHint(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "; needs CAP_NET_ADMIN"
	case errors.Is(err, unix.EBUSY):
		return "; another process has it, choose another name or end that"
	case errors.Is(err, unix.EINVAL):
		return "; the name is not valid, or belongs to an interface that is not a TUN with one queue"
	case errors.Is(err, unix.EEXIST):
		return "; choose another name"
	}
	return ""
}

// newDevice makes a device of fd, which it owns.
func newDevice(fd int, name string, vnet bool, opts Options) (Device, error) {
	size := 0
	d := &device{events: make(chan Event, 1), stop: make(chan struct{})}
	if vnet {
		size = offload.HeaderSize
		if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, size); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("tun: %s: set the virtio header's size: %w", name, err)
		}
		d.negotiate(fd, opts.Off)
	}
	// Only now: the poller can't wait on a descriptor without an interface.
	d.file = os.NewFile(uintptr(fd), "tun "+name)
	rc, err := d.file.SyscallConn()
	if err != nil {
		d.file.Close()
		return nil, fmt.Errorf("tun: %s: %w", name, err)
	}
	d.rc = rc
	d.q.init(rc, size, d.isGone)
	d.qs[0] = &d.q
	st := linkState{}
	if d.link, err = openLink(rc); err == nil {
		st, err = d.link.state()
	}
	if err == nil && opts.MTU != 0 && st.mtu != opts.MTU {
		err = d.link.set(st, unix.IFLA_MTU, opts.MTU)
		st.mtu = opts.MTU
	}
	if err != nil && opts.MTU != 0 {
		d.file.Close()
		if d.link != nil {
			d.link.close()
		}
		return nil, fmt.Errorf("tun: %s: set the MTU to %d: %w", name, opts.MTU, err)
	}
	d.mtu.Store(int32(st.mtu))
	if err == nil {
		d.adapt(st)
	} else {
		st.up = true // assumed: without rtnetlink nothing would say so
	}
	if vnet && err == nil && !st.up {
		d.probe(fd)
	}
	d.ended.Go(func() { d.listen(st) })
	return d, nil
}

// negotiate asks the kernel for as much as it offers and off doesn't exclude.
func (d *device) negotiate(fd int, off packet.Offload) {
	try := func(mask int) bool { return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, mask) == nil }
	const us = unix.TUN_F_USO4 | unix.TUN_F_USO6 // Linux 6.2; with them came writing merged datagrams
	ts := unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	haveTSO := try(unix.TUN_F_CSUM | ts)
	if !haveTSO {
		ts &^= unix.TUN_F_TSO_ECN
		haveTSO = try(unix.TUN_F_CSUM | ts)
	}
	haveUSO := haveTSO && try(unix.TUN_F_CSUM|ts|us)
	mask := 0
	use := func(o packet.Offload, have bool, bits int) {
		if have && off&o == 0 {
			d.q.set(o, packet.OffloadOn)
			mask |= bits
		}
	}
	use(packet.TSO, haveTSO, unix.TUN_F_CSUM|ts)
	use(packet.USO, haveUSO, unix.TUN_F_CSUM|us)
	use(packet.TCPGRO, true, 0)
	use(packet.UDPGRO, haveUSO, 0)
	if !try(mask) { // USO without TSO, perhaps: a kernel need not like it
		try(0)
		d.q.set(packet.TSO, packet.OffloadOff)
		d.q.set(packet.USO, packet.OffloadOff)
	}
}

// probe finds out whether the kernel takes merged writes, while the interface is down: then it looks at the virtio header
// (EINVAL) before it finds that nothing can be delivered (EIO). The packet has a short tail, which some kernels refuse.
// Should the interface come up now, the packet is from no host and to none.
func (d *device) probe(fd int) {
	for o := range (packet.TCPGRO | packet.UDPGRO).Each() {
		if !d.q.is(o) {
			continue
		}
		if _, err := unix.Write(fd, offload.Probe(o == packet.UDPGRO)); err == unix.EINVAL || err == unix.EOPNOTSUPP {
			d.q.set(o, packet.OffloadWithdrawn)
		}
	}
}

// What a test replaces: the kernel's version, and whether rtnetlink is to be had.
var (
	running  = linux.Running
	openLink = newLink
)

// adapt adapts the offloads to the state of the interface. Merged datagrams that the host forwards are sent as
// super-packets of equal segments, which some kernels corrupt.
func (d *device) adapt(st linkState) {
	d.q.separateUDP.Store(st.forwards && running().CorruptsEqualSegments())
	d.limitSegments(st)
}

// maxSegments is the most segments that UDP_SEGMENT takes in one send, on kernels before 6.9.
const maxSegments = 64

// anySegments is a link's gso_max_segs when it was never set: the kernel's GSO_MAX_SEGS.
const anySegments = 65535

// limitSegments makes the host's TCP build super-packets that fill one super-packet of datagrams each: at an MTU of 1420,
// 45 segments and not 47, of which two would need another send. Not on a router: super-packets that it forwards were
// built elsewhere, and the kernel cuts up one that has too many segments and queues each by itself, which costs far more.
// It is a matter of speed only, so where it can't be done, in another network namespace say, it is not.
func (d *device) limitSegments(st linkState) {
	segments := min(packet.MaxSuperPacket/(st.mtu+packet.Headroom+packet.Tailroom), maxSegments)
	if st.forwards || segments < 2 {
		segments = anySegments
	}
	if d.q.is(packet.TSO) {
		d.link.set(st, unix.IFLA_GSO_MAX_SEGS, segments)
	}
}

// Name implements [Device].
func (d *device) Name() (string, error) {
	name, _, err := ifname(d.rc)
	return name, d.explain(err)
}

// MTU implements [Device]. When the interface is in a network namespace that can't be asked, it is what was known last.
func (d *device) MTU() (int, error) {
	if _, err := d.Name(); err != nil {
		return 0, err
	}
	if d.link != nil {
		if st, err := d.link.state(); err == nil && st.mtu > 0 {
			d.mtu.Store(int32(st.mtu))
			return st.mtu, nil
		}
	}
	if mtu := int(d.mtu.Load()); mtu > 0 {
		return mtu, nil
	}
	return DefaultMTU, nil
}

// Queues implements [Device].
func (d *device) Queues() []Queue { return d.qs[:] }

// Events implements [Device].
func (d *device) Events() <-chan Event { return d.events }

// Offloads implements [Offloader].
func (d *device) Offloads() packet.OffloadStates { return d.q.offloads() }

// Close implements [Device].
func (d *device) Close() error {
	var err error
	if d.closed.CompareAndSwap(false, true) {
		err = d.file.Close()
		d.end()
	}
	d.ended.Wait()
	return err
}

// end ends listen, which closes events.
func (d *device) end() {
	d.ending.Do(func() {
		close(d.stop)
		if d.link != nil {
			d.link.stop()
		}
	})
}

// isGone reports whether the device was closed or the interface deleted; if so it ends listen.
func (d *device) isGone() bool {
	if _, _, err := ifname(d.rc); err == nil {
		return false
	}
	d.end()
	return true
}

// explain returns the error that the caller gets for err, which a call on the descriptor returned.
func (d *device) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case d.closed.Load():
		return errClosed
	case errors.Is(err, unix.EBADFD):
		return errGone
	}
	return fmt.Errorf("tun: %w", err)
}

// listen sends events of changes until the device is closed or the interface is gone. st is the state that the device was
// opened in; for the engine an interface begins down.
func (d *device) listen(st linkState) {
	defer close(d.events)
	if st.up {
		d.send(Up)
	}
	if d.link == nil {
		<-d.stop
		return
	}
	defer d.link.close()
	for {
		// Ask before waiting: something may have changed since st was asked for.
		if d.isGone() {
			return
		}
		if now, err := d.link.state(); err == nil {
			var e Event
			if now.up != st.up {
				e = Down
				if now.up {
					e = Up
				}
			}
			if now.mtu != st.mtu {
				d.mtu.Store(int32(now.mtu))
				e |= MTU
			}
			if now.mtu != st.mtu || now.forwards != st.forwards {
				d.adapt(now)
			}
			st = now
			d.send(e)
		}
		if d.link.wait() != nil {
			return
		}
	}
}

// send sends e, joined to the event that wasn't received yet. It never waits.
func (d *device) send(e Event) {
	if e == 0 {
		return
	}
	select {
	case old := <-d.events:
		if e&(Up|Down) != 0 {
			old &^= Up | Down // the last holds
		}
		e |= old
	default:
	}
	d.events <- e // there is room: this is the only sender
}
