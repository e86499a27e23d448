package aead

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"throughline/packet"
)

// A vector is one ChaCha20-Poly1305 encryption. None that is published has the form of a transport message (no
// additional data, a nonce that begins with four zeros), so the vectors check the cipher below Seal and Open, and the
// slow reference that Seal and Open are then compared with.
type vector struct {
	name, key, nonce, ad, text, sealed string
	invalid                            bool
}

var rfc8439 = []vector{{
	name:  "RFC 8439 §2.8.2",
	key:   "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
	nonce: "070000004041424344454647",
	ad:    "50515253c0c1c2c3c4c5c6c7",
	text: hex.EncodeToString([]byte("Ladies and Gentlemen of the class of '99: " +
		"If I could offer you only one tip for the future, sunscreen would be it.")),
	sealed: "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6" +
		"3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36" +
		"92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc" +
		"3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691",
}, {
	name:  "RFC 8439 §A.5",
	key:   "1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0",
	nonce: "000000000102030405060708",
	ad:    "f33388860000000000004e91",
	text: hex.EncodeToString([]byte("Internet-Drafts are draft documents valid for a maximum of six months and " +
		"may be updated, replaced, or obsoleted by other documents at any time. It is inappropriate to use " +
		"Internet-Drafts as reference material or to cite them other than as /\u201cwork in progress./\u201d")),
	sealed: "64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb2" +
		"4c6cfc18755d43eea09ee94e382d26b0bdb7b73c321b0100d4f03b7f355894cf" +
		"332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c855" +
		"9797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4" +
		"b9166c767b804d46a59b5216cde7a4e99040c5a40433225ee282a1b0a06c523e" +
		"af4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548271a" +
		"0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a10" +
		"49e617d91d361094fa68f0ff77987130305beaba2eda04df997b714d6c6f2c29" +
		"a6ad5cb4022b02709beead9d67890cbb22392336fea1851f38",
}}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// check runs a vector through the cipher of a Key and through the reference, and then its key and text through Seal and
// Open at the counter in its nonce.
func (v vector) check(t *testing.T) {
	key, nonce, ad := unhex(t, v.key), unhex(t, v.nonce), unhex(t, v.ad)
	text, sealed := unhex(t, v.text), unhex(t, v.sealed)
	k := Best().NewKey((*[32]byte)(key))

	got, err := k.lib.Open(nil, nonce, sealed, ad)
	ref, ok := refOpen(key, nonce, ad, sealed)
	if v.invalid {
		if err == nil || ok {
			t.Errorf("opened an invalid message: cipher %v, reference %v", err == nil, ok)
		}
	} else {
		if err != nil || !bytes.Equal(got, text) {
			t.Errorf("cipher: open = %x, %v; want %x", got, err, text)
		}
		if !ok || !bytes.Equal(ref, text) {
			t.Errorf("reference: open = %x, %v; want %x", ref, ok, text)
		}
		if got := k.lib.Seal(nil, nonce, text, ad); !bytes.Equal(got, sealed) {
			t.Errorf("cipher: seal = %x, want %x", got, sealed)
		}
		if got := refSeal(key, nonce, ad, text); !bytes.Equal(got, sealed) {
			t.Errorf("reference: seal = %x, want %x", got, sealed)
		}
	}

	var counter uint64
	for i, b := range nonce[4:] {
		counter |= uint64(b) << (8 * i)
	}
	copy(nonce, "\x00\x00\x00\x00")
	slab := append(bytes.Clone(text), make([]byte, 16)...)
	train := []packet.Packet{{Len: len(text), Counter: counter}}
	k.Seal(slab, train)
	if want := refSeal(key, nonce, nil, text); !bytes.Equal(slab, want) {
		t.Errorf("Seal made %x, want %x", slab, want)
	}
	k.Open(slab, train)
	if train[0].Drop != 0 || !bytes.Equal(slab[:train[0].Len], text) {
		t.Errorf("Open made %x, drop %v; want %x", slab[:train[0].Len], train[0].Drop, text)
	}
}

func TestRFC8439(t *testing.T) {
	for _, v := range rfc8439 {
		t.Run(v.name, v.check)
	}
}

func TestWycheproof(t *testing.T) {
	name := filepath.Join("..", "..", "..", "shared", "vectors", "chacha20_poly1305_test.json")
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("the Wycheproof vectors are not here: no %s", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		TestGroups []struct {
			IVSize int
			Tests  []struct {
				TcID                                int
				Comment, Key, IV, AAD, Msg, Ct, Tag string
				Result                              string
			}
		}
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, g := range file.TestGroups {
		if g.IVSize != 8*chacha20poly1305.NonceSize {
			continue // a nonce of another size can't be written down here
		}
		for _, c := range g.Tests {
			v := vector{key: c.Key, nonce: c.IV, ad: c.AAD, text: c.Msg, sealed: c.Ct + c.Tag, invalid: c.Result == "invalid"}
			t.Run(strings.TrimSpace(c.Comment), v.check)
			ran++
		}
	}
	if ran < 300 {
		t.Errorf("%d vectors ran, want 300 at least: has the file changed its form?", ran)
	}
}
