package rtnl

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// said is a message as the kernel says it.
func said(typ uint16, seq uint32, body []byte) []byte { return NewMessage(typ, 0, body).finish(seq) }

// errno is the body of an NLMSG_ERROR.
func errno(e unix.Errno) []byte {
	return binary.NativeEndian.AppendUint32(nil, uint32(-int32(e)))
}

func TestAnswer(t *testing.T) {
	const seq, want = 7, unix.RTM_NEWROUTE
	ours := said(want, seq, []byte("body"))
	resized := func(n uint32) []byte {
		b := bytes.Clone(ours)
		binary.NativeEndian.PutUint32(b, n)
		return b
	}
	for name, c := range map[string]struct {
		b    []byte
		body string
		mine bool
		err  string
	}{
		"nothing":               {},
		"less than a header":    {b: ours[:unix.SizeofNlMsghdr-1]},
		"of another request":    {b: said(want, seq-1, []byte("body"))},
		"the answer":            {b: ours, body: "body", mine: true},
		"more behind it":        {b: append(bytes.Clone(ours), ours...), body: "body", mine: true},
		"without body":          {b: said(want, seq, nil), mine: true},
		"cut off":               {b: ours[:len(ours)-1], mine: true, err: "rtnl: answer of 19 bytes says it has 20"},
		"length below a header": {b: resized(unix.SizeofNlMsghdr - 1), mine: true, err: "rtnl: answer of 20 bytes says it has 15"},
		"length of all ones":    {b: resized(1<<32 - 1), mine: true, err: "rtnl: answer of 20 bytes says it has 4294967295"},
		"of another type":       {b: said(unix.RTM_NEWLINK, seq, []byte("body")), mine: true, err: "rtnl: answer of type 16"},
		"refused":               {b: said(unix.NLMSG_ERROR, seq, errno(unix.ENETUNREACH)), mine: true, err: unix.ENETUNREACH.Error()},
		"refused without why":   {b: said(unix.NLMSG_ERROR, seq, make([]byte, 3)), mine: true, err: "rtnl: answer of type 2"},
		"acknowledged":          {b: said(unix.NLMSG_ERROR, seq, errno(0)), mine: true},
	} {
		body, mine, err := answer(c.b, seq, want)
		if string(body) != c.body || mine != c.mine || (err != nil || c.err != "") && fmt.Sprint(err) != c.err {
			t.Errorf("%s: %q, %t, %v", name, body, mine, err)
		}
		if _, bare := err.(unix.Errno); bare != (name == "refused") {
			t.Errorf("%s: %T", name, err)
		}
	}
}

func TestAttr(t *testing.T) {
	m := NewMessage(0, 0, nil)
	m.Add(1, []byte("one"))
	m.Add(2|1<<15, []byte("nested"))
	m.Add(3, nil)
	m.AddUint32(4, 0x01020304)
	m.Add(1, []byte("again"))
	b := []byte(m[unix.SizeofNlMsghdr:])
	for typ, want := range map[uint16]string{1: "one", 2: "nested", 3: "", 5: ""} {
		if got := Attr(b, typ); string(got) != want || (got == nil) != (typ == 5) {
			t.Errorf("attribute %d: %q", typ, got)
		}
	}
	if v, ok := Uint32(b, 4); v != 0x01020304 || !ok {
		t.Errorf("number: %#x, %t", v, ok)
	}
	if v, ok := Uint32(b, 1); ok {
		t.Errorf("three bytes are the number %#x", v)
	}
	for n := range b { // cut off anywhere, it holds what is whole
		if got := Attr(b[:n], 1); (string(got) == "one") != (n >= 7) {
			t.Errorf("of %d bytes: %q", n, got)
		}
		if got := Attr(b[:n], 2); (string(got) == "nested") != (n >= 18) {
			t.Errorf("of %d bytes: %q", n, got)
		}
	}
	for _, n := range []uint16{0, 3, 200, 1<<16 - 1} { // lengths that lead back, nowhere and out
		bad := bytes.Clone(b)
		binary.NativeEndian.PutUint16(bad[8:], n)
		if got := Attr(bad, 4); got != nil {
			t.Errorf("behind an attribute of length %d: %q", n, got)
		}
	}
}

// FuzzAnswer reads anything as an answer, and looks for its attributes one after the other.
func FuzzAnswer(f *testing.F) {
	m := NewMessage(unix.RTM_NEWROUTE, 0, make([]byte, unix.SizeofRtMsg))
	m.AddUint32(unix.RTA_OIF, 3)
	m.Add(unix.RTA_DST, []byte{192, 0, 2, 1})
	f.Add([]byte(m.finish(7)))
	f.Add(said(unix.NLMSG_ERROR, 7, errno(unix.ENETUNREACH)))
	f.Fuzz(func(t *testing.T, b []byte) {
		body, mine, err := answer(b, 7, unix.RTM_NEWROUTE)
		if len(body) > len(b) || body != nil && (!mine || err != nil) {
			t.Fatalf("% x: % x, %t, %v", b, body, mine, err)
		}
		if len(body) < unix.SizeofRtMsg {
			return
		}
		readRoute(body)
		attrs := body[unix.SizeofRtMsg:]
		for typ := range uint16(32) {
			got, at := Attr(attrs, typ), 0
			for at+4 <= len(attrs) { // the slow way: one after the other
				n := int(binary.NativeEndian.Uint16(attrs[at:]))
				if n < 4 || at+n > len(attrs) {
					at = len(attrs)
				} else if binary.NativeEndian.Uint16(attrs[at+2:])&typeMask == typ {
					break
				} else {
					at += (n + 3) / 4 * 4
				}
			}
			if found := at+4 <= len(attrs); found != (got != nil) {
				t.Fatalf("% x: attribute %d: % x", attrs, typ, got)
			}
		}
	})
}
