package dns

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// query is a whole query for the addresses of "both.test".
const query = "\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01" + "\x04both\x04test\x00" + "\x00\x01\x00\x01" +
	"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"

// said returns an answer with the flags, and n records.
func said(flags, n string, records string) []byte {
	return []byte("\x00\x07" + flags + "\x00\x01" + n + "\x00\x00\x00\x00" + "\x04both\x04test\x00\x00\x01\x00\x01" + records)
}

const (
	ok    = "\x81\x80"
	alias = "\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x09\x00\x02\xc0\x0c"
	addr  = "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x09\x00\x04\x0a\x00\x00\x01"
	six   = "\x01x\x00\x00\x1c\x00\x01\x00\x00\x00\x09\x00\x10\xfd\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02"
)

func TestQuery(t *testing.T) {
	if got := string(AppendQuery(nil, 7, "both.test.", A)); got != query {
		t.Errorf("the query is %q, want %q", got, query)
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		msg  []byte
		kind uint16
		want string
		err  error
	}{
		{said(ok, "\x00\x02", alias+addr), A, "10.0.0.1", nil},
		{said(ok, "\x00\x02", alias+six), AAAA, "fd07::2", nil},
		{said(ok, "\x00\x02", addr+six), AAAA, "fd07::2", nil},
		{said(ok, "\x00\x00", ""), A, "", nil},
		{said("\x81\x83", "\x00\x00", ""), A, "", ErrNoHost},
		{said("\x81\x82", "\x00\x00", ""), A, "", ErrServer},
		{said("\x83\x80", "\x00\x00", ""), A, "", ErrTruncated},
		{said(ok, "\x00\x01", addr[:15]), A, "", ErrServer},
		{said(ok, "\x00\x01", addr[:9]), A, "", ErrServer},
		{said(ok, "\x00\x01", "\x40"+addr), A, "", ErrServer},
		{said(ok, "\x00\x01", "\xc0"), A, "", ErrServer},
		{said(ok, "\x00\x01", strings.Replace(six, "\x00\x1c", "\x00\x01", 1)), A, "", ErrServer},
		{said(ok, "\x00\x01", "")[:20], A, "", ErrServer},
		{nil, A, "", ErrServer},
	} {
		ips, err := Parse(c.msg, c.kind)
		var words []string
		for _, ip := range ips {
			words = append(words, ip.String())
		}
		if got := strings.Join(words, " "); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%q: %q and %v, want %q and %v", c.msg, got, err, c.want, c.err)
		}
	}
}

func TestIsAnswer(t *testing.T) {
	right := said(ok, "\x00\x01", addr)
	if !IsAnswer(right, 7, "BOTH.test", A) {
		t.Error("the answer isn't taken")
	}
	if IsAnswer(right, 8, "both.test", A) || IsAnswer(right, 7, "both.tesT.x", A) || IsAnswer(right, 7, "both.test", AAAA) ||
		IsAnswer([]byte(query), 7, "both.test", A) || IsAnswer(right[:20], 7, "both.test", A) {
		t.Error("what is no answer to the question is taken")
	}
}

func FuzzAnswer(f *testing.F) {
	for _, records := range []string{"", addr, six, alias + addr} {
		f.Add(said(ok, "\x00\x01", records))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		for _, kind := range []uint16{A, AAAA} {
			IsAnswer(msg, 7, "both.test", kind)
			ips, err := Parse(msg, kind)
			if err != nil && ips != nil {
				t.Error("addresses and an error")
			}
			if slices.ContainsFunc(ips, func(ip netip.Addr) bool { return !ip.IsValid() || ip.Is4() != (kind == A) }) {
				t.Errorf("of kind %d: %v", kind, ips)
			}
		}
	})
}
