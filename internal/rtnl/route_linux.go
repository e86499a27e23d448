package rtnl

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A Flow is what the kernel looks at to route a UDP datagram.
type Flow struct {
	To, From netip.AddrPort // of one family, unmapped; zones are not looked at
	Mark     uint32
	Bound    uint32 // the index of the link, or of the VRF, that the socket is bound to; 0: any
}

// A Route is where a datagram is routed to.
type Route struct {
	Link  uint32 // the index of the link it leaves by
	Local bool   // it doesn't leave the host
}

// Route asks how a datagram of a flow would be routed now. The error is a unix.Errno when that is the kernel's answer: that
// there is no route, or From isn't an address of the host. It costs two system calls.
func (c *Conn) Route(f *Flow) (Route, error) {
	body, err := c.Exchange(f.ask(), unix.RTM_NEWROUTE)
	if err != nil {
		return Route{}, err
	}
	if r, ok := readRoute(body); ok {
		return r, nil
	}
	return Route{}, errors.New("rtnl: no link in the answer about a route")
}

// ask makes the question. It names protocol and ports, as rules may look at them; kernels before 4.18, where rules can't,
// pass over them.
func (f *Flow) ask() Message {
	to, from := f.To.Addr(), f.From.Addr()
	body := make([]byte, unix.SizeofRtMsg)
	body[0] = unix.AF_INET6
	if to.Is4() {
		body[0] = unix.AF_INET
	}
	body[1], body[2] = byte(to.BitLen()), byte(from.BitLen())
	m := NewMessage(unix.RTM_GETROUTE, unix.NLM_F_REQUEST, body)
	m.Add(unix.RTA_DST, to.WithZone("").AsSlice())
	m.Add(unix.RTA_SRC, from.WithZone("").AsSlice())
	m.Add(unix.RTA_IP_PROTO, []byte{unix.IPPROTO_UDP})
	m.Add(unix.RTA_SPORT, binary.BigEndian.AppendUint16(nil, f.From.Port()))
	m.Add(unix.RTA_DPORT, binary.BigEndian.AppendUint16(nil, f.To.Port()))
	if f.Mark != 0 {
		m.AddUint32(unix.RTA_MARK, f.Mark)
	}
	if f.Bound != 0 {
		m.AddUint32(unix.RTA_OIF, f.Bound)
	}
	return m
}

// readRoute reads a struct rtmsg and its attributes.
func readRoute(body []byte) (r Route, ok bool) {
	if len(body) < unix.SizeofRtMsg {
		return Route{}, false
	}
	r.Local = body[7] == unix.RTN_LOCAL // rtm_type
	r.Link, ok = Uint32(body[unix.SizeofRtMsg:], unix.RTA_OIF)
	return r, ok && r.Link != 0
}
