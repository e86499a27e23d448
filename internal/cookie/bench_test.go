package cookie

import (
	"bytes"
	"testing"
	"unsafe"

	"throughline/internal/wire"
)

// A Jar exists for every peer, idle ones too.
func TestJarIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(Jar{}); n > 48 {
		t.Errorf("a Jar has %d bytes, and the package comment says 48", n)
	}
}

func TestAllocs(t *testing.T) {
	c, j, keys := withCookie(t, start, v4)
	msg, reply, rnd := initiation(), make([]byte, wire.CookieReplySize), random()
	j.AddMACs(start, keys, msg)
	bad := bytes.Clone(msg)
	bad[wire.InitiationMAC1]++
	none := bytes.Clone(msg)
	clear(mac2Of(none))
	for _, tt := range []struct {
		name string
		f    func()
		max  float64
	}{
		{"CheckMAC1", func() { c.CheckMAC1(msg) }, 0},
		{"CheckMAC1 of a forgery", func() { c.CheckMAC1(bad) }, 0},
		{"CheckMAC1 of a short message", func() { c.CheckMAC1(msg[:50]) }, 0},
		{"CheckMAC2 of a zero mac2", func() { c.CheckMAC2(start, none, v4) }, 0},
		{"CheckMAC2", func() { c.CheckMAC2(start, msg, v4) }, 5},
		{"Reply", func() { c.Reply(start, reply, msg, v4, rnd) }, 5},
	} {
		if n := testing.AllocsPerRun(1000, tt.f); n > tt.max {
			t.Errorf("%s: %v allocations, want at most %v", tt.name, n, tt.max)
		}
	}
}

func BenchmarkCheckMAC1(b *testing.B) {
	c, j, keys := withCookie(b, start, v4)
	msg := initiation()
	j.AddMACs(start, keys, msg)
	b.ReportAllocs()
	for b.Loop() {
		c.CheckMAC1(msg)
	}
}

func BenchmarkCheckMAC2(b *testing.B) {
	c, j, keys := withCookie(b, start, v4)
	msg := initiation()
	j.AddMACs(start, keys, msg)
	b.ReportAllocs()
	for b.Loop() {
		c.CheckMAC2(start, msg, v4)
	}
}

func BenchmarkReply(b *testing.B) {
	c, j, keys := withCookie(b, start, v4)
	msg, reply, rnd := initiation(), make([]byte, wire.CookieReplySize), random()
	j.AddMACs(start, keys, msg)
	b.ReportAllocs()
	for b.Loop() {
		c.Reply(start, reply, msg, v4, rnd)
	}
}
