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

// reply returns an answer with the flags, and n records.
func reply(flags, n string, records string) []byte {
	return []byte("\x00\x07" + flags + "\x00\x01" + n + "\x00\x00\x00\x00" + "\x04both\x04test\x00\x00\x01\x00\x01" + records)
}

const (
	ok    = "\x81\x80"
	alias = "\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x09\x00\x02\xc0\x0c"
	addr  = "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x09\x00\x04\x0a\x00\x00\x01"
	chain = "\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x09\x00\x04\x01a\xc0\x0c" + // both.test is a.both.test
		"\xc0\x27\x00\x05\x00\x01\x00\x00\x00\x09\x00\x04\x01b\xc0\x0c" + // which is b.both.test
		"\xc0\x37\x00\x01\x00\x01\x00\x00\x00\x09\x00\x04\x0a\x00\x00\x01" // whose address this is
	mapped = "\xc0\x0c\x00\x1c\x00\x01\x00\x00\x00\x09\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x00\x00\x01"
	six    = "\x01x\x00\x00\x1c\x00\x01\x00\x00\x00\x09\x00\x10\xfd\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02"
)

func TestQuery(t *testing.T) {
	if got := string(AppendQuery(nil, 7, "both.test.", A, true)); got != query {
		t.Errorf("the query is %q, want %q", got, query)
	}
	plain := strings.Replace(query[:len(query)-11], "\x00\x01\x04both", "\x00\x00\x04both", 1)
	if got := string(AppendQuery(nil, 7, "both.test.", A, false)); got != plain {
		t.Errorf("without EDNS, the query is %q, want %q", got, plain)
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		msg  []byte
		kind uint16
		want string
		err  error
	}{
		{reply(ok, "\x00\x02", alias+addr), A, "10.0.0.1", nil},
		{reply(ok, "\x00\x02", alias+six), AAAA, "fd07::2", nil},
		{reply(ok, "\x00\x02", addr+six), AAAA, "fd07::2", nil},
		{reply(ok, "\x00\x00", ""), A, "", nil},
		{reply("\x81\x83", "\x00\x00", ""), A, "", ErrNoHost},
		{reply("\x81\x82", "\x00\x00", ""), A, "", ErrServer},
		{reply("\x83\x80", "\x00\x00", ""), A, "", ErrTruncated},
		{reply(ok, "\x00\x01", addr[:15]), A, "", ErrServer},
		{reply(ok, "\x00\x01", addr[:9]), A, "", ErrServer},
		{reply(ok, "\x00\x01", "\x40"+addr), A, "", ErrServer},
		{reply(ok, "\x00\x03", chain), A, "10.0.0.1", nil},
		{reply(ok, "\x00\x01", "\xc0\x1b"+addr[2:]), A, "", ErrServer},            // a name that points to itself
		{reply(ok, "\x00\x01", "\xc0\x1d\xc0\x1b"+addr[2:]), A, "", ErrServer},    // two that point to each other
		{reply(ok, "\x00\x01", "\xff\xff"+addr[2:]), A, "", ErrServer},            // one that points out of the message
		{reply(ok, "\x00\x02", addr), A, "", ErrServer},                           // fewer records than are announced
		{reply(ok, "\x00\x01", addr[:11]+"\x05"+addr[12:]+"x"), A, "", ErrServer}, // longer than an address
		{reply(ok, "\x00\x01", addr[:11]+"\x03"+addr[12:15]), A, "", ErrServer},   // shorter
		{reply(ok, "\x00\x01", addr[:11]+"\x10"+addr[12:]), A, "", ErrServer},     // longer than the message
		{reply(ok, "\x00\x01", alias[:11]+"\x10"+alias[12:]), A, "", ErrServer},   // likewise, and to be skipped
		{reply(ok, "\x00\x01", addr[:5]+"\x03"+addr[6:]), A, "", nil},             // of another class
		{reply(ok, "\x00\x01", mapped), AAAA, "", nil},
		{reply(ok, "\x00\x01", "\xc0"), A, "", ErrServer},
		{reply(ok, "\x00\x01", strings.Replace(six, "\x00\x1c", "\x00\x01", 1)), A, "", ErrServer},
		{reply(ok, "\x00\x01", "")[:20], A, "", ErrServer},
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
	right := reply(ok, "\x00\x01", addr)
	if !IsAnswer(right, 7, "BOTH.test", A) {
		t.Error("the answer isn't accepted")
	}
	if IsAnswer(right, 8, "both.test", A) || IsAnswer(right, 7, "both.tesT.x", A) || IsAnswer(right, 7, "both.test", AAAA) ||
		IsAnswer([]byte(query), 7, "both.test", A) || IsAnswer(right[:20], 7, "both.test", A) {
		t.Error("a message that isn't an answer to the question is accepted")
	}
	for what, msg := range map[string]string{
		"two questions":             strings.Replace(string(right), "\x00\x01", "\x00\x02", 1),
		"no question":               strings.Replace(string(right), "\x00\x01", "\x00\x00", 1),
		"another class":             string(right[:25]) + "\x00\x03" + string(right[27:]),
		"a question cut short":      string(right[:26]),
		"a name that points there":  string(right[:12]) + "\xc0\x0c\x00\x01\x00\x01",
		"letters that fold to ours": strings.Replace(string(right), "\x04both\x04test", "\x04both\x05te\u017ft", 1),
	} {
		if IsAnswer([]byte(msg), 7, "both.test", A) {
			t.Errorf("%s: it is accepted as the answer", what)
		}
	}
	// Both names have as many bytes, and Unicode folds one to the other.
	kelvin := []byte("\x00\x07\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00" + "\x05k\u212as\x00\x00\x01\x00\x01")
	if IsAnswer(kelvin, 7, "\u212aks", A) {
		t.Error("letters beyond ASCII are folded")
	}
}

func FuzzAnswer(f *testing.F) {
	for _, records := range []string{"", addr, six, alias + addr, chain, mapped, "\xc0\x1b" + addr[2:]} {
		f.Add(reply(ok, "\x00\x01", records))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		for _, kind := range []uint16{A, AAAA} {
			if IsAnswer(msg, 7, "both.test", kind) && RefusesEDNS(msg, 7, "both.test", kind) && msg[3]&15 != 1 && msg[3]&15 != 4 {
				t.Error("another code refuses EDNS")
			}
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
