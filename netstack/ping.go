package netstack

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
)

// Ping sends one ICMP echo request to a host through the tunnel and waits for the reply until ctx ends. It returns the
// round-trip time. An error is a *net.OpError.
func (s *Stack) Ping(ctx context.Context, to netip.Addr) (time.Duration, error) {
	to = to.Unmap().WithZone("")
	fail := func(err error) (time.Duration, error) {
		return 0, opError("ping", "ip", nil, &net.IPAddr{IP: to.AsSlice()}, err)
	}
	if !to.IsValid() {
		return fail(errors.New("no address"))
	}
	proto, kind := icmp.ProtocolNumber4, byte(header.ICMPv4Echo)
	reply := byte(header.ICMPv4EchoReply)
	if to.Is6() {
		proto, kind, reply = icmp.ProtocolNumber6, byte(header.ICMPv6EchoRequest), byte(header.ICMPv6EchoReply)
	}
	ep, wq, err := s.endpoint(proto, protocol(to))
	if err != nil {
		return fail(err)
	}
	c := new(socket)
	c.init(s, ep, wq, "ip")
	defer c.Close()
	defer c.rd.WithContext(ctx)()
	if err := s.register(func() tcpip.Error { return ep.Connect(fullAddress(netip.AddrPortFrom(to, 0), protocol(to))) }); err != nil {
		return fail(netError(err))
	}
	// Type, code, checksum and identifier, the last two filled in by gVisor; sequence number 1; and random bytes by which the
	// reply is recognised.
	msg := append([]byte{kind, 0, 0, 0, 0, 0, 0, 1}, make([]byte, 16)...)
	rand.Read(msg[8:])
	begin := time.Now()
	if _, err := ep.Write(bytes.NewReader(msg), tcpip.WriteOptions{}); err != nil {
		return fail(netError(err))
	}
	buf := make([]byte, len(msg)+1)
	for {
		w := tcpip.SliceWriter(buf)
		res, err := ep.Read(&w, tcpip.ReadOptions{})
		switch err.(type) {
		case nil, *tcpip.ErrBadBuffer: // the latter for a reply longer than buf
			if res.Count == len(msg) && buf[0] == reply && bytes.Equal(buf[6:len(msg)], msg[6:]) {
				return time.Since(begin), nil
			}
		case *tcpip.ErrWouldBlock:
			if err := c.wait(c.in, &c.rd); err != nil {
				if ctx.Err() != nil {
					err = mapContext(ctx)
				}
				return fail(err)
			}
		default:
			return fail(c.cause(err))
		}
	}
}
