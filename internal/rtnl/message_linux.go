// Package rtnl speaks rtnetlink(7) with Linux: a [Conn] makes requests, [Events] receive the kernel's notifications, and a
// [Watch] receives those of all that may change routes, and looks a route up.
//
// All belong to the network namespace of the thread that opened them, whichever thread uses them later.
//
// Concurrency: a Conn and a Watch may be used by any number of goroutines; requests go one after the other. Events have one
// reader at a time. A Watch has one goroutine, which Close waits for.
//
// Limits: an answer is at most 16 KiB and is waited for 2 s at most; a Watch tells of changes once a second at most.
package rtnl

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// typeMask leaves out an attribute's flags. Linux, include/uapi/linux/netlink.h.
const typeMask = 0x3fff

// A Message is a request being made: a header, a body, and attributes.
type Message []byte

// NewMessage begins a message with the body of its type.
func NewMessage(typ, flags uint16, body []byte) Message {
	m := make(Message, unix.SizeofNlMsghdr, 128)
	binary.NativeEndian.PutUint16(m[4:], typ)
	binary.NativeEndian.PutUint16(m[6:], flags)
	return append(m, body...)
}

// Add adds an attribute.
func (m *Message) Add(typ uint16, v []byte) {
	h := make([]byte, unix.SizeofRtAttr)
	binary.NativeEndian.PutUint16(h, uint16(len(h)+len(v)))
	binary.NativeEndian.PutUint16(h[2:], typ)
	*m = append(append(*m, h...), v...)
	for len(*m)%unix.NLMSG_ALIGNTO != 0 {
		*m = append(*m, 0)
	}
}

// AddUint32 adds an attribute that is a number.
func (m *Message) AddUint32(typ uint16, v uint32) {
	m.Add(typ, binary.NativeEndian.AppendUint32(nil, v))
}

// finish makes the message whole.
func (m Message) finish(seq uint32) []byte {
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	binary.NativeEndian.PutUint32(m[8:], seq)
	return m
}

// Attr returns the value of the first attribute of a type in b, or nil.
func Attr(b []byte, typ uint16) []byte {
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return nil
		}
		if binary.NativeEndian.Uint16(b[2:])&typeMask == typ {
			return b[unix.SizeofRtAttr:n]
		}
		b = b[min(len(b), (n+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
	}
	return nil
}

// Uint32 returns the attribute of a type in b that is a number, and whether there is one.
func Uint32(b []byte, typ uint16) (v uint32, ok bool) {
	if a := Attr(b, typ); len(a) >= 4 {
		return binary.NativeEndian.Uint32(a), true
	}
	return 0, false
}

// answer reads a message that came: mine says that it is the answer to request seq. Then body is what the answer holds, of
// the type that was wanted, or nil for an acknowledgment; err is a unix.Errno when it is what the kernel answered.
func answer(b []byte, seq uint32, want uint16) (body []byte, mine bool, err error) {
	if len(b) < unix.SizeofNlMsghdr || binary.NativeEndian.Uint32(b[8:]) != seq {
		return nil, false, nil
	}
	n := binary.NativeEndian.Uint32(b)
	if n < unix.SizeofNlMsghdr || uint64(n) > uint64(len(b)) {
		return nil, true, fmt.Errorf("rtnl: answer of %d bytes says it has %d", len(b), n)
	}
	body = b[unix.SizeofNlMsghdr:n]
	switch typ := binary.NativeEndian.Uint16(b[4:]); {
	case typ == unix.NLMSG_ERROR && len(body) >= 4:
		if e := int32(binary.NativeEndian.Uint32(body)); e != 0 {
			return nil, true, unix.Errno(-e)
		}
		return nil, true, nil
	case typ == want && typ != unix.NLMSG_ERROR:
		return body, true, nil
	default:
		return nil, true, fmt.Errorf("rtnl: answer of type %d", typ)
	}
}
