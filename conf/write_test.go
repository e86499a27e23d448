package conf

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"throughline/wgtypes"
)

// forget clears positions, which writing changes.
func forget(f *File) *File {
	entries := func(list []Entry) {
		for i := range list {
			list[i].Pos, list[i].private = Pos{}, false
		}
	}
	f.Name, f.Interface.Pos = "", Pos{}
	entries(f.Globals)
	entries(f.Interface.Extra)
	for i := range f.Peers {
		f.Peers[i].Pos, f.Peers[i].Endpoint.Pos = Pos{}, Pos{}
	}
	for i := range f.Sections {
		f.Sections[i].Pos = Pos{}
		entries(f.Sections[i].Entries)
	}
	return f
}

// again writes a file and reads it back.
func again(t interface{ Fatalf(string, ...any) }, f *File) *File {
	var b bytes.Buffer
	if err := Write(&b, f); err != nil {
		t.Fatalf("Write: %v", err)
	}
	p := Parser{Extra: []string{"CheckAlive"}}
	got, err := p.Parse("again", &b)
	if err != nil {
		t.Fatalf("what was written can't be read: %v", err)
	}
	return got
}

func TestWrite(t *testing.T) {
	s := wgtypes.Status{
		PrivateKey: must(wgtypes.ParsePrivateKey(private)), ListenPort: 51820, Mark: 0xca6c,
		Peers: []wgtypes.PeerStatus{{
			PublicKey: must(wgtypes.ParsePublicKey(public)), PresharedKey: must(wgtypes.ParsePresharedKey(preshared)),
			Endpoint: netip.MustParseAddrPort("[2001:db8::1]:51820"), PersistentKeepalive: 25 * time.Second,
			AllowedIPs: prefixes("10.0.0.0/8", "fd00::/8"),
		}, {PublicKey: must(wgtypes.ParsePublicKey(public2))}},
	}
	var b strings.Builder
	if err := Write(&b, FromStatus(&s)); err != nil {
		t.Fatal(err)
	}
	want := `[Interface]
ListenPort = 51820
FwMark = 0xca6c
PrivateKey = ` + s.PrivateKey.Base64() + `

[Peer]
PublicKey = ` + public + `
PresharedKey = ` + preshared + `
AllowedIPs = 10.0.0.0/8, fd00::/8
Endpoint = [2001:db8::1]:51820
PersistentKeepalive = 25

[Peer]
PublicKey = ` + public2 + "\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, f := range map[string]*File{
		"a comment in a hook":     {Interface: Interface{PostUp: []string{"a # b"}}},
		"a line in a hook":        {Interface: Interface{PreUp: []string{"a\nPostUp = b"}}},
		"a section's name":        {Sections: []Section{{Name: "a]\n[b"}}},
		"an entry's key":          {Sections: []Section{{Name: "a", Entries: []Entry{{Key: "a=b"}}}}},
		"a long entry":            {Globals: []Entry{{Key: "a", Value: strings.Repeat("b", maxLine-3)}}},
		"a table like a variable": {Interface: Interface{Table: "$a"}},
		"a key like a variable":   {Interface: Interface{Extra: []Entry{{Key: "CheckAlive", Value: "$a"}}}},
		"all quotes in a value":   {Globals: []Entry{{Key: "a", Value: "`\"'#"}}},
	} {
		var b strings.Builder
		if err := Write(&b, f); err == nil || b.Len() > 0 {
			t.Errorf("%s: %v, and wrote %.100q", name, err, b.String())
		}
	}
}

// TestWriteVariables checks that values which came from variables, or begin with '$' otherwise, are read back as they were, with
// Parser.Env and without, or are refused.
func TestWriteVariables(t *testing.T) {
	p := Parser{Extra: []string{"CheckAlive"}, Env: func(name string) (string, bool) { return map[string]string{"A": "b", "B": "$b"}[name], true }}
	for text, written := range map[string]bool{
		"[Interface]\nTable = $A\nCheckAlive = $A":            true,
		"X = $$a\nY = '$a'\nZ = $B\n[Socks5]\nPassword = $$a": true,
		"[Interface]\nPostUp = $A\nPreDown = $$ > $B":         true,
		"[Interface]\nTable = $$a":                            false,
		"[Interface]\nCheckAlive = $$a":                       false,
		"[Interface]\nTable = $B":                             false,
		"[Interface]\nCheckAlive = $B":                        false,
	} {
		f, err := p.Parse("f", strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := Write(&b, f); !written {
			if err == nil || b.Len() > 0 {
				t.Errorf("%q: %v, and wrote %q", text, err, b.String())
			}
			continue
		}
		for _, reader := range []*Parser{&p, {Extra: p.Extra}} {
			got, err := reader.Parse("again", strings.NewReader(b.String()))
			if err != nil || !reflect.DeepEqual(forget(got), forget(f)) {
				t.Errorf("%q, written as %q: %v", text, b.String(), err)
			}
		}
	}
}

// TestWriteLongLists writes lists that are longer than a line may be.
func TestWriteLongLists(t *testing.T) {
	many := &File{Peers: []Peer{{PublicKey: must(wgtypes.ParsePublicKey(public))}}}
	i, p := &many.Interface, &many.Peers[0]
	for n := range 20_000 {
		a := netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 1})
		i.Address = append(i.Address, netip.PrefixFrom(a, 8))
		i.DNS = append(i.DNS, a)
		i.Search = append(i.Search, fmt.Sprintf("a%d.example", n))
		p.AllowedIPs = append(p.AllowedIPs, netip.PrefixFrom(a, 32))
	}
	if got := forget(again(t, many)); !reflect.DeepEqual(got, many) {
		t.Error("what was read back differs")
	}
	// A list as long as a line may be is one line; with one byte more it is two.
	item := strings.Repeat("b", 39) + "." + strings.Repeat("c", 39)
	for first, want := range map[string]int{"a": 1, "aa": 2} {
		f := &File{Interface: Interface{Search: []string{first}}}
		for range (maxLine - len("DNS = a")) / len(", "+item) {
			f.Interface.Search = append(f.Interface.Search, item)
		}
		var b strings.Builder
		if err := Write(&b, f); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(b.String(), "DNS = "); got != want {
			t.Errorf("%d lines, want %d", got, want)
		}
		if got := forget(again(t, f)); !reflect.DeepEqual(got, f) {
			t.Error("what was read back is another file")
		}
	}
	if (maxLine-len("DNS = a"))%len(", "+item) != 0 {
		t.Error("the longest line wasn't tested")
	}
}

func genPrefix(masked bool) *rapid.Generator[netip.Prefix] {
	return rapid.Custom(func(t *rapid.T) netip.Prefix {
		n := rapid.SampledFrom([]int{4, 16}).Draw(t, "family")
		a, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "address"))
		if a.Is4In6() {
			a = a.Unmap()
		}
		p := netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits"))
		if masked {
			p = p.Masked()
		}
		return p
	})
}

func genKey[K ~[32]byte](t *rapid.T) (k K) {
	copy(k[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key"))
	k[1] |= 1 // not the zero key
	return k
}

func optional[T any](t *rapid.T, name string, g *rapid.Generator[T]) *T {
	if !rapid.Bool().Draw(t, name+"?") {
		return nil
	}
	return new(g.Draw(t, name))
}

// list draws a list that is nil if it is empty, as in a file that was read.
func list[T any](t *rapid.T, name string, g *rapid.Generator[T]) []T {
	if l := rapid.SliceOfN(g, 0, 4).Draw(t, name); len(l) > 0 {
		return l
	}
	return nil
}

func TestRoundTrip(t *testing.T) {
	name := rapid.StringMatching(`[a-z][a-z0-9-]{0,10}(\.[a-z]{2,5})?`)
	addr := rapid.Map(genPrefix(false), func(p netip.Prefix) netip.Addr { return p.Addr() })
	hook := rapid.StringMatching(`[!-"$-~]([ -"$-~]{0,20}[!-"$-~])?`)
	entry := rapid.Custom(func(t *rapid.T) Entry {
		return Entry{Key: rapid.StringMatching(`[A-Za-z][A-Za-z0-9]{0,10}`).Draw(t, "key"), Value: rapid.StringMatching(`[ -&(-~]{0,20}`).Draw(t, "value")}
	})
	rapid.Check(t, func(t *rapid.T) {
		f := &File{Globals: list(t, "globals", entry)}
		i := &f.Interface
		if rapid.Bool().Draw(t, "private") {
			i.PrivateKey = new(genKey[wgtypes.PrivateKey](t).Clamped())
		}
		i.ListenPort = optional(t, "port", rapid.Uint16())
		i.Mark = optional(t, "mark", rapid.Uint32())
		i.Address = list(t, "address", genPrefix(false))
		i.DNS = list(t, "dns", addr)
		i.Search = list(t, "search", rapid.StringMatching(`[a-z]{1,9}\.[a-z]{2,5}`))
		i.MTU = rapid.SampledFrom([]int{0, 576, 1420, 65535}).Draw(t, "mtu")
		i.Table = rapid.SampledFrom([]string{"", "off", "auto", "1234", "main"}).Draw(t, "table")
		i.PreUp, i.PostUp = list(t, "preup", hook), list(t, "postup", hook)
		i.PreDown, i.PostDown = list(t, "predown", hook), list(t, "postdown", hook)
		i.SaveConfig = rapid.Bool().Draw(t, "save")
		seen := map[wgtypes.PublicKey]bool{}
		for range rapid.IntRange(0, 3).Draw(t, "peers") {
			p := Peer{PublicKey: genKey[wgtypes.PublicKey](t), AllowedIPs: list(t, "ips", genPrefix(true))}
			if seen[p.PublicKey] {
				continue
			}
			seen[p.PublicKey] = true
			if rapid.Bool().Draw(t, "psk") {
				p.PresharedKey = new(genKey[wgtypes.PresharedKey](t))
			}
			if rapid.Bool().Draw(t, "endpoint") {
				p.Endpoint.Port = rapid.Uint16Min(1).Draw(t, "port")
				p.Endpoint.Host = name.Draw(t, "name")
				if rapid.Bool().Draw(t, "literal") {
					p.Endpoint.Host = addr.Draw(t, "host").String()
				}
			}
			if k := optional(t, "keepalive", rapid.Uint16()); k != nil {
				p.PersistentKeepalive = new(time.Duration(*k) * time.Second)
			}
			f.Peers = append(f.Peers, p)
		}
		for range rapid.IntRange(0, 2).Draw(t, "sections") {
			f.Sections = append(f.Sections, Section{Name: rapid.SampledFrom([]string{"Socks5", "http", "x y"}).Draw(t, "name"), Entries: list(t, "entries", entry)})
		}
		if got := forget(again(t, f)); !reflect.DeepEqual(got, f) {
			t.Fatalf("got\n%+v\nwant\n%+v", got, f)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("[Interface]\nPrivateKey = " + private + "\nAddress=10.0.0.1/24,fd00::1\nDNS=1.1.1.1,x.y\n[Peer]\nPublicKey=" + public + "\nEndpoint=a:1\nAllowedIPs=::/0,0.0.0.0/0\n")
	f.Add("WGConfig=`x`\n[Socks5]\nPassword='a#b' ; c\n[http]\nX=$Y")
	f.Add("\ufeff[Peer] # c\r\nPublicKey=" + public2 + "\r\nPersistentKeepalive=off\r\nPresharedKey=" + preshared)
	f.Add("[Interface]\nCheckAlive=1\nFwMark=0x1\nPostUp=a;b\nSaveConfig=true\nTable=AUTO\nMTU=1420")
	f.Fuzz(func(t *testing.T, text string) {
		p := Parser{Extra: []string{"CheckAlive"}}
		file, err := p.Parse("f", strings.NewReader(text))
		if err != nil {
			if file != nil {
				t.Fatal("an error and a file")
			}
			return
		}
		if _, err := file.Config(nil); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if Write(&b, file) != nil {
			return // it has a value that can't be written, such as one with every kind of quote
		}
		written := b.String()
		second, err := p.Parse("f", strings.NewReader(written))
		if err != nil {
			t.Fatalf("what was written can't be read: %v\n%s", err, written)
		}
		if !reflect.DeepEqual(forget(second), forget(file)) {
			t.Fatalf("got\n%+v\nwant\n%+v\nwritten\n%s", second, file, written)
		}
	})
}
