package socks5

import (
	"bytes"
	"io"
	"net/netip"
	"strings"
	"testing"
)

func TestReadRequest(t *testing.T) {
	for _, tt := range []struct {
		in, address string
		cmd         byte
		err         error
	}{
		{"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50", "127.0.0.1:80", 1, nil},
		{"\x05\x03\x00\x04" + strings.Repeat("\x00", 15) + "\x01\x01\xbb", "[::1]:443", 3, nil},
		{"\x05\x01\x00\x04" + strings.Repeat("\x00", 10) + "\xff\xff\x01\x02\x03\x04\x00\x01", "1.2.3.4:1", 1, nil},
		{"\x05\x01\x00\x03\x01a\x00\x50", "a:80", 1, nil},
		{"\x05\x01\x00\x03\xff" + strings.Repeat("a", 255) + "\x00\x50", strings.Repeat("a", 255) + ":80", 1, nil},
		{"\x05\x01\x00\x03\x00\x00\x50", "", 1, ErrName},
		{"\x05\x01\x00\x03\x02a \x00\x50", "", 1, ErrName},
		{"\x05\x01\x00\x02\x00", "", 0, ErrAddressType},
		{"\x04\x01\x00\x01\x7f", "", 0, ErrVersion},
		{"\x05\x01\x00", "", 0, io.ErrUnexpectedEOF},
		{"\x05\x01\x00\x01\x7f\x00", "", 0, io.ErrUnexpectedEOF},
		{"", "", 0, io.EOF},
	} {
		r := strings.NewReader(tt.in + "rest")
		if tt.err == io.EOF || tt.err == io.ErrUnexpectedEOF {
			r = strings.NewReader(tt.in)
		}
		cmd, address, err := ReadRequest(r)
		if cmd != tt.cmd || address != tt.address || err != tt.err {
			t.Errorf("%q: %d, %q, %v; want %d, %q, %v", tt.in, cmd, address, err, tt.cmd, tt.address, tt.err)
		}
		if rest, _ := io.ReadAll(r); tt.err == nil && string(rest) != "rest" {
			t.Errorf("%q: %q is left to read", tt.in, rest)
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add([]byte("\x05\x02\x00\x02"))
	f.Add([]byte("\x01\x04user\x04pass"))
	f.Add([]byte("\x05\x01\x00\x03\x01a\x00\x50"))
	f.Add([]byte("\x00\x00\x00\x01\x7f\x00\x00\x01\x00\x50data"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		if m, err := ReadMethods(r); err == nil && (len(m) != int(b[1]) || r.Len() != len(b)-2-len(m)) {
			t.Fatalf("%d methods, %d bytes left", len(m), r.Len())
		}
		r.Reset(b)
		if u, p, err := ReadLogin(r); err == nil && r.Len() != len(b)-3-len(u)-len(p) {
			t.Fatalf("%q %q, %d bytes left", u, p, r.Len())
		}
		r.Reset(b)
		if cmd, address, err := ReadRequest(r); err == nil && (cmd != b[1] || address == "") {
			t.Fatalf("%d %q", cmd, address)
		}
		address, data, err := ParseDatagram(b)
		if err != nil {
			return
		}
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return // a name
		}
		again := append(AppendHeader(nil, ap), data...)
		a2, d2, err := ParseDatagram(again)
		back, _ := netip.ParseAddrPort(a2) // a name may spell an address in another way
		if err != nil || back != netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port()) || !bytes.Equal(d2, data) {
			t.Fatalf("%q %q became %q %q, %v", address, data, a2, d2, err)
		}
	})
}
