package udp

import (
	"math"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"throughline/packet"
)

// What an errno leads to. A send is a datagram or a super-packet of several. To replan is to plan again from the send
// that was refused, with what was learned; those before it were sent, and aren't sent twice.
//
//	sendmmsg refuses a send with
//	  EINTR                                call again (send_linux.go)
//	  EAGAIN                               wait until the socket is writable, call again (send_linux.go)
//	  ENOBUFS, ENOMEM                      pause and call again, maxTries times; then drop
//	  ECONNREFUSED                         call again, maxTries times; then drop
//	  EIO            a super-packet        no more super-packets from this socket; replan
//	                 a datagram            drop
//	  EMSGSIZE       a super-packet        for refusalLife none of that segment size to this endpoint; replan
//	                 a datagram            drop
//	  ENETUNREACH, EHOSTUNREACH,
//	  EADDRNOTAVAIL,
//	  ENODEV         with a source         replan without the source
//	                 without               drop
//	  EACCES, ENETDOWN, EAFNOSUPPORT       drop
//	  EINVAL, EPERM, any other             look for the cause:
//
//	      tried, one after the other       when it leaves
//	      super-packet, with the source    nothing is wrong
//	        | refused
//	        v
//	      datagram, with the source        it was the super-packet: for refusalLife none of that segment size to this
//	        | refused                      endpoint; and none at all from this socket after maxRefusals such endpoints,
//	        v                              if no super-packet left meanwhile
//	      super-packet, without source     it was the source
//	        | refused
//	        v
//	      datagram, without source         it was both
//	        | refused
//	        v
//	      drop
//
//	    What has no source, or is no super-packet, begins further down.
//
// To drop is to mark the send's packets DropSend and to go on behind it. Send returns the first such error when all was
// tried. When a send left without the source that was asked for, Send clears the source in the run's Endpoint. A run of a
// family that has no socket is dropped whole, with EAFNOSUPPORT (host.go).
//
//	recvmsg and recvmmsg fail with (recv_linux.go)
//	  EAGAIN                               return what was received; if that is nothing, wait until there is something
//	  EINTR, or a send's ICMP error        call again; after receiveTries such calls check whether the socket is closed
//	  any other                            return what was received; if that is nothing the error, and the caller waits
//	                                       a little and calls again
//
// net.ErrClosed, which is no errno, drops all that is yet to be sent, and ends a receiver.

// refused is what is to be done differently, in this call of Send, for one run: the last of which a send was refused.
type refused struct {
	run     int
	limit   int  // no super-packets of this size or more
	suspect int  // when not 0: a super-packet of this size was refused, so limit was set, but the cause may be another
	src     bool // no source
	tries   int  // retries since a send left
}

var noneRefused = refused{run: -1, limit: noLimit}

const (
	noLimit = math.MaxInt // super-packets may be of any size

	// maxTries bounds the retries of a send: with the pauses between, well under a millisecond.
	maxTries = 3
	tryPause = 50 * time.Microsecond

	// maxRefusals is how many destinations may refuse super-packets with EINVAL, none taking one meanwhile, before
	// super-packets are given up altogether: it is the driver, not the paths.
	maxRefusals = 8
)

// An outcome is what to do about a send that the kernel refused.
type outcome int

const (
	giveUp outcome = iota
	retry          // as it is
	replan         // plan again from its first packet, with what was learned
)

// decide returns what to do about sends[i], which the kernel refused. It returns replan only after it has denied the run
// something, a source, a size of super-packets or all of them, so that the retries end; the one time it allows
// super-packets again is when it denies the source.
//
// EINVAL says little: before 6.14 that a segment is too large for the path, with some drivers that they don't segment,
// with a source that it is not ours. Datagrams with the source are tried first; if they leave it was the super-packet.
func (x *sender) decide(i int, errno syscall.Errno) outcome {
	m := &x.sends[i]
	if x.refused.run != m.run {
		x.refused = noneRefused
		x.refused.run = m.run
	}
	r := &x.refused
	to := x.b.Runs[m.run].Endpoint.Addr
	switch errno {
	case unix.ENOBUFS, unix.ENOMEM:
		if r.tries == maxTries {
			return giveUp
		}
		time.Sleep(tryPause << r.tries)
		r.tries++
		return retry

	case unix.ECONNREFUSED: // an ICMP error that answers something sent earlier; reported once
		if r.tries == maxTries {
			return giveUp
		}
		r.tries++
		return retry

	case unix.EIO: // the outgoing link can't compute checksums, or encrypts (IPsec): no super-packets
		if m.segment > 0 {
			x.s.gso.CompareAndSwap(uint32(packet.OffloadOn), uint32(packet.OffloadWithdrawn))
			return replan
		}

	case unix.EMSGSIZE:
		if m.segment > 0 {
			x.s.refusing.add(to, m.segment)
			r.limit = m.segment
			return replan
		}

	case unix.ENETUNREACH, unix.EADDRNOTAVAIL, unix.ENODEV, unix.EHOSTUNREACH:
		if m.src {
			r.src = true
			return replan
		}

	case unix.EACCES, unix.ENETDOWN, unix.EAFNOSUPPORT: // a super-packet's datagrams would fare no better

	default: // EINVAL; EPERM of a firewall, which may look at the length; and what a driver may think of
		if m.segment > 0 {
			r.limit, r.suspect = m.segment, m.segment
			return replan
		}
		if m.src {
			r.src = true
			r.limit, r.suspect = noLimit, 0
			return replan
		}
	}
	return giveUp
}

// transmitted draws the conclusions from sends[i:j], which the kernel took.
func (x *sender) transmitted(i, j int) {
	if x.s.refusals.Load() > 0 {
		for k := i; k < j; k++ {
			if x.sends[k].segment > 0 {
				x.s.refusals.Store(0)
				break
			}
		}
	}
	r := &x.refused
	if r.run < 0 {
		return
	}
	r.tries = 0
	for k := i; k < j; k++ {
		m := &x.sends[k]
		if m.run != r.run {
			continue
		}
		e := &x.b.Runs[m.run].Endpoint
		if r.suspect > 0 && m.segment == 0 { // so it was the super-packet
			x.s.refusing.add(e.Addr, r.suspect)
			r.suspect = 0
			if x.s.refusals.Add(1) >= maxRefusals {
				x.s.gso.CompareAndSwap(uint32(packet.OffloadOn), uint32(packet.OffloadWithdrawn))
			}
		}
		if r.src && !m.src { // so it was the source
			forgetSource(e)
		}
	}
}

func forgetSource(e *packet.Endpoint) { e.Src, e.SrcIf = netip.Addr{}, 0 }
