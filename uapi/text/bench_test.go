package text

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"throughline/wgtypes"
)

// manyPeers returns a configuration of n peers with all a peer can have and four allowed IPs each.
func manyPeers(n int) wgtypes.Config {
	cfg := wgtypes.Config{PrivateKey: new(key[wgtypes.PrivateKey](1)), ReplacePeers: true}
	for i := range n {
		b := [4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}
		p := wgtypes.PeerConfig{
			PresharedKey:        new(key[wgtypes.PresharedKey](byte(i))),
			Endpoint:            new(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 51820)),
			PersistentKeepalive: new(25 * time.Second),
			ReplaceAllowedIPs:   true,
			AllowedIPs: []netip.Prefix{
				netip.PrefixFrom(netip.AddrFrom4(b), 32),
				netip.MustParsePrefix(fmt.Sprintf("fd00:%x:%x::/64", i>>16, i&0xffff)),
				netip.PrefixFrom(netip.AddrFrom4([4]byte{172, b[1], b[2], b[3]}), 32),
				netip.PrefixFrom(netip.AddrFrom4([4]byte{100, b[1], b[2], b[3]}), 32),
			},
		}
		copy(p.PublicKey[:], b[:])
		p.PublicKey[31] = 1
		cfg.Peers = append(cfg.Peers, p)
	}
	return cfg
}

func BenchmarkReadConfig(b *testing.B) {
	const peers = 100_000
	cfg := manyPeers(peers)
	var text bytes.Buffer
	if err := WriteConfig(&text, &cfg); err != nil {
		b.Fatal(err)
	}
	n := bytes.Count(text.Bytes(), []byte("\n"))
	r := bufio.NewReaderSize(nil, 16<<10)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b.SetBytes(int64(text.Len()))
	for b.Loop() {
		r.Reset(bytes.NewReader(text.Bytes()))
		if _, err := ReadConfig(r); err != nil {
			b.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/line")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(b.N)/peers, "allocs/peer")
}

func BenchmarkWriteStatus(b *testing.B) {
	st := statusOf(manyPeers(100_000))
	for b.Loop() {
		if err := WriteStatus(io.Discard, &st); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadStatus(b *testing.B) {
	st := statusOf(manyPeers(100_000))
	var text bytes.Buffer
	if err := WriteStatus(&text, &st); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(text.Len()))
	for b.Loop() {
		if _, err := ReadStatus(bufio.NewReaderSize(bytes.NewReader(text.Bytes()), 16<<10)); err != nil {
			b.Fatal(err)
		}
	}
}
