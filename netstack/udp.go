package netstack

import (
	"bytes"
	"errors"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// A udpConn is a UDP socket, connected or not.
type udpConn struct {
	socket
	family tcpip.NetworkProtocolNumber
	size   int64 // of the receive buffer, in bytes, as reserved
}

var (
	_ net.Conn       = (*udpConn)(nil)
	_ net.PacketConn = (*udpConn)(nil)
)

// Close closes the socket, and returns its receive buffer to the budget.
func (c *udpConn) Close() error {
	err := c.socket.Close()
	if err == nil {
		c.s.receive.Close(c.size)
	}
	return err
}

// Read implements net.Conn.
func (c *udpConn) Read(b []byte) (int, error) {
	n, _, err := c.ReadFromUDPAddrPort(b)
	return n, err
}

// ReadFrom implements net.PacketConn. The end of a datagram longer than b is lost.
func (c *udpConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// ReadFromUDPAddrPort is ReadFrom without the allocation of an address.
func (c *udpConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		if err := c.check(&c.rd); err != nil {
			return 0, netip.AddrPort{}, c.fail("read", err)
		}
		w := tcpip.SliceWriter(b)
		res, err := c.ep.Read(&w, tcpip.ReadOptions{NeedRemoteAddr: true})
		switch err.(type) {
		case nil, *tcpip.ErrBadBuffer: // the latter for an empty b
			c.in.NotifyEvent(0) // there may be another datagram, and another goroutine that waits for it
			return res.Count, addrPort(res.RemoteAddr), nil
		case *tcpip.ErrWouldBlock:
			if err := c.wait(c.in, &c.rd); err != nil {
				return 0, netip.AddrPort{}, c.fail("read", err)
			}
		case *tcpip.ErrClosedForReceive:
			return 0, netip.AddrPort{}, c.fail("read", net.ErrClosed)
		default:
			return 0, netip.AddrPort{}, c.fail("read", c.cause(err))
		}
	}
}

// Write implements net.Conn.
func (c *udpConn) Write(b []byte) (int, error) { return c.write(b, tcpip.WriteOptions{}, c.remote) }

// WriteTo implements net.PacketConn. The address must be a *net.UDPAddr.
func (c *udpConn) WriteTo(b []byte, to net.Addr) (int, error) {
	u, ok := to.(*net.UDPAddr)
	if !ok || u == nil {
		return 0, opError("write", c.network, c.local, to, errors.New("not a UDP address"))
	}
	return c.WriteToUDPAddrPort(b, u.AddrPort())
}

// WriteToUDPAddrPort is WriteTo without the allocation of an address.
func (c *udpConn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if c.remote != nil {
		return 0, opError("write", c.network, c.local, net.UDPAddrFromAddrPort(to), net.ErrWriteToConnected)
	}
	if !to.Addr().IsValid() || to.Addr().Unmap().Is6() && c.family != ip6 {
		return 0, opError("write", c.network, c.local, net.UDPAddrFromAddrPort(to), errNoFamily)
	}
	dst := fullAddress(to, c.family)
	return c.write(b, tcpip.WriteOptions{To: &dst}, nil)
}

// write sends a datagram. to is its destination, for errors; nil stands for that in o.
func (c *udpConn) write(b []byte, o tcpip.WriteOptions, to net.Addr) (int, error) {
	for {
		if err := c.check(&c.wd); err != nil {
			return 0, opError("write", c.network, c.local, to, err)
		}
		var from bytes.Reader
		from.Reset(b)
		n, err := c.ep.Write(&from, o)
		switch err.(type) {
		case nil:
			return int(n), nil
		case *tcpip.ErrWouldBlock:
			if err := c.wait(c.out, &c.wd); err != nil {
				return 0, opError("write", c.network, c.local, to, err)
			}
		default:
			if to == nil && o.To != nil {
				to = net.UDPAddrFromAddrPort(addrPort(*o.To))
			}
			return 0, opError("write", c.network, c.local, to, c.cause(err))
		}
	}
}
